"""What the trained networks of studies use and show, as tables."""

import statistics
from collections.abc import Mapping, Sequence

from results.pages import markdown, short
from results.tables import Table, table, unmeasured
from semconv.comparison.run import FinishedRun
from semconv.study.arms import Arm, by_point, main_arms


def features(name: str) -> str:
    """How well the features of the networks of a study classify."""
    return _probes(name, {"linear top-1": "probe/linear_top1", "k-NN top-1": "probe/knn_top1"})


def distance(name: str) -> str:
    """How well the networks of a study reconstruct masked cells, by their distance to the nearest visible cell."""
    columns = {"1 cell": "test/masked_mse/distance_1", "2": "test/masked_mse/distance_2", "3 or more": "test/masked_mse/distance_3"}
    return _probes(name, columns, extra_controls=True)


def importance(name: str) -> str:
    """How much worse the networks of a study reconstruct when an indicator is taken away from the trained network."""
    found, kinds = table(name), ("zeroed", "shuffled", "another_mask")
    rows = [["network", "indicator", "zeroed", "shuffled", "another mask", "n"]]
    for arm, runs in _latest(found):
        keys = {key for run in runs for key in run.metrics if key.startswith("importance/")}
        for indicator in sorted({key.split("/")[1] for key in keys}):
            cells = [_mean_of(runs, f"importance/{indicator}/{kind}", spread=True) for kind in kinds]
            rows.append([f"`{arm.label}`", f"`{indicator}`", *cells, str(len(runs))])
    return markdown(rows) if rows[1:] else unmeasured(name)


def mask_auc(name: str) -> str:
    """How well a linear probe of each stage tells masked sites from visible ones."""
    return _stages(name, "probe/mask_auc")


def position_r2(name: str) -> str:
    """How well a linear probe of each stage tells where a site lies."""
    return _stages(name, "probe/position_r2")


def layers(name: str) -> str:
    """What the mechanisms of a study have learned, layer by layer: gates, and shares of attention."""
    kinds = {
        "gate_visible": "gate at visible sites",
        "gate_masked": "gate at masked sites",
        "gate_mask_r2": "share of the gate's variance that the mask explains",
        "share": "share of attention",
    }
    found = _latest(table(name), extra_controls=True)
    keys = {key for _, runs in found for run in runs for key in run.metrics if key.startswith("mechanism/")}
    places = sorted({key.split("/")[2] for key in keys}, key=lambda place: (place != "stem", place))
    rows = [["network", "value", *places, "n"]]
    for arm, runs in found:
        for kind, text in kinds.items():
            cells = [_mean_of(runs, f"mechanism/{kind}/{place}") for place in places]
            rows += [[f"`{arm.label}`", text, *cells, str(len(runs))]] if any(cells) else []
    return markdown(rows) if rows[1:] else unmeasured(name)


def _latest(found: Table | None, extra_controls: bool = False) -> list[tuple[Arm, list[FinishedRun]]]:
    """The runs of each network, controls aside or but for the extra ones, at its chosen value: of the confirmation, or else of the
    screening."""
    if found is None:
        return []
    latest: dict[Arm, list[FinishedRun]] = {}
    for stage in ("screen", "confirm"):
        for point, by_seed in by_point(found.study, found.runs.get(stage, [])).items():
            latest[point.arm] = [run for run in by_seed.values() if not run.has_diverged]
    arms = []
    for arm in main_arms(found.study):
        kinds = found.study.extra_controls.get(arm.variant, ()) if extra_controls else ()
        arms += [arm, *(arm._replace(control=kind) for kind in kinds)]
    return [(arm, latest[arm]) for arm in arms if latest.get(arm)]


def _stages(name: str, metric: str) -> str:
    """A probe of each stage of the trained networks, and of the same networks before training."""
    keys = {key for _, runs in _latest(table(name)) for run in runs for key in run.metrics if key.startswith(f"{metric}/stage_")}
    return _probes(name, {f"stage {key.rpartition('_')[2]}": key for key in sorted(keys)})


def _probes(name: str, columns: Mapping[str, str], extra_controls: bool = False) -> str:
    """Metrics by their titles, of the trained networks and, in brackets, of the same networks before training."""
    rows = []
    for arm, runs in _latest(table(name), extra_controls):
        pairs = [(_mean_of(runs, key), _mean_of(runs, f"untrained/{key}")) for key in columns.values()]
        cells = [f"{after} ({before})" if before else after for after, before in pairs]
        rows += [[f"`{arm.label}`", *cells, str(len(runs))]] if any(cells) else []
    return markdown([["network", *columns, "n"], *rows]) if rows else unmeasured(name)


def _mean_of(runs: Sequence[FinishedRun], key: str, spread: bool = False) -> str:
    """The mean of a metric over runs, with their deviation if asked for; empty where one of them has none."""
    values = [run.metrics[key] for run in runs if key in run.metrics]
    if len(values) < len(runs):
        return ""
    deviation = f" ± {short(statistics.stdev(values), digits=3)}" if spread and len(values) > 1 else ""
    return f"{short(statistics.fmean(values), '+' if spread else '', digits=3)}{deviation}"
