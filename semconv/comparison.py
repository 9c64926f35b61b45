"""`semconv compare`: finished runs side by side, one row per variant. Imports no torch."""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from semconv.console import fail

Run = dict[str, Any]
REQUIRED = ("protocol", "variant", "trainer/global_step", "test/masked_mse", "test/mean_fill_mse", "cost/encoder_parameters")


def main(arguments: list[str]) -> None:
    """Print a table for each protocol among the given runs."""
    parser = argparse.ArgumentParser(prog="semconv compare", description="Finished runs side by side, one row per variant.")
    parser.add_argument("runs", nargs="+", type=Path, help="Run folders, or folders that hold some at any depth.")
    runs = find_runs(parser.parse_args(arguments).runs)
    if not runs:
        fail("no tested run in the given folders: semconv run leaves one in runs/<experiment>/<run>")
    console = Console(width=None if sys.stdout.isatty() else 132)
    for protocol, group in _grouped(runs, lambda run: json.dumps(run["protocol"], sort_keys=True)).items():
        console.print(describe(json.loads(protocol)), soft_wrap=True, highlight=False)
        console.print(make_table(group))


def find_runs(folders: list[Path]) -> list[Run]:
    """The summaries of all runs below some folders that were trained and tested, the latest of each protocol, variant and seed.

    What is left out is named.
    """
    runs: dict[str, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            fail(f"there is no folder {folder}")
        for path in sorted(folder.rglob("summary.json")):
            run = _read(path)
            missing = [key for key in REQUIRED if key not in run]
            if missing:
                status = run.get("status", "finished")
                _leave_out(path.parent, f"it has no {missing[0]}" if status == "finished" else f"it is {status}, and not tested")
                continue
            key = json.dumps([run["protocol"], _variant(run), run["seed"]], sort_keys=True)
            if key in runs:
                _leave_out(runs[key]["folder"], f"{path.parent} is a later run of its seed")
            runs[key] = {**run, "folder": path.parent}
    return list(runs.values())


def describe(protocol: dict[str, Any]) -> str:
    """What runs of one table share, in a line."""
    data, model, trainer = protocol["data"], protocol["model"], protocol["trainer"]
    parts = [f"{data['source']} {_size(data['size'])}", f"cells of {model['cell']}", f"size {model['size']}"]
    parts += [_part(model["masker"]), _part(model["corruption"]), _part(model["objective"])]
    parts += [f"batches of {data['batch_size']}", f"base_lr {model['base_lr']}"]
    parts += [f"{key} {value}" for key, value in trainer.items() if value not in (None, -1, False)]
    return ", ".join(parts)


def make_table(runs: list[Run]) -> Table:
    """One row per variant, the best first, and the floor that each must beat.

    Runs of one name whose networks were configured in different ways stand in rows of their own.
    """
    table = Table("variant", "n", "masked MSE", "encoder parameters", "parameters", "train images/s", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    floor = _mean(runs, "test/mean_fill_mse")
    groups = _grouped(runs, _variant).values()
    for group in sorted(groups, key=lambda group: _mean(group, "test/masked_mse")):
        name, beaten = group[0]["experiment"], _mean(group, "test/masked_mse") < floor
        table.add_row(name if beaten else f"{name} (does not beat mean fill)", *_cells(group))
    table.add_row("mean fill", "", f"{floor:.4f}", "0", "0", "")
    return table


def _grouped(runs: list[Run], key: Callable[[Run], str]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return groups


def _variant(run: Run) -> str:
    return json.dumps([run["experiment"], run["variant"]], sort_keys=True)


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


def _size(size: list[int]) -> str:
    return " x ".join(str(side) for side in size)


def _part(config: dict[str, Any]) -> str:
    """A class and its arguments, as one would write them."""
    name = config["class_path"].rpartition(".")[2]
    arguments = (config.get("init_args") or {}).items()
    return f"{name}({', '.join(f'{key}={_part(value) if isinstance(value, dict) else value}' for key, value in arguments)})"


def _leave_out(folder: Path, reason: str) -> None:
    print(f"left out: {folder}: {reason}", file=sys.stderr)


def _read(path: Path) -> Run:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return {}
