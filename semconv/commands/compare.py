"""The `semconv compare` command."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console

from semconv.commands.errors import in_one_line
from semconv.commands.values import user_path
from semconv.files import write_text
from semconv.metrics import PRIMARY, Direction

if TYPE_CHECKING:
    from semconv.comparison.report.sections import Section
    from semconv.comparison.result import Comparison
    from semconv.comparison.tables import Sheet

DESCRIPTION = """Compare finished runs: grouped by variant, paired by seed, with intervals and verdicts. A variant is beneficial
if it beats, on the same seeds, plain, each of its controls and plain of the same compute (experiments/controls); harmful if it is
worse than plain; equivalent if it is within the margin of plain. Each is corrected for the number of variants."""


def main(arguments: list[str]) -> None:
    """Compare runs, print tables, and write them to the folder of --output."""
    given = make_parser().parse_args(arguments)
    with in_one_line():
        _compare(given)


def _compare(given: argparse.Namespace) -> None:
    comparison = comparison_of(given, given.runs)
    # scipy takes a second, which --help need not wait for
    from semconv.comparison.finished import missing_runs, notes_on
    from semconv.comparison.tables import sheets

    made = sheets(comparison)
    print_sheets(made, notes_on(comparison))
    for line in missing_runs(comparison):
        print(line)
    if given.output:
        write_comparison(comparison, made, given.output)


def print_sheets(made: Sequence["Sheet"], notes: Sequence[str] = ()) -> None:
    """Print tables, with some lines above them."""
    from semconv.comparison.tables import to_rich

    console = Console(width=None if sys.stdout.isatty() else 150)
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False, markup=False)
    for sheet in made:
        console.print(sheet.title, style="bold", soft_wrap=True, highlight=False, markup=False)
        console.print(to_rich(sheet))
        console.print()


def write_comparison(comparison: "Comparison", made: Sequence["Sheet"], output: Path, sections: Sequence["Section"] = ()) -> None:
    """Write a comparison into a folder, as Markdown, CSV, JSON and a page, and print the path of the page.

    Args:
        comparison: what is written.
        made: its tables, and others that go into the Markdown file.
        output: the folder; created if it is missing.
        sections: further sections of the page.
    """
    from semconv.comparison.finished import notes_on
    from semconv.comparison.report import render
    from semconv.comparison.result import as_data
    from semconv.comparison.tables import to_csv, to_markdown

    notes = notes_on(comparison)
    page = render(comparison, notes, sections)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "comparison.md", "\n".join([*notes, "", *map(to_markdown, made)]))
    write_text(output / "comparison.csv", to_csv(comparison))
    write_text(output / "comparison.json", json.dumps(as_data(comparison), indent=2, allow_nan=False) + "\n")
    write_text(output / "comparison.html", page)
    print(f"written to {output}: comparison.md, comparison.csv, comparison.json")
    print(output / "comparison.html")


def comparison_of(given: argparse.Namespace, runs: Sequence[str]) -> "Comparison":
    """Compare the runs of some places by what `add_options` has parsed.

    Raises:
        ValueError: they cannot be compared.
    """
    from semconv.comparison.finished import compare

    return compare(
        runs,
        baseline=given.baseline,
        metrics=given.metric,
        direction=given.direction,
        family=given.family,
        factors=given.factor,
        allow=given.allow,
        negligible=given.negligible,
    )


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(prog="semconv compare", description=DESCRIPTION)
    parser.add_argument(
        "runs",
        nargs="+",
        help="Run folders, folders or sweep folders that hold some, globs, results.csv[:stage] of a study, or "
        "wandb:entity/project[/sweep].",
    )
    add_options(parser)
    parser.add_argument("--output", type=user_path, metavar="DIR", help="Folder for comparison.html, .md, .csv and .json.")
    return parser


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a comparison."""
    parser.add_argument("--baseline", default="cnn_plain", metavar="NAME", help="Experiment without conditioning (cnn_plain).")
    parser.add_argument(
        "--metric",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY",
        help=f"Keys to judge by (those that a sweep or a study declares, else {' and '.join(each.key for each in PRIMARY)}).",
    )
    parser.add_argument(
        "--direction",
        choices=get_args(Direction),
        help="Values of --metric that are better, for keys of which semconv does not know it.",
    )
    parser.add_argument(
        "--family",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="Experiments over which Holm's correction goes (the family that a sweep declares, else all conditioned networks).",
    )
    parser.add_argument(
        "--factor",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY",
        help="Keys that were varied on purpose: variants are compared within each of their values.",
    )
    parser.add_argument(
        "--negligible",
        type=_share,
        metavar="SHARE",
        help="Share of the margin up to which a gain or loss is called negligible (what a sweep declares, else 1).",
    )
    parser.add_argument(
        "--allow", action="extend", nargs="+", default=[], metavar="KEY", help="Keys that may differ; the output names them."
    )


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share of the margin: give a number from 0 to 1")
    return share
