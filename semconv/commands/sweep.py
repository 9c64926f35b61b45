"""The `semconv sweep` command."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from semconv.commands.errors import in_one_line
from semconv.shipped import find
from semconv.sweeping.file import Sweep, own_folder, read_sweep

if TYPE_CHECKING:
    from semconv.sweeping.ledger import Ledger

TRAINING = "semconv.commands.train"  # as text: the import takes seconds, and only the processes of trials need it
VALIDATED = "val/masked_mse"  # by which runs of a sweep without a metric are ranked: tests choose nothing
DESCRIPTION = """Run a W&B sweep file without the W&B server: grid, random and bayes search, hyperband, several trials at a time.
--resume continues an interrupted sweep and its interrupted trials; finished trials are not run again. Several processes can share
the folder of a sweep."""


def main(arguments: list[str]) -> None:
    """Run a sweep, and print the command that compares its runs."""
    given = make_parser().parse_args(arguments)
    with in_one_line():
        file = find(given.file, "sweeps")
        sweep = read_sweep(file)
        _refuse_endless(sweep, given.count)
        if sweep.doubt:
            print(f"semconv: warning: {sweep.doubt}", file=sys.stderr)
        folder = given.output or _folder_of(file) or own_folder(Path("runs") / "sweeps", sweep.name, sweep.content, given.resume)
        place = f" --output {folder}" if given.output else ""
        again = f"semconv sweep {given.file}{place} --resume"
        code = work(sweep, folder, again, given.jobs, given.failures, given.count, given.resume)
    sys.exit(code)


def work(sweep: Sweep, folder: Path, again: str, jobs: int, failures: int, count: int | None = None, resume: bool = False) -> int:
    """Run trials of a sweep, print the command that compares them, and return the exit code.

    Args:
        sweep: the sweep.
        folder: its folder.
        again: what continues it.
        jobs: see `run_trials`.
        failures: see `run_trials`.
        count: see `run_trials`.
        resume: see `run_trials`.
    """
    code, ledger = run_trials(sweep, folder, jobs, failures, count, resume)
    _print_best(ledger)
    left = "" if ledger.is_over() else f"; not all trials are finished: {again} continues"
    print(f"semconv compare {folder} compares the runs{left}")
    return code


def _folder_of(file: Path) -> Path | None:
    """The folder of a sweep that keeps this file as its copy."""
    return file.parent if file.name == "sweep.yaml" and (file.parent / "trials").is_dir() else None


def run_trials(
    sweep: Sweep,
    folder: Path,
    jobs: int,
    failures: int,
    count: int | None = None,
    resume: bool = True,
    done: Sequence[Mapping[str, Any]] = (),
) -> tuple[int, "Ledger"]:
    """Run trials of a sweep, and show their progress: the exit code, and the list of trials.

    Args:
        sweep: the sweep.
        folder: its folder.
        jobs: trials at a time; they share the cores.
        failures: number of failed trials after which no more are started.
        count: maximal number of trials that are started; None: all.
        resume: continue the sweep in its folder, failed trials too, or join other processes in it.
        done: see `Ledger`.
    """
    # importing Optuna takes a second; --help and errors in the file come before
    from semconv.sweeping.display import Display
    from semconv.sweeping.ledger import Ledger
    from semconv.sweeping.runner import Runner

    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    ledger = Ledger(folder, sweep, resume, done)
    if resume:
        ledger.retry_failed()
    with Display(Console(highlight=False), sweep.total) as display:
        return Runner(ledger, display, jobs, count, failures, TRAINING).work(), ledger


def _print_best(ledger: "Ledger") -> None:
    """Print the best of the finished trials, by the metric of the sweep."""
    from optuna.trial import TrialState

    from semconv.commands.results import Finished, print_best
    from semconv.sweeping.display import described
    from semconv.sweeping.trials import find_run

    found = []
    for trial in ledger.trials(TrialState.COMPLETE):
        if (run := find_run(ledger.folder, ledger.run_of(trial))) is not None:
            found.append(Finished(described(ledger.sweep.varied(trial.user_attrs["parameters"])), run, run.summary))
    print_best(found, ledger.sweep.metric or VALIDATED, ledger.sweep.maximise)


def _refuse_endless(sweep: Sweep, count: int | None) -> None:
    if sweep.method != "grid" and sweep.run_cap is None and count is None:
        raise ValueError(f"{sweep.name} is a {sweep.method} search that never ends: give --count, or run_cap in the file")


def positive(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return number


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(prog="semconv sweep", description=DESCRIPTION)
    parser.add_argument("file", help="Sweep file, or the name of one of semconv's, such as quickstart.")
    parser.add_argument("--count", type=positive, metavar="N", help="Maximal number of trials that this process starts (all).")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="Trials at a time (1); they share the cores.")
    parser.add_argument(
        "--resume", action="store_true", help="Continue the sweep in its folder, also failed trials, or join other processes in it."
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="The sweep's folder (runs/sweeps/<name of the file>, with a number if that is taken; the file's "
        "own, if it is the sweep.yaml of such a folder).",
    )
    parser.add_argument(
        "--failures", type=positive, default=3, metavar="N", help="Start no more trials after this number of failures (3)."
    )
    return parser
