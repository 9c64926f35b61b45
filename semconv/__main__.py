"""The `semconv` command."""

import os
import sys
from importlib import import_module

# idle OpenMP threads sleep: by default they busy-wait, and slow down other runs on the same cores
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

TRAINING, ANALYSIS = "Training and testing", "Analysis"
# by group: each command, its module in semconv.commands, and its line of help
COMMANDS = {
    TRAINING: {
        "fit": ("training", "train a network"),
        "run": ("training", "train and then test, as one run; several experiments or seeds become a small sweep"),
        "sweep": ("sweep", "run a W&B sweep file without the W&B server"),
        "study": ("study", "tune, screen, confirm, report: the fair procedure as one command"),
        "test": ("training", "evaluate trained weights on the test images"),
        "validate": ("training", "evaluate trained weights on the validation images"),
        "predict": ("predict", "save reconstructions: of test images (-c CONFIG), or of your own (RUN --images FOLDER)"),
    },
    ANALYSIS: {
        "estimate": ("estimate", "estimate hours, device-hours and memory of a training, from a rate given or measured here"),
        "check": ("check", "verify an experiment, your own classes included: leakage, visibility, sweeps"),
        "compare": ("compare", "compare finished runs: confidence intervals, verdicts, quality against cost"),
        "export": ("export", "export a run's encoder: as weights for timm, or in a wrapper"),
        "workspace": ("workspace", "save a W&B workspace, and a comparison as a W&B report"),
        "init": ("init", "copy experiments and sweeps into a folder, to edit them"),
        "list": ("list", "list variants, data, sweeps, studies, parts (mechanisms, indicators, ...) and metrics"),
    },
}
# where a configuration may name classes of the user's own: these commands, and others that are given one of these options
OWN_CLASSES = {"fit", "run", "sweep", "study", "test", "validate", "check", "estimate"}
OWN_OPTIONS = {"-c", "--config", "--trust"}
PRINTING = {"-h", "--help", "--help-all", "--print_config"}  # options of commands that then train nothing
DEBUGGED = "fit, run, test, validate, predict, estimate, export, check leakage and check visibility"
INTERRUPTED = 130  # as a shell has it


def main() -> None:
    """Run a command; only those that train import torch."""
    if "_ARGCOMPLETE" in os.environ:  # the shell asks, and not a user
        import_module("semconv.commands.completion").complete(COMMANDS[TRAINING] | COMMANDS[ANALYSIS])
    command, *arguments = sys.argv[1:] or ["--help"]
    try:
        dispatch(command, arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:  # before a command that trains handles it
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        if command in COMMANDS[TRAINING] and not prints_only(arguments):
            raise
        # the reader has closed the pipe, as `head` does: print nothing more, also at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        from semconv.commands.errors import fail, own_message

        if (said := own_message(error)) is None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it may be what is full
        fail(said)


def prints_only(arguments: list[str]) -> bool:
    """Tell whether a command that trains is asked for help, or for its configuration, alone."""
    names = {word.partition("=")[0] for word in arguments}
    return bool(PRINTING & names) or any(name.startswith("--") and name.endswith(".help") for name in names)


def dispatch(command: str, arguments: list[str]) -> None:
    """Import a command's module, and call its `main`."""
    commands = COMMANDS[TRAINING] | COMMANDS[ANALYSIS]
    if command in ("-h", "--help"):
        print(overview())
    elif command == "--version":
        print(import_module("semconv.version").__version__)
    elif command in commands:
        given = {word.partition("=")[0] for word in arguments}
        if command in OWN_CLASSES or OWN_OPTIONS & given or os.environ.get("SEMCONV_TRUST"):
            add_current_folder()
        import_module("semconv.memory").keep_freed_memory()
        module, _ = commands[command]
        # one module serves every subcommand of Lightning, and is given its name
        import_module(f"semconv.commands.{module}").main([command, *arguments] if module == "training" else arguments)
    else:
        from semconv.commands.errors import fail
        from semconv.configuration import nearest

        found = nearest(command, list(commands))
        fail(f"there is no command {command}: " + (f"did you mean {found}?" if found else "semconv --help lists them"))


def add_current_folder() -> None:
    """Put the current folder last on the Python path, so that a configuration finds the user's own classes there.

    Every installed package comes before it. Commands that only read runs, which may be somebody else's, import nothing from it.
    """
    if not sys.flags.safe_path and (folder := os.getcwd()) not in sys.path:
        sys.path.append(folder)


def overview() -> str:
    """The text of `semconv --help`."""
    lines = ["semconv trains networks by masked reconstruction, and compares ways to condition them on mask and position.", ""]
    for title, commands in COMMANDS.items():
        lines += [f"{title}:", *(f"  semconv {name:<11}{text}" for name, (_, text) in commands.items()), ""]
    return "\n".join(
        [
            *lines,
            "Train a variant:",
            "  semconv run VARIANT [--data NAME] [--seeds 0,1,2] [-c FILE] [--dotted.key value]",
            "Resume an interrupted run:",
            "  semconv run --resume runs/<experiment>/<run>",
            "`semconv list` names variants. `semconv COMMAND --help` lists options.",
            f"--debug shows the traceback of an error of {DEBUGGED}.",
        ]
    )


if __name__ == "__main__":
    main()
