"""The stages of a study: measure, tune, screen, confirm. Each follows from the runs before it alone, so a killed study resumes."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from semconv import shipped
from semconv.comparison.declared import WIDE, Declared
from semconv.comparison.grouping import DECLARED, group
from semconv.comparison.result import SAME_COST, Comparison, compare, is_opponent, operations_of
from semconv.comparison.run import FinishedRun
from semconv.comparison.statistics import Paired, paired
from semconv.comparison.verdicts import in_units
from semconv.configuration import bare
from semconv.metrics import Metric, find
from semconv.study.arms import Arm, Point, by_point, candidates, main_arms, point_of
from semconv.study.continuation import check_rows
from semconv.study.file import BASELINE, Study, rungs
from semconv.study.rounds import MEASURE, Rounds, Runs

SHORT = {"trainer.max_epochs": -1, "trainer.max_steps": 12}
SHORTEST = {**SHORT, "trainer.max_steps": 1, "trainer.limit_val_batches": 1, "trainer.limit_test_batches": 1, "evaluation": "none"}
Curve = Mapping[float, Mapping[int, float]]  # the optimised metric by value and seed; where a run has diverged, the worst there is


class Measured(NamedTuple):
    """The networks of a study after a few steps of each.

    Args:
        runs: one short run of each arm.
        needed: controls that each candidate has to beat, with plain of equal compute where it is really wider.
        controls: all controls that are trained beside each candidate: these, and the extra ones of the study.
    """

    runs: Mapping[Arm, FinishedRun]
    needed: Mapping[Arm, Sequence[str]]
    controls: Mapping[Arm, Sequence[str]]

    def arms(self, candidate: Arm) -> list[Arm]:
        """A candidate and its controls."""
        return [candidate, *(candidate._replace(control=name) for name in self.controls[candidate])]


class Tuned(NamedTuple):
    """The search for the value of an arm.

    Args:
        value: the chosen one.
        curve: what it was chosen by.
        at_edge: whether the best value is still the least or the largest that was tried.
    """

    value: float
    curve: Curve
    at_edge: bool


class Screened(NamedTuple):
    """A candidate in the screening."""

    against_plain: Paired
    kept: bool


def measure(rounds: Rounds) -> Measured:
    """Train every network for a few steps, which gives operations, time per step and declared controls."""
    study = rounds.study
    runs = _briefly(rounds, MEASURE, main_arms(study), SHORT)
    _check(study, list(runs.values()))
    needed, controls = {}, {}
    for arm in candidates(study):
        metrics = [runs[each].metrics for each in (arm, Arm(arm.setting, BASELINE))]
        operations = operations_of(*(each.get for each in metrics))
        cost, plain = (each[operations] for each in metrics)
        declared = runs[arm].summary.get("controls", DECLARED)
        extra = study.extra_controls.get(arm.variant, ())
        wide = [WIDE] if cost > SAME_COST * plain else []
        needed[arm] = list(dict.fromkeys([*declared, *wide, *filter(is_opponent, extra)]))
        controls[arm] = list(dict.fromkeys([*needed[arm], *extra]))
        for name in controls[arm]:
            if name not in study.controls or not shipped.look(study.controls[name], "experiments"):
                raise ValueError(f"{arm.variant} has to beat {name}, of which there is no file: name one under controls")
    check_rows(study, rounds.recorded, runs, controls)
    return Measured(runs, needed, controls)


def try_controls(rounds: Rounds, measured: Measured) -> None:
    """Train every control for one step: one that cannot be trained is found before anything is trained for long."""
    if controls := [each for arm in measured.controls for each in measured.arms(arm)[1:]]:
        _briefly(rounds, f"{MEASURE}-controls", controls, SHORTEST)


def _briefly(rounds: Rounds, name: str, arms: Sequence[Arm], options: Mapping[str, Any]) -> dict[Arm, FinishedRun]:
    """A run of each arm, of some steps at the values of the protocol, on a seed of its own."""
    study = rounds.study
    seed = max((*study.confirm.seeds, *(study.tune.seeds if study.tune else ()), *(study.screen.seeds if study.screen else ()))) + 1
    runs = {point.arm: found[seed] for point, found in rounds.run(name, [Point(arm) for arm in arms], [seed], options).items()}
    for run in runs.values():
        if run.has_diverged:
            raise ValueError(
                f"{run.folder} has diverged within a few steps, at the values of the protocol: {run.summary.get('divergence')}"
            )
    return runs


class Decided(NamedTuple):
    """What a study comes to: chosen values, the screening, the comparison of the confirmation; None where nothing was kept."""

    tuned: Mapping[Arm, Tuned]
    screened: Mapping[Arm, Screened]
    comparison: Comparison | None


def decide(rounds: Rounds, measured: Measured) -> Decided:
    """Tune, screen, tune plain of equal compute beside the candidates that go on, and confirm these."""
    study = rounds.study
    tuned = tune(rounds, main_arms(study))
    screened = screen(rounds, tuned)
    kept = [arm for arm in candidates(study) if not study.screen or (arm in screened and screened[arm].kept)]
    if not kept:
        return Decided(tuned, screened, None)
    tuned |= tune(rounds, wide_arms(measured, kept), "tune-wide")
    return Decided(tuned, screened, confirm(rounds, measured, tuned, kept))


def _check(study: Study, runs: Sequence[FinishedRun]) -> None:
    """Refuse, before anything else is trained, what the runs of a study show to be impossible."""
    if study.tune and any(bare(study.tune.key) not in run.protocol for run in runs):
        raise ValueError(f"tune.key {study.tune.key} is no key of the protocol of runs: give one such as model.base_lr")
    try:
        groups = group(runs, BASELINE, study.varied, [])
    except ValueError as error:
        text = str(error).partition(": give fewer")[0].partition("differ in ")[2]
        raise ValueError(
            f"networks of a study share their protocol, and these differ in {text}: name such keys in settings"
        ) from error
    kinds = {variant.experiment: variant.kind for variant in groups.variants}
    if wrong := [name for name in study.family if kinds.get(name) != "candidate"]:
        raise ValueError(f"{wrong[0]} is no conditioned network of plain's kind, and gets no verdict: put it among the references")
    for key in study.endpoints:
        if all(run.summary.get(key) is None for run in runs):
            needs = _metric(key).needs
            raise ValueError(f"endpoints: no run has {key}" + (f"; it needs {needs}, under options" if needs else ""))


def tune(rounds: Rounds, arms: Sequence[Arm], name: str = "tune") -> dict[Arm, Tuned]:
    """Search the value of the tuned key, in the same way for all arms; {} where the study tunes nothing.

    Args:
        rounds: the study's rounds.
        arms: the networks that have a search of their own.
        name: begins the names of its rounds.
    """
    study = rounds.study
    if study.tune is None or not arms:
        return {}
    metric = _metric(study.tune.metric)
    values: dict[Arm, Sequence[float]] = dict.fromkeys(arms, study.tune.values)
    curves: dict[Arm, Curve] = {}
    for number, rung in enumerate(rungs(study), 1):
        values = {arm: sorted((_ranked(curves[arm], metric) if curves else given)[: rung.values]) for arm, given in values.items()}
        curves = _search(rounds, f"{name}-{number}", values, rung.fraction)
    tried = {arm: list(study.tune.values) for arm in curves}  # at any budget
    for number in range(1, study.tune.extensions + 1):
        beyond = {
            arm: [value]
            for arm, curve in curves.items()
            if (value := _beyond(curve, tried[arm], metric)) is not None
            and rounds.accepts(Point(Arm(arm.setting, BASELINE), value))
        }
        if not beyond:
            break
        for arm, more in _search(rounds, f"{name}-beyond-{number}", beyond, 1).items():
            curves[arm], tried[arm] = {**curves[arm], **more}, [*tried[arm], *more]
    if diverged := [arm for arm, curve in curves.items() if not math.isfinite(_mean(curve, _ranked(curve, metric)[0]))]:
        raise ValueError(f"{diverged[0].label} has diverged at every value of {bare(study.tune.key)}: give smaller values")
    return {arm: _chosen(curve, tried[arm], metric) for arm, curve in curves.items()}


def searched(study: Study, runs: Iterable[FinishedRun]) -> dict[Arm, Tuned]:
    """What the runs of a search choose, which need not be all of it, at one budget."""
    assert study.tune is not None
    metric = _metric(study.tune.metric)
    curves: dict[Arm, dict[float, dict[int, float]]] = {}
    for (arm, value, _), by_seed in by_point(study, runs).items():
        assert value is not None
        curves.setdefault(arm, {})[value] = _values(by_seed, metric)
    return {arm: _chosen(curve, list(curve), metric) for arm, curve in curves.items()}


def wide_arms(measured: Measured, arms: Iterable[Arm]) -> list[Arm]:
    """Plain of equal compute of those candidates beside which it is trained."""
    return [arm._replace(control=WIDE) for arm in arms if WIDE in measured.controls[arm]]


def screen(rounds: Rounds, tuned: Mapping[Arm, Tuned]) -> dict[Arm, Screened]:
    """Compare candidates with plain on few seeds; else {}."""
    study = rounds.study
    if study.screen is None:
        return {}
    arms = [Arm(setting, name) for setting in study.settings for name in (BASELINE, *study.family)]
    found = rounds.run("screen", [point(arm, tuned) for arm in arms], study.screen.seeds)
    for runs in found.values():
        _require(screened_by(study), "candidates are chosen", runs)
    return screened(study, found)


def screened_by(study: Study) -> str:
    """The metric of the screening: the first endpoint, of validation images where they have it, so that no test image decides which
    candidates are confirmed."""
    first = study.endpoints[0]
    of_validation = f"val/{first.removeprefix('test/')}"
    return of_validation if find(of_validation) else first


def screened(study: Study, found: Mapping[Point, Runs]) -> dict[Arm, Screened]:
    """Keep the candidates of the largest mean gains in each setting.

    A candidate whose interval lies below zero, or that has no finite value, is not kept.
    """
    assert study.screen is not None
    endpoint = _metric(screened_by(study))
    values = {point.arm: _finite(runs, endpoint.key) for point, runs in found.items()}
    judged: dict[Arm, Screened] = {}
    for setting in study.settings:
        plain, gains = values.get(Arm(setting, BASELINE), {}), {}
        for name in study.family:
            ours = values.get(Arm(setting, name), {})
            differences = [endpoint.sign * (ours[seed] - plain[seed]) for seed in sorted(ours.keys() & plain.keys())]
            if differences:
                _, resolution = in_units(endpoint, list(plain.values()))
                gains[Arm(setting, name)] = paired(differences, resolution)
        able = [arm for arm, gain in gains.items() if gain.high is None or gain.high > 0]
        best = sorted(able, key=lambda arm: -gains[arm].difference)[: study.screen.keep]
        judged |= {arm: Screened(gain, arm in best) for arm, gain in gains.items()}
    return judged


def confirm(rounds: Rounds, measured: Measured, tuned: Mapping[Arm, Tuned], arms: Sequence[Arm]) -> Comparison:
    """Compare candidates with everything that they have to beat, at each look those whose verdict is not settled yet.

    Args:
        rounds: the study's rounds.
        measured: what each has to beat.
        tuned: values.
        arms: the candidates.
    """
    study, unsettled, before, runs = rounds.study, list(arms), 0, []
    family = [name for name in study.family if any(arm.variant == name for arm in arms)]
    comparison = None
    for look in study.confirm.looks.seeds:
        settings = [name for name in study.settings if not before or any(arm.setting == name for arm in unsettled)]
        if not settings:
            break
        trained = [Arm(setting, BASELINE) for setting in settings]
        trained += [each for arm in unsettled for each in measured.arms(arm)]
        trained += [] if before else [Arm(setting, name) for setting in settings for name in study.references]
        found = rounds.run(
            f"confirm-{look}", [point(arm, tuned) for arm in trained], study.confirm.seeds[before:look], family=family
        )
        runs += [run for by_seed in found.values() for run in by_seed.values()]
        before, comparison = look, compared(study, runs, family)
        settled = settled_arms(study, comparison)
        unsettled = [arm for arm in unsettled if arm not in settled]
    assert comparison is not None
    return comparison


def compared(study: Study, runs: Sequence[FinishedRun], family: Sequence[str]) -> Comparison:
    """The comparison of a confirmation.

    Args:
        study: the study.
        runs: its runs so far.
        family: the candidates that it confirms, of which some may have no runs yet.
    """
    tuned = [bare(study.tune.key)] if study.tune else []
    groups = group(runs, BASELINE, study.varied, [], tuned)
    declared = Declared(tuple(study.varied), tuple(family), tuple(tuned), study.confirm.looks, study.negligible)
    return compare(groups, [_metric(key) for key in study.endpoints], BASELINE, declared)


def settled_arms(study: Study, comparison: Comparison) -> set[Arm]:
    """The candidates whose verdicts on all endpoints are settled."""
    settled: dict[Arm, bool] = {}
    for judged in comparison.judged:
        found = point_of(study, judged.variant.first)
        if found is not None and judged.verdict is not None:
            settled[found.arm] = settled.get(found.arm, True) and judged.verdict.word != "inconclusive"
    return {arm for arm, all_are in settled.items() if all_are}


def point(arm: Arm, tuned: Mapping[Arm, Tuned]) -> Point:
    """An arm at its tuned value."""
    return Point(arm, tuned[arm.tuned_as].value if tuned else None)


def _search(rounds: Rounds, name: str, values: Mapping[Arm, Sequence[float]], fraction: int) -> dict[Arm, Curve]:
    tune = rounds.study.tune
    assert tune is not None
    metric = _metric(tune.metric)
    points = [Point(arm, value, fraction) for arm, given in values.items() for value in given]
    found = rounds.run(name, points, tune.seeds, {"evaluation": "none"})
    curves: dict[Arm, dict[float, dict[int, float]]] = {arm: {} for arm in values}
    for (arm, value, _), runs in found.items():
        assert value is not None
        _require(tune.metric, "values are chosen", runs)
        curves[arm][value] = _values(runs, metric)
    return dict(curves)


def _require(key: str, what: str, runs: Runs) -> None:
    if lacking := [run.folder for run in runs.values() if key not in run.summary and not run.has_diverged]:
        raise ValueError(f"{lacking[0]} has no {key}, by which {what}: its training must end with a validation")


def _values(runs: Runs, metric: Metric) -> dict[int, float]:
    return {seed: run.metrics.get(metric.key, -metric.sign * math.inf) for seed, run in sorted(runs.items())}


def _chosen(curve: Curve, tried: Sequence[float], metric: Metric) -> Tuned:
    return Tuned(_ranked(curve, metric)[0], curve, _is_at_edge(curve, tried, metric))


def _mean(curve: Curve, value: float) -> float:
    return statistics.fmean(curve[value].values())


def _ranked(curve: Curve, metric: Metric) -> list[float]:
    """Values from the best mean to the worst; of two that are as good, the smaller first."""
    return sorted(curve, key=lambda value: (-metric.sign * _mean(curve, value), value))


def _is_at_edge(curve: Curve, tried: Sequence[float], metric: Metric) -> bool:
    """True if the best value is the least or the largest of all that were tried; False where all have diverged."""
    best = _ranked(curve, metric)[0]
    return best in (min(tried), max(tried)) and math.isfinite(_mean(curve, best))


def _beyond(curve: Curve, tried: Sequence[float], metric: Metric) -> float | None:
    """The value beyond the edge of all that were tried, where the best one is; None where it is inside, or nothing is beyond.

    Whole numbers are extended by whole numbers, and others by three figures, which a table shows whole.
    """
    if not _is_at_edge(curve, tried, metric):
        return None
    values = sorted(tried)
    edge, inner = values[:2] if _ranked(curve, metric)[0] == values[0] else values[:-3:-1]
    if all(isinstance(value, int) for value in values):
        return edge * edge // inner or None
    return float(f"{edge * edge / inner:.3g}")


def _finite(runs: Runs, key: str) -> dict[int, float]:
    return {seed: run.metrics[key] for seed, run in runs.items() if key in run.metrics}


def _metric(key: str) -> Metric:
    metric = find(key)
    assert metric is not None, key
    return metric
