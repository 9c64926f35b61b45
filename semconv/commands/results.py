"""Results on the terminal: of a run when it ends, and of the best runs of a sweep. Imports no torch."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from semconv.metrics import CLASSICAL, PRIMARY, SHARE_OF_IMAGES, find, of_section, parts
from semconv.tracking.folder import RunFolder

SECTIONS = ("results", "classification", "costs")  # behind the endpoints
BEST = 5  # runs of a sweep
WIDE = 300  # characters of a line in a file, so that a folder is whole


class Finished(NamedTuple):
    """A finished run of a sweep.

    Args:
        name: the parameters that distinguish it.
        folder: its folder.
        summary: what it measured.
    """

    name: str
    folder: RunFolder
    summary: Mapping[str, Any]


def print_results(summary: Mapping[str, Any]) -> None:
    """Print what a run measured, endpoints first, beside its untrained self and baselines without a network."""
    rows = [
        [_label(key), _shown(key, summary), _shown(_baseline(key), summary), *_classical(key, summary)] for key in _keys(summary)
    ]
    _print(["results", "", "untrained", "without a network", ""], rows)
    for metric in PRIMARY:
        if reason := summary.get(f"{metric.key}/reason"):
            print(f"no {metric.label}: {reason}")


def print_best(runs: Sequence[Finished], key: str, maximise: bool) -> None:
    """Print the best of some runs by a metric, with their endpoints."""
    measured = [run for run in runs if isinstance(run.summary.get(key), int | float)]
    ranked = sorted(measured, key=lambda run: run.summary[key], reverse=maximise)[:BEST]
    keys = list(dict.fromkeys([key, *(metric.key for metric in PRIMARY if any(metric.key in run.summary for run in ranked))]))
    rows = [[run.name, *(_shown(each, run.summary) for each in keys), str(run.folder.path)] for run in ranked]
    if rows:
        print(f"best of {len(measured)} finished runs by {key}")
    _print(["trial", *map(_label, keys), "folder"], rows)


def _keys(summary: Mapping[str, Any]) -> list[str]:
    endpoints = [metric.key for metric in PRIMARY if metric.key in summary]
    found = [key for section in SECTIONS for metric in of_section(section) for key in parts(metric, summary).values()]
    return list(dict.fromkeys([*endpoints, *(key for key in found if isinstance(summary[key], int | float))]))


def _label(key: str) -> str:
    metric = find(key)
    if metric is None:
        return key
    head = metric.label if metric.unit == SHARE_OF_IMAGES else metric.head
    return head.replace("top-k", f"top-{key.rpartition('top')[2]}")


def _shown(key: str, summary: Mapping[str, Any]) -> str:
    """The value of a key; a share of images in per cent, and nothing where there is no value."""
    value, metric = summary.get(key), find(key)
    if not isinstance(value, int | float):
        return "none" if key in summary else ""
    if metric is None:
        return f"{value:.4f}"
    return f"{100 * value:.1f} %" if metric.unit == SHARE_OF_IMAGES else metric.show(value)


def _baseline(key: str) -> str:
    metric = find(key)
    return metric.baseline if metric else ""


def _classical(key: str, summary: Mapping[str, Any]) -> list[str]:
    """The value and the name of a baseline without a network."""
    known = ((name, keys[key]) for name, keys in CLASSICAL.items() if keys.get(key) in summary)
    return next(([_shown(other, summary), name] for name, other in known), ["", ""])


def _print(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table without its empty columns, numbers on the right; nothing where it has no row."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    kept = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    for number in kept:
        table.add_column(columns[number], justify="right" if all(_is_number(row[number]) for row in rows) else "left")
    for row in rows:
        table.add_row(*(escape(row[number]) for number in kept))
    if rows:
        Console(width=None if sys.stdout.isatty() else WIDE, highlight=False).print(table)


def _is_number(cell: str) -> bool:
    return cell in ("", "none") or cell[0] in "-0123456789"
