"""Finished runs, found and read."""

import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from semconv.comparison.declared import factors_of, family_of
from semconv.comparison.run import FinishedRun, Found, Summary, leave_out
from semconv.comparison.wandb_runs import fetch
from semconv.configuration import one_line
from semconv.metrics import MASKED_MSE

CLASSIFIED = ("linear_probe/", "finetune/", "scratch/")  # results of runs that start from another
REQUIRED = ("experiment", "seed", "protocol", "variant", "trainer/global_step", MASKED_MSE)


def find_runs(places: Sequence[str]) -> Found:
    """All finished runs of some places, those of linear probes and fine-tuning joined to the runs they started from.

    Each run that is left out is named, with the reason.

    Args:
        places: run folders, folders that hold some at any depth, globs, or `wandb:entity/project[/sweep]`.
    """
    runs: list[FinishedRun] = []
    factors: list[str] = []
    family: list[str] = []
    for place in places:
        if place.startswith("wandb:"):
            found = fetch(place.removeprefix("wandb:"))
            runs += [run for run in found.runs if _is_whole(run)]
            factors += found.factors
            family += found.family
            continue
        for folder in _folders(place):
            sweep = _sweep(folder)
            factors += factors_of(sweep)
            family += family_of(sweep)
            summaries = sorted(folder.rglob("summary.json"))
            runs += [run for path in summaries if _is_whole(run := FinishedRun(str(path.parent), _read(path)))]
    own = _joined(list({run.folder: run for run in runs}.values()))
    return Found(own, list(dict.fromkeys(factors)), list(dict.fromkeys(family)))


def _folders(place: str) -> Iterator[Path]:
    paths = [Path(match) for match in sorted(glob.glob(place))] if glob.has_magic(place) else [Path(place)]
    folders = [path for path in paths if path.is_dir()]
    if not folders:
        raise ValueError(f"there is no folder {place}: give run folders, or folders that hold some")
    yield from folders


def _sweep(folder: Path) -> dict[str, Any]:
    """The sweep file of a sweep's folder; empty in any other folder."""
    path = folder / "sweep.yaml"
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {one_line(error)}") from error
    return content if isinstance(content, dict) else {}


def _read(path: Path) -> Summary:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_whole(run: FinishedRun) -> bool:
    summary = run.summary
    status = summary.get("status", "finished")
    if not summary:
        leave_out(run.folder, "its summary.json cannot be read")
    elif "pretrained_run" in summary and status == "finished":
        return True
    elif status != "finished":
        leave_out(run.folder, f"it is {status}")
    elif missing := [key for key in REQUIRED if key not in summary]:
        leave_out(run.folder, f"it has no {missing[0]}: a run that is trained and tested has")
    else:
        return True
    return False


def _joined(runs: list[FinishedRun]) -> list[FinishedRun]:
    """The results of linear probes and fine-tuning, in the summaries of the runs they started from."""
    own = [run for run in runs if "pretrained_run" not in run.summary]
    results: dict[str, Summary] = {}
    for run in runs:
        if "pretrained_run" not in run.summary:
            continue
        origin = str(run.summary["pretrained_run"]).rstrip("/").rpartition("/")[2]
        if all(other.id != origin for other in own):
            leave_out(run.folder, f"the run that it started from, {origin}, is not among those given")
        found = {key: value for key, value in run.summary.items() if key.startswith(CLASSIFIED)}
        results[origin] = {**results.get(origin, {}), **found}
    return [FinishedRun(run.folder, {**run.summary, **results.get(run.id, {})}) for run in own]
