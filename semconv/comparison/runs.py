"""Finding runs, and reading what they left."""

import glob
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from semconv.commands.errors import fail
from semconv.configuration import flatten

Summary = dict[str, Any]
REQUIRED = ("experiment", "seed", "protocol", "variant", "trainer/global_step", "test/masked_mse")
# parameters of a sweep that say which run it is, not under what protocol
NO_FACTORS = ("config", "c", "seed_everything", "experiment")


class Run(NamedTuple):
    """A finished run."""

    folder: str
    summary: Summary

    @property
    def protocol(self) -> dict[str, Any]:
        return flatten(self.summary["protocol"])

    @property
    def id(self) -> str:
        return self.folder.rstrip("/").rpartition("/")[2]


class Found(NamedTuple):
    """Runs, and the factors and the family that their sweeps declare."""

    runs: list[Run]
    factors: list[str]
    family: list[str]


def find_runs(places: Sequence[str]) -> Found:
    """All finished runs of some places, those of linear probes and fine-tuning joined to the runs they started from.

    What is left out is named.

    Args:
        places: run folders, folders that hold some at any depth, globs, or `wandb:entity/project[/sweep]`.
    """
    runs: list[Run] = []
    factors: list[str] = []
    family: list[str] = []
    for place in places:
        if place.startswith("wandb:"):
            from semconv.comparison.wandb_runs import fetch

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
            runs += [run for path in summaries if _is_whole(run := Run(str(path.parent), _read(path)))]
    own = _joined(list({run.folder: run for run in runs}.values()))
    return Found(own, list(dict.fromkeys(factors)), list(dict.fromkeys(family)))


def leave_out(folder: str, reason: str) -> None:
    """Say that a run does not count, and why."""
    print(f"left out: {folder}: {reason}", file=sys.stderr)


def factors_of(sweep: Mapping[str, Any]) -> list[str]:
    """What a sweep in W&B's schema varies: dotted keys without init_args.

    Those of its parameters, and those of the line `factors:` of its description, for what its configuration files vary.
    """
    parameters = sweep.get("parameters") or {}
    varied = [key for key, spec in parameters.items() if isinstance(spec, Mapping) and _varies(spec)]
    keys = [".".join(part for part in key.split(".") if part not in ("init_args", "class_path")) for key in varied]
    return [key for key in keys if key.lstrip("-") not in NO_FACTORS] + _described(sweep, "factors")


def family_of(sweep: Mapping[str, Any]) -> list[str]:
    """The experiments that a sweep declares to be judged together: the lines `family:` of its description.

    W&B's schema takes no keys of ours; it keeps the description as it is.
    """
    return _described(sweep, "family")


def _described(sweep: Mapping[str, Any], key: str) -> list[str]:
    lines = str(sweep.get("description") or "").splitlines()
    return [word for line in lines if line.startswith(f"{key}:") for word in line.removeprefix(f"{key}:").split()]


def _varies(spec: Mapping[str, Any]) -> bool:
    return len(spec["values"]) > 1 if "values" in spec else "value" not in spec


def _folders(place: str) -> Iterator[Path]:
    paths = [Path(match) for match in sorted(glob.glob(place))] if glob.has_magic(place) else [Path(place)]
    folders = [path for path in paths if path.is_dir()]
    if not folders:
        fail(f"there is no folder {place}: give run folders, or folders that hold some")
    yield from folders


def _sweep(folder: Path) -> dict[str, Any]:
    """The sweep whose folder this is; empty where it is no sweep's."""
    path = folder / "sweep.yaml"
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        fail(f"{path} is not valid YAML: {error}")
    return content if isinstance(content, dict) else {}


def _read(path: Path) -> Summary:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_whole(run: Run) -> bool:
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


def _joined(runs: list[Run]) -> list[Run]:
    """Each linear probe's and fine-tuning's results in the summary of the run it started from."""
    own = [run for run in runs if "pretrained_run" not in run.summary]
    results: dict[str, Summary] = {}
    for run in runs:
        if "pretrained_run" not in run.summary:
            continue
        origin = str(run.summary["pretrained_run"]).rstrip("/").rpartition("/")[2]
        if all(other.id != origin for other in own):
            leave_out(run.folder, f"the run that it started from, {origin}, is not among those given")
        found = {key: value for key, value in run.summary.items() if key.startswith(("linear_probe/", "finetune/"))}
        results[origin] = {**results.get(origin, {}), **found}
    return [Run(run.folder, {**run.summary, **results.get(run.id, {})}) for run in own]
