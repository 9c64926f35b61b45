"""The `semconv compare` command."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console

from semconv.commands.errors import in_one_line
from semconv.comparison.run import FinishedRun, leave_out
from semconv.comparison.runs import find_runs
from semconv.configuration import nearest
from semconv.metrics import METRICS, PRIMARY, Direction, Metric, find
from semconv.tracking.files import write_text

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
    from semconv.comparison.tables import sheets

    made = sheets(comparison)
    print_sheets(made, notes_on(comparison))
    if given.output:
        write_comparison(comparison, made, given.output)


def print_sheets(made: Sequence["Sheet"], notes: Sequence[str] = ()) -> None:
    """Print tables, with some lines above them."""
    from semconv.comparison.tables import to_rich

    console = Console(width=None if sys.stdout.isatty() else 150)
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False)
    for sheet in made:
        console.print(sheet.title, style="bold", soft_wrap=True, highlight=False)
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
    from semconv.comparison.report import render
    from semconv.comparison.result import as_data
    from semconv.comparison.tables import to_csv, to_markdown

    notes = notes_on(comparison)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "comparison.md", "\n".join([*notes, "", *map(to_markdown, made)]))
    write_text(output / "comparison.csv", to_csv(comparison))
    write_text(output / "comparison.json", json.dumps(as_data(comparison), indent=2, allow_nan=False) + "\n")
    write_text(output / "comparison.html", render(comparison, notes, sections))
    print(f"written to {output}: comparison.md, comparison.csv, comparison.json")
    print(output / "comparison.html")


def comparison_of(given: argparse.Namespace, runs: Sequence[str]) -> "Comparison":
    """Compare the runs of some places by what `add_options` has parsed.

    Raises:
        ValueError: they cannot be compared.
    """
    from semconv.comparison.grouping import group
    from semconv.comparison.result import compare

    found = find_runs(runs)
    if not found.runs:
        raise ValueError("no tested run in the given folders: semconv run leaves one in runs/<experiment>/<run>")
    experiments = sorted({run.summary["experiment"] for run in found.runs})
    for name in given.family:
        if name not in experiments:
            raise ValueError(f"--family {name}: there are runs of {', '.join(experiments)}")
    if given.baseline not in experiments and given.baseline != "cnn_plain":
        raise ValueError(f"--baseline {given.baseline}: there are runs of {', '.join(experiments)}")
    for option in ("factor", "allow"):
        _require_keys(f"--{option}", getattr(given, option), found.runs)
    endpoints = [_endpoint(key, given.direction, found.runs) for key in dict.fromkeys(given.metric)] or list(PRIMARY)
    declared = found.declared
    groups = group(found.runs, given.baseline, [*declared.factors, *given.factor], given.allow, declared.tuned)
    family = given.family or declared.family
    negligible = declared.negligible if given.negligible is None else given.negligible
    for name in family:
        kinds = {variant.kind for variant in groups.variants if variant.experiment == name} - {"control"}
        if kinds and "candidate" not in kinds:
            raise ValueError(f"{name} is in the family and is no candidate, but a {kinds.pop()}: take it out of the family")
    compared = compare(groups, endpoints, given.baseline, declared._replace(family=tuple(family), negligible=negligible))
    lost: dict[str, str] = {}
    for variant in groups.variants:
        for endpoint in endpoints:
            for seed, run in variant.failed(endpoint.key).items():
                what = "it has diverged" if run.has_diverged else f"its {endpoint.key} is not finite"
                lost.setdefault(run.folder, f"{what}: seed {seed} of {variant.label} has failed")
    for folder, reason in lost.items():
        leave_out(folder, reason)
    return compared


def _require_keys(option: str, given: Sequence[str], runs: Sequence[FinishedRun]) -> None:
    """Refuse a key that no run's protocol has."""
    keys = {key for run in runs for key in run.protocol}
    known = {".".join(key.split(".")[:length]) for key in keys for length in range(1, key.count(".") + 2)}
    for key in given:
        if key not in known:
            similar = nearest(key, sorted(known))
            advice = f"did you mean {similar}?" if similar else "a run's summary.json lists its keys under protocol"
            raise ValueError(f"{option} {key}: the protocol of no run has this key: {advice}")


def _endpoint(key: str, direction: Direction | None, runs: Sequence[FinishedRun]) -> Metric:
    """The metric that runs are to be judged by, with its direction."""
    metric, measured = (
        find(key) or Metric(key, key, None),
        {name: None for run in runs for name, value in run.summary.items() if value is not None},
    )
    if key not in measured:
        others = {*measured, *(one.key for one in METRICS)} - {metric.key}
        similar, needs = nearest(key, sorted(others)), f"; it needs {metric.needs}" if metric.needs else ""
        advice = f": did you mean {similar}?" if similar else "; semconv list metrics names those that semconv records"
        raise ValueError(f"--metric {key}: no run has it{needs}{advice}")
    if direction and metric.direction and direction != metric.direction:
        raise ValueError(f"--direction {direction}: {key} is better when {metric.direction}")
    if not direction and not metric.direction:
        raise ValueError(f"--metric {key}: no direction of it is known to be better: give --direction higher or lower")
    return metric._replace(direction=direction or metric.direction)


def notes_on(comparison: "Comparison") -> list[str]:
    """Lines above the tables: the shared protocol, the factors, the keys that may differ, and a baseline that is missing."""
    from semconv.comparison.grouping import shared_protocol, tuned_values

    groups = comparison.groups
    shared = ", ".join(filter(None, (shared_protocol(groups.variants), *tuned_values(groups))))
    notes = [f"protocol: {shared}"] if shared else []
    notes += [f"factor {key}: {', '.join(map(str, values))}" for key, values in groups.factors.items()]
    allowed = {key: values for key, values in groups.allowed.items() if key not in groups.tuned}
    notes += [f"allowed to differ: {key}: {', '.join(map(str, values))}" for key, values in allowed.items()]
    if not any(variant.kind == "baseline" for variant in groups.variants):
        notes.append(f"no run of {comparison.baseline}, so there is no verdict: give its runs too, or another --baseline")
    return notes


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
    parser.add_argument("--output", type=Path, metavar="DIR", help="Folder for comparison.html, .md, .csv and .json.")
    return parser


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a comparison."""
    parser.add_argument("--baseline", default="cnn_plain", metavar="NAME", help="Experiment without conditioning (cnn_plain).")
    parser.add_argument(
        "--metric", nargs="+", default=[], metavar="KEY", help=f"Keys to judge by ({' and '.join(each.key for each in PRIMARY)})."
    )
    parser.add_argument(
        "--direction",
        choices=get_args(Direction),
        help="Values of --metric that are better, for keys of which semconv does not know it.",
    )
    parser.add_argument(
        "--family",
        nargs="+",
        default=[],
        metavar="NAME",
        help="Experiments over which Holm's correction goes (the family that a sweep declares, else all conditioned networks).",
    )
    parser.add_argument(
        "--factor",
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
    parser.add_argument("--allow", nargs="+", default=[], metavar="KEY", help="Keys that may differ; the output names them.")


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share of the margin: give a number from 0 to 1")
    return share
