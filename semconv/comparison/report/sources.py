"""Curves, spreads and environments, read from runs for a report."""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from semconv.comparison.grouping import Variant
from semconv.comparison.run import FinishedRun, finite
from semconv.tracking.folder import RunFolder

POINTS = 60  # of a learning curve, at most


class Spread(NamedTuple):
    """A value over seeds."""

    mean: float
    low: float
    high: float
    n: int


class Curve(NamedTuple):
    """A metric over training: means of seeds, with their range."""

    places: list[float]  # samples seen
    mean: list[float]
    low: list[float]
    high: list[float]
    n: int


def spread(variant: Variant, key: str) -> Spread | None:
    """A summary key over the seeds that have it."""
    values = list(variant.values(key).values())
    return Spread(statistics.fmean(values), min(values), max(values), len(values)) if values else None


def keys_of(variants: Sequence[Variant]) -> list[str]:
    """Summary keys that hold a number in some run, in the order in which they are met."""
    return list(dict.fromkeys(key for variant in variants for run in variant.runs.values() for key in run.metrics))


def is_local(run: FinishedRun) -> bool:
    """True for a run in a folder, False for one from W&B."""
    return not run.folder.startswith("wandb:")


def curve(variant: Variant, key: str) -> Curve | None:
    """A logged metric against samples seen, of the seeds that logged it at least twice.

    Of more than 60 rows, neighbouring ones are averaged; seeds are read off at the same places, between which they are
    interpolated.
    """
    tracks = [track for run in variant.runs.values() if is_local(run) and len(track := _track(run, key)) > 1]
    if not tracks:
        return None
    begin, end = max(track[0, 0] for track in tracks), min(track[-1, 0] for track in tracks)
    places = np.unique(np.concatenate([track[:, 0] for track in tracks]))
    places = places[(places >= begin) & (places <= end)]
    if len(places) < 2:
        return None
    if len(places) > POINTS:
        places = np.linspace(begin, end, POINTS)
    values = np.stack([np.interp(places, track[:, 0], track[:, 1]) for track in tracks])
    return Curve(places.tolist(), values.mean(0).tolist(), values.min(0).tolist(), values.max(0).tolist(), len(tracks))


def environments(runs: Sequence[FinishedRun]) -> dict[str, Counter[str]]:
    """Software and hardware of runs: the values of each, with the number of runs."""
    found: dict[str, Counter[str]] = {}
    for run in runs:
        for name, value in _environment(run):
            found.setdefault(name, Counter())[value] += 1
    return found


def _track(run: FinishedRun, key: str) -> np.ndarray:
    """Rows (samples seen, value) of a run's metrics.jsonl."""
    rows = [(row.get("samples_seen"), row.get(key)) for row in RunFolder(run.folder).rows()]
    good = [row for row in rows if all(finite(value) is not None for value in row)]
    track = np.array(good, dtype=float).reshape(-1, 2)
    if len(track) > POINTS:
        track = np.stack([part.mean(0) for part in np.array_split(track, POINTS)])
    return track[np.argsort(track[:, 0], kind="stable")]


def _environment(run: FinishedRun) -> Iterator[tuple[str, str]]:
    if not is_local(run):
        return
    try:
        session: dict[str, Any] = RunFolder(run.folder).environment["sessions"][-1]
        versions = dict(session.get("versions") or {})
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OSError):
        return  # there is none, or it is damaged
    commit = session.get("git_commit")
    if commit:
        yield "commit", str(commit)[:12] + (" with changes" if session.get("git_dirty") else "")
    for name in ("device", "num_devices", "precision", "num_threads", "cpu_capability", "processor", "cpu_count", "platform"):
        if session.get(name) is not None:
            yield name.replace("_", " "), str(session[name])
    for name, value in versions.items():
        yield str(name), str(value)
