"""Finished runs, found and read."""

import glob
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semconv.comparison.declared import declared_by, joined
from semconv.comparison.recorded import load
from semconv.comparison.run import LATER, FinishedRun, Found, Summary, leave_out, started_at
from semconv.comparison.wandb_runs import fetch
from semconv.configuration import flatten
from semconv.files import user_path
from semconv.metrics import MASKED_MSE
from semconv.tracking.identity import IDENTITY
from semconv.yaml_files import read_yaml

SUMMARY = "summary.json"
REQUIRED = (*IDENTITY, "trainer/global_step", MASKED_MSE)
Tell = Callable[[str, str], None]

FORM: dict[str, Callable[[Any], bool]] = {
    "experiment": lambda value: isinstance(value, str) and bool(value),
    "seed": lambda value: isinstance(value, int),
    "protocol": lambda value: isinstance(value, dict),
    "variant": lambda value: isinstance(value, dict) and isinstance(value.get("encoder"), dict),
    "control": lambda value: value is None or isinstance(value, str),
    "controls": lambda value: value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value)),
}


def find_runs(places: Sequence[str], tell: Tell = leave_out) -> Found:
    """All finished runs of some places, those of linear probes and fine-tuning joined to the runs they started from.

    Each run that is left out is named, with the reason.

    Args:
        places: run folders, folders that hold some at any depth, in linked folders too, globs, tables of runs
            `results.csv[:stage]`, or `wandb:entity/project[/sweep]`.
        tell: takes the folder of a run that is left out, and the reason; prints them by default.
    """
    found = [_found(place, tell) for place in places]
    runs = [run for each in found for run in each.runs if _is_whole(run, tell)]
    return Found(_joined(list({run.folder: run for run in runs}.values()), tell), joined(each.declared for each in found))


def _found(place: str, tell: Tell) -> Found:
    """All runs of a place, whole or not."""
    path, colon, stage = place.partition(".csv:")
    if place.startswith("wandb:"):
        return fetch(place.removeprefix("wandb:"))
    if colon or place.endswith(".csv"):
        return load(user_path(f"{path}.csv" if colon else place), stage or None)
    folders = list(_folders(place))
    runs = [_run(path) for folder in folders for path in _summaries(folder, tell)]
    return Found(runs, joined(declared_by(sweep) for folder in folders if (sweep := _sweep(folder))))


def _folders(place: str) -> Iterator[Path]:
    place = place and str(user_path(place))
    is_pattern = glob.has_magic(place) and not Path(place).is_dir()
    paths = [Path(match) for match in sorted(glob.glob(place))] if is_pattern else [Path(place)]
    folders = [path for path in paths if place and path.is_dir()]
    if not folders:
        raise ValueError(f"there is no folder {place or repr(place)}: give run folders, or folders that hold some")
    yield from folders


