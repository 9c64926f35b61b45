"""The `semconv` command."""

import os
import sys

# OpenMP's threads wait for each other spinning, and so slow down other runs on the same cores; asleep they cost nothing
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

TRAINING = {
    "fit": "train",
    "run": "train, then test, as one run: what sweeps call",
    "sweep": "run a W&B sweep file, without its server",
    "test": "evaluate trained weights on the test images",
    "validate": "evaluate trained weights on the validation images",
    "predict": "write pictures of reconstructed test images; of your own with predict RUN --images FOLDER --output DIR",
}
LOOKING = {
    "check": "what must hold for any experiment, your own classes included: leakage, visibility, sweeps",
    "compare": "finished runs: intervals, verdicts, quality against cost",
    "export": "a run's encoder for use elsewhere: weights for timm, or a wrapper",
    "workspace": "save a W&B workspace, and a comparison as a W&B report",
    "list": "variants, mechanisms, indicators, maskers and other parts that there are",
}


def main() -> None:
    """Dispatch to a subcommand; only those that train import torch."""
    command, *arguments = sys.argv[1:] or ["--help"]
    try:
        dispatch(command, arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        if command in TRAINING:
            raise
        # who was to read has gone, as head does; nothing is left to be said, at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def dispatch(command: str, arguments: list[str]) -> None:
    """Run a subcommand."""
    match command:
        case "-h" | "--help":
            print(overview())
        case "--version":
            from semconv.version import __version__

            print(__version__)
        case "compare":
            from semconv.commands.compare import main as compare

            compare(arguments)
        case "workspace":
            from semconv.commands.workspace import main as dashboard

            dashboard(arguments)
        case "list":
            from semconv.commands.list import main as show

            show(arguments)
        case "check":
            from semconv.commands.check import main as check

            check(arguments)
        case "export":
            from semconv.commands.export import main as export

            export(arguments)
        case "predict" if arguments and (not arguments[0].startswith("-") or arguments[0] in ("-h", "--help")):
            from semconv.commands.predict import main as predict

            predict(arguments)
        case "sweep":
            from semconv.commands.sweep import main as sweep

            sweep(arguments)
        case _ if command in TRAINING:
            from semconv.commands.train import main as train

            train([command, *arguments])
        case _:
            from semconv.commands.errors import fail
            from semconv.configuration import nearest

            found = nearest(command, [*TRAINING, *LOOKING])
            fail(f"there is no command {command}: " + (f"did you mean {found}?" if found else "semconv --help lists them"))


def overview() -> str:
    """What `semconv --help` prints."""
    lines = ["semconv trains networks by masked reconstruction, told in different ways what is masked and where they are.", ""]
    for title, commands in (("Training and testing", TRAINING), ("Looking", LOOKING)):
        lines += [f"{title}:", *(f"  semconv {name:<11}{text}" for name, text in commands.items()), ""]
    return "\n".join(
        [
            *lines,
            "A variant is trained with",
            "  semconv run -c experiments/base.yaml -c experiments/<variant>.yaml [--dotted.key value]",
            "and one that was stopped goes on with",
            "  semconv run --resume runs/<experiment>/<run>",
            "`semconv COMMAND --help` lists every option. --debug shows the traceback of an error.",
        ]
    )


if __name__ == "__main__":
    main()
