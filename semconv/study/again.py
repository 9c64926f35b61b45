"""A run of a study's table, found to be run again."""

from pathlib import Path

from semconv.comparison.recorded import load
from semconv.comparison.run import FinishedRun
from semconv.configuration import nearest
from semconv.study.arms import Point, by_point
from semconv.study.file import Study

TIMED = ("cost/", "trainer/seconds", "train/images_per_second", "evaluation/seconds")  # what no run gives twice


def find_row(study: Study, table: Path, name: str, seed: int) -> tuple[Point, FinishedRun]:
    """The row of a network and a seed, as a point of the study and as a run.

    Args:
        study: the study.
        table: its table of runs.
        name: name of the network, with its control and behind its setting where it has some: `cnn_channels-zero`,
            `camouflage/cnn_channels`.
        seed: a seed of the screening or of the confirmation.

    Raises:
        ValueError: there is no such row.
    """
    if study.tune and seed in study.tune.seeds:
        raise ValueError(f"seed {seed} is one of the search, at several values each: give one of the screening or the confirmation")
    stage = "screen" if study.screen and seed in study.screen.seeds else "confirm"
    found = {_name(point): (point, runs) for point, runs in by_point(study, load(table, stage).runs).items()}
    if name not in found:
        similar = nearest(name, list(found))
        raise ValueError(f"{table} has no {name}: " + (f"did you mean {similar}?" if similar else f"it has {', '.join(found)}"))
    point, runs = found[name]
    if seed not in runs:
        raise ValueError(f"{table} has no seed {seed} of {name}: give one of {', '.join(map(str, sorted(runs)))}")
    return point, runs[seed]


def differing(row: FinishedRun, again: FinishedRun) -> tuple[int, dict[str, tuple[float | None, float | None]]]:
    """The number of metrics that a run is compared by with its row, times and costs aside, and those in which they differ: the
    row's value and the run's."""
    pairs = {key: (value, again.metrics.get(key)) for key, value in row.metrics.items() if not key.startswith(TIMED)}
    return len(pairs), {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _name(point: Point) -> str:
    return "/".join(filter(None, (point.arm.setting, point.arm.name)))
