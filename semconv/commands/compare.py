"""The `semconv compare` command."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from semconv.commands.errors import in_one_line
from semconv.comparison.runs import find_runs
from semconv.tracking.files import write_text

if TYPE_CHECKING:
    from semconv.comparison.result import Comparison

DESCRIPTION = """Finished runs side by side: grouped by variant, paired by seed, with intervals and verdicts. A variant is
beneficial if it beats, on the same seeds, plain, each of its controls and plain of the same compute (experiments/controls)."""


def main(arguments: list[str]) -> None:
    """Compare runs, print tables, and write them where --output says."""
    given = _parser().parse_args(arguments)
    with in_one_line():
        _compare(given)


def _compare(given: argparse.Namespace) -> None:
    # scipy takes a second, which --help need not wait for
    from semconv.comparison.result import as_data
    from semconv.comparison.tables import sheets, to_csv, to_markdown, to_rich

    comparison = comparison_of(given, given.runs)
    console = Console(width=None if sys.stdout.isatty() else 150)
    notes = notes_on(comparison)
    made = sheets(comparison)
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False)
    for sheet in made:
        console.print(sheet.title, style="bold", soft_wrap=True, highlight=False)
        console.print(to_rich(sheet))
        console.print()
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        write_text(given.output / "comparison.md", "\n".join([*notes, "", *map(to_markdown, made)]))
        write_text(given.output / "comparison.csv", to_csv(comparison))
        write_text(given.output / "comparison.json", json.dumps(as_data(comparison), indent=2, allow_nan=False) + "\n")
        from semconv.comparison.report import render

        write_text(given.output / "comparison.html", render(comparison, notes))
        console.print(f"written to {given.output}: comparison.md, comparison.csv, comparison.json", soft_wrap=True, highlight=False)
        print(given.output / "comparison.html")


def comparison_of(given: argparse.Namespace, runs: Sequence[str]) -> "Comparison":
    """Compare the runs of some places by what `add_options` has parsed.

    Raises:
        ValueError: they cannot be compared.
    """
    from semconv.comparison.grouping import group
    from semconv.comparison.result import compare
    from semconv.comparison.verdicts import CO_PRIMARY, endpoint

    found = find_runs(runs)
    if not found.runs:
        raise ValueError("no tested run in the given folders: semconv run leaves one in runs/<experiment>/<run>")
    experiments = sorted({run.summary["experiment"] for run in found.runs})
    for name in given.family:
        if name not in experiments:
            raise ValueError(f"--family {name}: there are runs of {', '.join(experiments)}")
    if given.baseline not in experiments and given.baseline != "cnn_plain":
        raise ValueError(f"--baseline {given.baseline}: there are runs of {', '.join(experiments)}")
    endpoints = [endpoint(key) for key in given.metric] or list(CO_PRIMARY)
    for each in endpoints:
        if given.metric and not any(isinstance(run.summary.get(each.key), int | float) for run in found.runs):
            raise ValueError(f"--metric {each.key}: no run has it; summary.json of a run lists what there is")
    groups = group(found.runs, given.baseline, [*found.factors, *given.factor], given.allow)
    family = given.family or [name for name in found.family if name in experiments]
    return compare(groups, endpoints, given.baseline, family)


def notes_on(comparison: "Comparison") -> list[str]:
    """What has to be said before any table: what was varied, what may differ, and whether there is a baseline."""
    from semconv.comparison.grouping import shared_protocol

    groups = comparison.groups
    notes = [f"protocol: {shared}"] if (shared := shared_protocol(groups.variants)) else []
    notes += [f"factor {key}: {', '.join(map(str, values))}" for key, values in groups.factors.items()]
    notes += [f"allowed to differ: {key}: {', '.join(map(str, values))}" for key, values in groups.allowed.items()]
    if not any(variant.kind == "baseline" for variant in groups.variants):
        notes.append(f"there is no run of {comparison.baseline}, so nothing is judged: give its runs too, or another --baseline")
    return notes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="semconv compare", description=DESCRIPTION)
    parser.add_argument(
        "runs", nargs="+", help="Run folders, folders or sweep folders that hold some, globs, or wandb:entity/project[/sweep]."
    )
    add_options(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="Folder for comparison.html, .md, .csv and .json.")
    return parser


def add_options(parser: argparse.ArgumentParser) -> None:
    """How runs are compared."""
    parser.add_argument("--baseline", default="cnn_plain", metavar="NAME", help="Experiment that is told nothing (cnn_plain).")
    parser.add_argument(
        "--metric", nargs="+", default=[], metavar="KEY", help="Keys to judge by. Default: test/masked_mse and probe/linear_top1."
    )
    parser.add_argument(
        "--family",
        nargs="+",
        default=[],
        metavar="NAME",
        help="Experiments over which Holm's correction goes (those that a sweep declares, else all that are told).",
    )
    parser.add_argument(
        "--factor",
        nargs="+",
        default=[],
        metavar="KEY",
        help="Keys that were varied on purpose: compared within each of their values.",
    )
    parser.add_argument("--allow", nargs="+", default=[], metavar="KEY", help="Keys that may differ all the same; it is said.")
