"""The `semconv study` command."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from semconv.commands.compare import print_sheets, write_comparison
from semconv.commands.errors import in_one_line
from semconv.commands.places import add_options, placed
from semconv.commands.sweep import place_options, run_trials
from semconv.commands.values import positive, user_path
from semconv.configuration import one_line
from semconv.files import as_word
from semconv.shipped import HOME, find
from semconv.study.arms import Point
from semconv.study.file import Study, read_study
from semconv.study.rounds import Rounds, Unfinished, check_folder, keep_study
from semconv.sweeping.file import Sweep, own_folder
from semconv.sweeping.jobs import Place
from semconv.tracking.environment import processor

DESCRIPTION = """Run a study: tune every network by the same search, screen the candidates, confirm some of them on fresh seeds, and
report. Each stage is one or more rounds, each of them a W&B sweep in the study's folder, which any number of processes may share.
--plan trains every network for a few steps and every control for one, prints runs, hours and error rates, and stops. --resume
continues a study that was interrupted or killed; with --table, also on another machine, from the table of its runs alone. --prepare
runs nothing: it writes the sweep file of the next round, for W&B's agents or other processes. --only and --seed run one row of its
table again, and say whether the numbers are the same. --cluster runs everything on a cluster of Ray, or as jobs of SLURM."""


def main(arguments: list[str]) -> None:
    """Run a study, and print its verdicts and the path of its report."""
    given = make_parser().parse_args(arguments)
    with in_one_line():
        study = read_study(find(given.file, "sweeps/studies"))
        if given.table and given.only is None and (given.prepare or not given.resume):
            raise ValueError("--table goes with --only, whose row it holds, or with --resume, which does not run its runs again")
        if given.only is not None or given.seed is not None:
            with placed(given) as place:
                sys.exit(_repeat(study, given, place))
        goes_on = given.resume or given.prepare
        own = own_folder(Path("runs") / "studies", study.name, study.content, goes_on, "study.yaml")
        folder = Path(os.path.relpath(given.output or own))
        if "," in str(folder):
            raise ValueError(f"{folder} has a comma in its name, which would end the name of a file in it: give another --output")
        with placed(given) as place:
            code = _conduct(study, folder, given, place)
    sys.exit(code)


def _conduct(study: Study, folder: Path, given: argparse.Namespace, place: Place) -> int:
    # importing Optuna and scipy takes seconds; --help and errors in the file come before
    from semconv.comparison.tables import sheets
    from semconv.study.continuation import read_rows
    from semconv.study.plan import cost_sheet, costs, networks_sheet, rates_sheet
    from semconv.study.results import keep_recorded, save_runs, screening_sheet, sections, tuning_sheet
    from semconv.study.stages import Measured, decide, measure, try_controls
    from semconv.sweeping.ledger import Ledger

    check_folder(study, folder, given.resume or given.plan or given.prepare)
    recorded = read_rows(study, folder, given.table, given.accept_code)
    keep_study(study, folder)
    if given.prepare and recorded:
        raise ValueError(f"{folder} continues a table, and --prepare writes whole rounds: continue it by --resume")

    table = folder / "results.csv"
    measured: Measured | None = None
    is_over = False

    def run_sweep(sweep: Sweep, own: Path, done: Sequence[Mapping[str, Any]]) -> int:
        if given.prepare:
            Ledger(own, sweep, join=True)
            file = shlex.quote(as_word(own / "sweep.yaml"))
            print(f"{len(sweep.grid) - len(done)} runs to do: wandb sweep {file}, or semconv sweep {file} --resume")
            raise Unfinished(0)
        print(f"{own.name}: {len(sweep.grid) - len(done)} runs")
        code = run_trials(sweep, own, place, given.failures, done=done)[0]
        if measured is not None:  # else the rows of a table have not been checked
            save_runs(rounds, table)
        return code

    @cache
    def accepts(point: Point) -> bool:
        refused = _refused(rounds, point)
        if not refused or study.tune is None or _refused(rounds, point._replace(value=study.tune.values[0])):  # for another reason
            return True
        print(f"the grid of {study.tune.key} ends before {point.value:g}: {refused}")
        return False

    rounds = Rounds(study, folder, run_sweep, recorded, accepts)
    if others := rounds.of_other_code():
        print(
            f"semconv: warning: the code has changed since runs of {', '.join(others)} were trained: delete "
            f"{folder / others[0]} and the later rounds to run the study anew from there",
            file=sys.stderr,
        )
    try:
        measured = measure(rounds)
        keep_recorded(rounds)
        try_controls(rounds, measured)
        planned = costs(study, measured)
        print_sheets([cost_sheet(planned, place.jobs)])
        if given.plan:
            print_sheets([networks_sheet(planned), rates_sheet(study, measured)])
            return 0
        tuned, screened, comparison = decide(rounds, measured)
        is_over = True
    except Unfinished as end:
        print(f"not all runs are finished: {_again(folder, given, kept=measured is not None)} continues")
        return end.code
    finally:
        unused = save_runs(rounds, table, is_over) if measured is not None else 0
    if unused:
        print(
            f"semconv: warning: results.csv leaves out {unused} rows of the table, which the study has no use for", file=sys.stderr
        )
    made = [
        *([tuning_sheet(study, tuned)] if tuned else []),
        *([screening_sheet(study, screened)] if screened else []),
        *(sheets(comparison) if comparison else []),
    ]
    print_sheets(made)
    if comparison is None:
        print("the screening keeps no candidate: every interval lies below zero, or runs have failed; so nothing is confirmed")
        return 0
    print(f"runs as a table: {table} with results.yaml; semconv compare {shlex.quote(as_word(table))} reads them")
    if all(row["stage"] != "confirm" for row, _ in rounds.recorded):  # a table has no weights
        print(f"semconv export {shlex.quote(as_word(folder))} --output weights writes the weights of the best network")
    write_comparison(comparison, made, folder / "report", sections(study, tuned, screened))
    return 0


def _refused(rounds: Rounds, point: Point) -> str:
    """Say why the command line refuses a point of a search; empty where it does not."""
    from semconv.commands.check_sweeps import check

    assert rounds.study.tune is not None
    try:
        check(Sweep(rounds.study.name, rounds.sweep(rounds.folder, [point], rounds.study.tune.seeds[:1], {})))
    except ValueError as error:
        return one_line(error)
    return ""


def _again(folder: Path, given: argparse.Namespace, kept: bool) -> str:
    """The command that continues a study as it was started.

    Args:
        folder: the study's folder.
        given: the arguments.
        kept: the folder keeps the table, so that it need not be given again.
    """
    output = ["--output", as_word(folder)] if given.output else []
    ways = [f"--{way}" for way in ("plan", "prepare", "resume") if getattr(given, way)] or ["--resume"]
    table = ["--table", as_word(given.table)] if given.table and not kept else []
    codes = ["--accept-code", *given.accept_code] if given.accept_code else []
    return shlex.join(["semconv", "study", given.file, *output, *ways, *table, *codes, *place_options(given)])


def _repeat(study: Study, given: argparse.Namespace, place: Place) -> int:
    """Run one row of the table of a study again, and compare: 0 where all numbers are the same, else 1."""
    from semconv.study.again import differing, find_row

    if given.only is None or given.seed is None:
        raise ValueError("--only and --seed go together: give a network and a seed, such as --only cnn_channels --seed 0")
    if ways := [way for way in ("plan", "prepare", "resume", "accept_code") if getattr(given, way)]:
        raise ValueError(f"--{ways[0].replace('_', '-')} is of a whole study, and --only runs one row: leave one of them out")
    places = [given.table] if given.table else [Path("results") / f"{study.name}.csv", HOME / "results" / f"{study.name}.csv"]
    table = next((place for place in places if place.is_file()), places[0])
    point, row = find_row(study, table, given.only, given.seed)
    known = row.summary["environment"]
    if known.get("num_threads"):  # sums are rounded in the order of the threads
        os.environ["OMP_NUM_THREADS"] = str(known["num_threads"])
    folder = Path(os.path.relpath(given.output or own_folder(Path("runs") / "again", study.name, {}, False, "again/sweep.yaml")))
    rounds = Rounds(study, folder, lambda sweep, own, done: run_trials(sweep, own, place, 1, done=done)[0])
    if rounds.finished("again"):
        raise ValueError(f"{folder} holds a row that was run again before: give another --output")
    try:
        (runs,) = rounds.run("again", [point], [given.seed]).values()
    except Unfinished as end:
        return end.code
    again = runs[given.seed]
    if row.has_diverged or again.has_diverged:
        words = ["diverged" if run.has_diverged else "finished" for run in (row, again)]
        print(f"the row of {table} has {words[0]}, and the run has {words[1]} here")
        return int(words[0] != words[1])
    compared, found = differing(row, again)
    if not found:
        print(f"the same to the last bit as the row of {table}: {compared} numbers, times and costs aside")
        return 0
    key, (before, now) = next(iter(found.items()))
    print(f"{len(found)} numbers differ from the row of {table}; the first is {key}: {before!r} there, {now!r} here")
    for where, environment in (("the row was trained on", known), ("this machine has", {"processor": processor()})):
        print(f"{where}: {', '.join(f'{name} {value}' for name, value in environment.items() if value is not None)}")
    return 1


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(prog="semconv study", description=DESCRIPTION)
    parser.add_argument("file", help="Study file, or the name of one of semconv's, such as demo.")
    parser.add_argument("--plan", action="store_true", help="Print runs, hours and error rates, and stop.")
    parser.add_argument("--resume", action="store_true", help="Continue an interrupted study.")
    parser.add_argument("--prepare", action="store_true", help="Write the sweep file of the next round, and stop.")
    parser.add_argument(
        "--only", metavar="NAME", help="Run one row of the table again: a network, such as cnn_channels-zero, or SETTING/NAME."
    )
    parser.add_argument("--seed", type=int, metavar="S", help="The seed of the row of --only.")
    parser.add_argument(
        "--table",
        type=user_path,
        metavar="CSV",
        help="The table of --only (results/<name of the file>.csv); with --resume, a table whose runs are not run again.",
    )
    parser.add_argument(
        "--accept-code",
        action="extend",
        nargs="+",
        default=[],
        metavar="HASH",
        help="Continue runs of the table whose column code is this, though the code has changed since.",
    )
    parser.add_argument(
        "--output", type=user_path, metavar="DIR", help="The study's folder (runs/studies/<name of the file>, numbered if taken)."
    )
    parser.add_argument(
        "--failures", type=positive, default=3, metavar="N", help="Start no more runs of a round after this number of failures (3)."
    )
    add_options(parser, "Runs")
    return parser