def _summaries(folder: Path, tell: Tell) -> list[Path]:
    """The summaries at any depth, in linked folders too. A folder that cannot be read is told of: its runs are left out."""
    found, seen = [], set()
    for place, inner, files in os.walk(folder, onerror=lambda error: tell(error.filename, str(error.strerror)), followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a link may lead back
            inner.clear()
        elif SUMMARY in files and ((path := Path(place, SUMMARY)).is_file() or not path.exists()):  # or a link that leads nowhere
            found.append(path)
        seen.add(real)
    return sorted(found)


def _sweep(folder: Path) -> dict[str, Any]:
    """The sweep file of a sweep's folder, or of the sweep that a folder's runs belong to; empty in any other folder."""
    above = [place for place in folder.resolve().parents[:2] if (place / "trials").is_dir()]  # no other folder's sweep.yaml
    path = next((place / "sweep.yaml" for place in (folder, *above) if (place / "sweep.yaml").is_file()), None)
    if path is None:
        return {}
    content = read_yaml(path)
    return content if isinstance(content, dict) else {}


def _run(path: Path) -> FinishedRun:
    summary = _read(path)
    started = started_at(summary.get("started"))
    return FinishedRun(str(path.parent), summary, path.lstat().st_mtime if started is None else started)


def _read(path: Path) -> Summary:
    try:
        text: str | bytes = path.read_text(encoding="utf-8")
        if "\\ud" in text:  # it may be half of a character, which no page can hold
            text = json.dumps(json.loads(text), ensure_ascii=False).encode(errors="replace")
        content = json.loads(text)
    except (ValueError, RecursionError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_whole(run: FinishedRun, tell: Tell) -> bool:
    summary = run.summary
    status = summary.get("status", "finished")
    if not summary:
        tell(run.folder, "its summary.json cannot be read")
    elif "pretrained_run" in summary and status == "finished":
        return True
    elif differs := summary.get("weights_differ_in"):
        tell(run.folder, f"it tests weights that were trained with another {_named(differs)}")
    elif status not in ("finished", "diverged"):
        tell(run.folder, f"it is {status}")
    elif "pretrained_run" in summary:
        tell(run.folder, "it has diverged")
    elif missing := [key for key in (IDENTITY if run.has_diverged else REQUIRED) if key not in summary]:
        tell(run.folder, f"it has no {missing[0]}: a run that is trained and tested has")
    elif wrong := [key for key, fits in FORM.items() if not fits(summary.get(key))]:
        tell(run.folder, f"its {wrong[0]} is {summary.get(wrong[0])!r}, which semconv does not write")
    elif not _is_readable(run):
        tell(run.folder, "its summary.json is damaged")
    else:
        return True
    return False


def _is_readable(run: FinishedRun) -> bool:
    """False for a run whose identity has the wrong form at any depth."""
    encoder, conveys = run.summary["variant"]["encoder"], run.summary.get("conveys") or []
    arguments = encoder.get("init_args") or {}
    mechanism = arguments.get("mechanism") or {} if isinstance(arguments, dict) else None
    try:
        flatten(run.summary["protocol"])
        flatten(run.summary["variant"])
    except (RecursionError, TypeError, ValueError, AttributeError):
        return False
    return isinstance(encoder.get("class_path"), str) and isinstance(mechanism, dict) and isinstance(conveys, list)


def _named(keys: Any) -> str:
    names = keys if isinstance(keys, list) else [keys]
    return " and ".join(str(key).removeprefix("protocol.").removeprefix("variant.") for key in names)


def _joined(runs: list[FinishedRun], tell: Tell) -> list[FinishedRun]:
    """The results of linear probes and fine-tuning, and their protocols, in the summaries of the runs they started from; of two
    of a kind, those of the later one."""
    own = {run.id: run for run in runs if "pretrained_run" not in run.summary}
    later: dict[str, dict[str, FinishedRun]] = {}  # by origin and kind
    for run in sorted(runs, key=lambda run: run.time):
        if "pretrained_run" not in run.summary:
            continue
        origin = str(run.summary["pretrained_run"]).rstrip("/").rpartition("/")[2]
        if origin not in own:
            tell(run.folder, f"the run that it started from, {origin}, is not among those given")
        known = later.setdefault(origin, {})
        for kind in LATER:
            if any(key.startswith(f"{kind}/") for key in run.summary):
                if kind in known:
                    tell(known[kind].folder, f"{run.folder} is a later one of {origin}")
                known[kind] = run
    return [_with_later(run, later.get(run.id, {})) for run in runs if "pretrained_run" not in run.summary]


def _with_later(run: FinishedRun, later: Mapping[str, FinishedRun]) -> FinishedRun:
    summary = {**run.summary}
    for kind, other in later.items():
        summary |= {key: value for key, value in other.summary.items() if key.startswith(f"{kind}/")}
        summary["protocol"] = {**summary["protocol"], kind: other.summary.get("protocol")}
    return replace(run, summary=summary)
