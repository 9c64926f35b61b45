"""What the trained networks of studies use and show, as tables."""

import itertools
import statistics
from collections.abc import Mapping, Sequence

from results.pages import markdown, short
from results.tables import table, unmeasured
from semconv.comparison.result import classical
from semconv.comparison.run import FinishedRun
from semconv.study.arms import Arm, by_point, main_arms


def features(*names: str) -> str:
    """How well the features of the networks of studies classify, and thumbnails beside them."""
    columns = {"linear top-1": "probe/linear_top1", "k-NN top-1": "probe/knn_top1"}
    rows = _probes(names, columns, extra_controls=True)
    baselines: dict[str, list[str]] = {}
    for key in columns.values():
        for label, value in _classical(names[0], key).items():
            baselines.setdefault(label, []).append(short(value, digits=3))
    rows += [[label, *values, ""] for label, values in baselines.items() if rows and len(values) == len(columns)]
    return _table(["network", *columns, "n"], rows, names)


def distance(*names: str) -> str:
    """How well the networks of studies reconstruct masked cells, by their distance to the nearest visible cell."""
    columns = {"1 cell": "test/masked_mse/distance_1", "2": "test/masked_mse/distance_2", "3 or more": "test/masked_mse/distance_3"}
    return _table(["network", *columns, "n"], _probes(names, columns, extra_controls=True), names)


def importance(*names: str) -> str:
    """How much worse the networks of studies reconstruct when an indicator is taken away from the trained network."""
    kinds = ("zeroed", "shuffled", "another_mask")
    rows = []
    for arm, runs in _latest(names):
        keys = {key for run in runs for key in run.metrics if key.startswith("importance/")}
        for indicator in sorted({key.split("/")[1] for key in keys}):
            cells = [_mean_of(runs, f"importance/{indicator}/{kind}", spread=True) for kind in kinds]
            rows.append([f"`{arm.label}`", f"`{indicator}`", *cells, str(len(runs))])
    return _table(["network", "indicator", "zeroed", "shuffled", "another mask", "n"], rows, names)


def mask_auc(*names: str) -> str:
    """How well a linear probe of each stage tells masked sites from visible ones."""
    return _stages(names, "probe/mask_auc")


def position_r2(*names: str) -> str:
    """How well a linear probe of each stage tells where a site lies."""
    return _stages(names, "probe/position_r2")


def layers(*names: str) -> str:
    """What mechanisms, and those of controls with zeros, have learned, layer by layer: gates, and shares of attention."""
    kinds = {
        "gate_visible": "gate at visible sites",
        "gate_masked": "gate at masked sites",
        "gate_mask_r2": "share of the gate's variance that the mask explains",
        "share": "share of attention",
    }
    found = _latest(names, extra_controls=True, zeros=True)
    keys = {key for _, runs in found for run in runs for key in run.metrics if key.startswith("mechanism/")}
    places = sorted({key.split("/")[2] for key in keys}, key=lambda place: (place != "stem", place))
    rows = []
    for arm, runs in found:
        for kind, text in kinds.items():
            cells = [_mean_of(runs, f"mechanism/{kind}/{place}") for place in places]
            is_given = kind == "share" and arm.control == "zero"  # by the schedule, as its variant's
            rows += [[f"`{arm.label}`", text, *cells, str(len(runs))]] if any(cells) and not is_given else []
    return _table(["network", "value", *places, "n"], rows, names)


def _latest(names: Sequence[str], extra_controls: bool = False, zeros: bool = False) -> list[tuple[Arm, list[FinishedRun]]]:
    """The runs of each network at its chosen value, in the order of the studies: of the first confirmation that has it, or else
    of the first screening; with the extra controls, and those with zeros, if asked for."""
    arms: list[Arm] = []
    latest: dict[Arm, list[FinishedRun]] = {}
    tables = list(filter(None, map(table, names)))
    for stage, found in itertools.product(("confirm", "screen"), tables):
        for point, by_seed in by_point(found.study, found.runs.get(stage, [])).items():
            latest.setdefault(point.arm, [run for run in by_seed.values() if not run.has_diverged])
    for found in tables:
        for arm in main_arms(found.study):
            kinds = (*["zero"] * zeros, *(found.study.extra_controls.get(arm.variant, ()) if extra_controls else ()))
            arms += [arm, *(arm._replace(control=kind) for kind in kinds)]
    return [(arm, latest[arm]) for arm in dict.fromkeys(arms) if latest.get(arm)]


def _classical(name: str, key: str) -> dict[str, float]:
    found = table(name)
    return classical(key, found.comparison.groups.variants) if found and found.comparison else {}


def _stages(names: Sequence[str], metric: str) -> str:
    """A probe of each stage of the trained networks, and of the same networks before training."""
    found = _latest(names, extra_controls=True)
    keys = {key for _, runs in found for run in runs for key in run.metrics if key.startswith(f"{metric}/stage_")}
    columns = {f"stage {key.rpartition('_')[2]}": key for key in sorted(keys)}
    return _table(["network", *columns, "n"], _probes(names, columns, extra_controls=True), names)


def _probes(names: Sequence[str], columns: Mapping[str, str], extra_controls: bool = False) -> list[list[str]]:
    """Metrics by their titles, of the trained networks and, in brackets, of the same networks before training."""
    rows = []
    for arm, runs in _latest(names, extra_controls):
        pairs = [(_mean_of(runs, key), _mean_of(runs, f"untrained/{key}")) for key in columns.values()]
        cells = [f"{after} ({before})" if before else after for after, before in pairs]
        rows += [[f"`{arm.label}`", *cells, str(len(runs))]] if any(cells) else []
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], names: Sequence[str]) -> str:
    return markdown([head, *rows]) if rows else unmeasured(names[0])


def _mean_of(runs: Sequence[FinishedRun], key: str, spread: bool = False) -> str:
    """The mean of a metric over runs, with their deviation if asked for; empty where one of them has none."""
    values = [run.metrics[key] for run in runs if key in run.metrics]
    if len(values) < len(runs):
        return ""
    deviation = f" ± {short(statistics.stdev(values), digits=3)}" if spread and len(values) > 1 else ""
    return f"{short(statistics.fmean(values), '+' if spread else '', digits=3)}{deviation}"
