"""`semconv compare`: finished runs side by side, one row per variant. Imports no torch."""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from semconv.console import fail

Run = dict[str, Any]
REQUIRED = ("experiment", "test/masked_mse", "test/mean_fill_mse", "cost/encoder_parameters", "cost/parameters")


def main(arguments: list[str]) -> None:
    """Print the table of the given runs."""
    parser = argparse.ArgumentParser(prog="semconv compare", description="Finished runs side by side, one row per variant.")
    parser.add_argument("runs", nargs="+", type=Path, help="Run folders, or folders that hold some at any depth.")
    runs = find_runs(parser.parse_args(arguments).runs)
    if not runs:
        fail("no tested run in the given folders: semconv run leaves one in runs/<experiment>/<run>")
    Console(width=None if sys.stdout.isatty() else 120).print(make_table(runs))


def find_runs(folders: list[Path]) -> list[Run]:
    """The summaries of all tested runs below some folders; a run that is not tested is named and left out."""
    runs = []
    for folder in folders:
        if not folder.is_dir():
            fail(f"there is no folder {folder}")
        for path in sorted(folder.rglob("summary.json")):
            run = _read(path)
            missing = [key for key in REQUIRED if key not in run]
            if missing:
                print(f"left out: {path.parent} has no {missing[0]}", file=sys.stderr)
            else:
                runs.append(run)
    return runs


def make_table(runs: list[Run]) -> Table:
    """One row per variant, the best first, and the floor that each must beat."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run["experiment"]].append(run)
    table = Table("variant", "n", "masked MSE", "encoder parameters", "parameters", "train images/s", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, group in sorted(groups.items(), key=lambda item: _mean(item[1], "test/masked_mse")):
        table.add_row(name, *_cells(group))
    table.add_row("mean fill", "", f"{_mean(runs, 'test/mean_fill_mse'):.4f}", "0", "0", "")
    return table


def _cells(group: list[Run]) -> list[str]:
    rates = [run for run in group if run.get("cost/train_images_per_second")]
    return [
        str(len(group)),
        _spread([run["test/masked_mse"] for run in group]),
        f"{group[0]['cost/encoder_parameters']:,}",
        f"{group[0]['cost/parameters']:,}",
        f"{_mean(rates, 'cost/train_images_per_second'):,.0f}" if rates else "",
    ]


def _spread(values: list[float]) -> str:
    """Mean, and standard deviation over runs where there are several."""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"


def _mean(runs: list[Run], key: str) -> float:
    return statistics.mean(run[key] for run in runs)


def _read(path: Path) -> Run:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return {}
