"""The `semconv sweep` command."""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from semconv.commands.errors import fail
from semconv.sweeping.file import Sweep, read_sweep

TRAINING = "semconv.commands.train"  # as text: the import takes seconds, and only the processes of trials need it
DESCRIPTION = """Run a W&B sweep file without the W&B server: grid, random and bayes search, hyperband, several trials at a time.
--resume continues an interrupted sweep and its interrupted trials; finished trials are not run again. Several processes can share
the folder of a sweep."""


def main(arguments: list[str]) -> None:
    """Run a sweep, and print the command that compares its runs."""
    given = _parser().parse_args(arguments)
    try:
        sweep = read_sweep(given.file)
        _refuse_endless(sweep, given.count)
        if sweep.doubt:
            print(f"semconv: warning: {sweep.doubt}", file=sys.stderr)
        folder = given.output or Path("runs") / "sweeps" / sweep.name
        code = _work(sweep, folder, given)
    except ValueError as error:
        fail(str(error))
    sys.exit(code)


def _work(sweep: Sweep, folder: Path, given: argparse.Namespace) -> int:
    # importing Optuna takes a second; --help and errors in the file come before
    from semconv.sweeping.display import Display
    from semconv.sweeping.ledger import Ledger
    from semconv.sweeping.runner import Runner

    if given.jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // given.jobs)))
    ledger = Ledger(folder, sweep, join=given.resume)
    if given.resume:
        ledger.retry_failed()
    console = Console(highlight=False)
    with Display(console, len(sweep.grid) or sweep.run_cap) as display:
        code = Runner(ledger, display, given.jobs, given.count, given.failures, TRAINING).work()
    place = f" --output {folder}" if given.output else ""
    left = "" if ledger.is_over() else f"; not all trials are finished: semconv sweep {given.file}{place} --resume continues"
    print(f"semconv compare {folder} compares the runs{left}")
    return code


def _refuse_endless(sweep: Sweep, count: int | None) -> None:
    if sweep.method != "grid" and sweep.run_cap is None and count is None:
        raise ValueError(f"{sweep.name} is a {sweep.method} search that never ends: give --count, or run_cap in the file")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="semconv sweep", description=DESCRIPTION)
    parser.add_argument("file", type=Path, help="Sweep file, such as sweeps/quickstart.yaml.")
    parser.add_argument("--count", type=_positive, metavar="N", help="Maximal number of trials that this process starts (all).")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="Trials at a time (1); they share the cores.")
    parser.add_argument(
        "--resume", action="store_true", help="Continue the sweep in its folder, also failed trials, or join other processes in it."
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="The sweep's folder (runs/sweeps/<name of the file>).")
    parser.add_argument(
        "--failures", type=_positive, default=3, metavar="N", help="Start no more trials after this number of failures (3)."
    )
    return parser
