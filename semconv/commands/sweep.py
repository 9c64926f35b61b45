"""The `semconv sweep` command."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from semconv.commands.errors import in_one_line
from semconv.commands.places import OF_CLUSTERS, add_options, placed
from semconv.commands.values import positive, user_path
from semconv.comparison.declared import declared_by
from semconv.files import as_word
from semconv.shipped import find
from semconv.sweeping.file import Sweep, own_folder, read_sweep
from semconv.sweeping.jobs import Place
from semconv.tracking.secrets import redact

if TYPE_CHECKING:
    from semconv.sweeping.ledger import Ledger

TRAINING = "semconv.commands.train"  # as text: the import takes seconds, and only the processes of trials need it
VALIDATED = "val/masked_mse"  # by which runs of a sweep without a metric are ranked: tests choose nothing
DESCRIPTION = """Run a W&B sweep file without the W&B server: grid, random and bayes search, hyperband, several trials at a time.
--resume continues an interrupted sweep and its interrupted trials; finished trials are not run again. Several processes can share
the folder of a sweep. --cluster runs the trials on a cluster of Ray, or as jobs of SLURM."""


def main(arguments: list[str]) -> None:
    """Run a sweep, and print the command that compares its runs."""
    given = make_parser().parse_args(arguments)
    with in_one_line():
        file = find(given.file, "sweeps")
        sweep = read_sweep(file)
        _refuse_endless(sweep, given.count)
        declared_by(sweep.content)  # refused before the runs, and not when they are compared
        if sweep.doubt:
            print(f"semconv: warning: {sweep.doubt}", file=sys.stderr)
        folder = given.output or _folder_of(file) or own_folder(Path("runs") / "sweeps", sweep.name, sweep.content, given.resume)
        with placed(given) as place:
            code = work(sweep, folder, _again(sweep, given), place, given.failures, given.count, given.resume)
    sys.exit(code)


def work(
    sweep: Sweep, folder: Path, again: str, place: Place, failures: int, count: int | None = None, resume: bool = False
) -> int:
    """Run trials of a sweep, print the command that compares them, and return the exit code.

    Args:
        sweep: the sweep.
        folder: its folder.
        again: what continues it.
        place: see `run_trials`.
        failures: see `run_trials`.
        count: see `run_trials`.
        resume: see `run_trials`.
    """
    code, ledger = run_trials(sweep, folder, place, failures, count, resume)
    _print_best(ledger)
    left = "" if ledger.is_over() else f"; not all trials are finished: {again} continues"
    print(f"semconv compare {shlex.quote(as_word(folder))} compares the runs{left}")
    return code


def _again(sweep: Sweep, given: argparse.Namespace) -> str:
    """The command that continues a sweep as it was started."""
    output = ["--output", as_word(given.output)] if given.output else []
    count = ["--count", str(given.count)] if _is_endless(sweep) else []
    failures = ["--failures", str(given.failures)] if given.failures != make_parser().get_default("failures") else []
    return shlex.join(["semconv", "sweep", given.file, *output, "--resume", *count, *failures, *place_options(given)])


def place_options(given: argparse.Namespace) -> list[str]:
    """The given options that say where trials run, as words of a command to print: without secrets."""
    words: list[str] = []
    for name in ("jobs", "cluster", *OF_CLUSTERS):
        if (value := getattr(given, name)) is not None:
            values = value if isinstance(value, list) else [f"{value:g}" if isinstance(value, float) else str(value)]
            words += [f"--{name.replace('_', '-')}", *values]
    return redact(words)


def _folder_of(file: Path) -> Path | None:
    """The folder of a sweep that keeps this file as its copy."""
    return file.parent if file.name == "sweep.yaml" and (file.parent / "trials").is_dir() else None


def run_trials(
    sweep: Sweep,
    folder: Path,
    place: Place,
    failures: int,
    count: int | None = None,
    resume: bool = True,
    done: Sequence[Mapping[str, Any]] = (),
) -> tuple[int, "Ledger"]:
    """Run trials of a sweep, and show their progress: the exit code, and the list of trials.

    Args:
        sweep: the sweep.
        folder: its folder.
        place: where they run.
        failures: number of failed trials after which no more are started.
        count: maximal number of trials that are started; None: all.
        resume: continue the sweep in its folder, failed trials too, or join other processes in it.
        done: see `Ledger`.
    """
    # importing Optuna takes a second; --help and errors in the file come before
    from semconv.sweeping.display import Display
    from semconv.sweeping.ledger import Ledger
    from semconv.sweeping.runner import Runner

    ledger = Ledger(folder, sweep, resume, done)
    if resume:
        ledger.retry_failed()
    elsewhere = {place for place, point in enumerate(sweep.grid, 1) if any(part.items() <= point.items() for part in done)}
    with Display(Console(highlight=False), sweep.total, elsewhere) as display:
        return Runner(ledger, display, place, count, failures, TRAINING).work(), ledger


def _print_best(ledger: "Ledger") -> None:
    """Print the best of the finished trials, by the metric of the sweep."""
    from optuna.trial import TrialState

    from semconv.commands.results import Finished, print_best
    from semconv.sweeping.display import described
    from semconv.sweeping.jobs import find_run

    found = []
    for trial in ledger.trials(TrialState.COMPLETE):
        if (run := find_run(ledger.folder, ledger.run_of(trial))) is not None:
            found.append(Finished(described(ledger.sweep.varied(trial.user_attrs["parameters"])), run, run.summary))
    print_best(found, ledger.sweep.metric or VALIDATED, ledger.sweep.maximise)


def _is_endless(sweep: Sweep) -> bool:
    return sweep.method != "grid" and sweep.run_cap is None


def _refuse_endless(sweep: Sweep, count: int | None) -> None:
    if _is_endless(sweep) and count is None:
        raise ValueError(f"{sweep.name} is a {sweep.method} search that never ends: give --count, or run_cap in the file")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(prog="semconv sweep", description=DESCRIPTION)
    parser.add_argument("file", help="Sweep file, or the name of one of semconv's, such as quickstart.")
    parser.add_argument("--count", type=positive, metavar="N", help="Maximal number of trials that this process starts (all).")
    parser.add_argument(
        "--resume", action="store_true", help="Continue the sweep in its folder, also failed trials, or join other processes in it."
    )
    parser.add_argument(
        "--output",
        type=user_path,
        metavar="DIR",
        help="The sweep's folder (runs/sweeps/<name of the file>, with a number if that is taken; the file's "
        "own, if it is the sweep.yaml of such a folder).",
    )
    parser.add_argument(
        "--failures", type=positive, default=3, metavar="N", help="Start no more trials after this number of failures (3)."
    )
    add_options(parser, "Trials")
    return parser
