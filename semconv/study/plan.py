"""The plan of a study: runs and hours of each stage, and the error rates of its looks."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from semconv.comparison.simulation import simulate
from semconv.comparison.tables import Sheet
from semconv.study.arms import Arm, main_arms
from semconv.study.file import BASELINE, Study, rungs
from semconv.study.stages import SHORT, Measured, wide_arms
from semconv.tracking.budget import batches_of

MARGIN = 1.0  # of equivalence in the simulation, in the same unit
EFFECTS = (1.0, 2.0, 3.0)  # of one candidate over all its others, in standard deviations of a paired difference


class Cost(NamedTuple):
    """The cost of a stage.

    Args:
        stage: its name.
        arms: its networks.
        runs: number of runs, at least and at most.
        seconds: time of all runs, one after another, at least and at most.
    """

    stage: str
    arms: Sequence[Arm]
    runs: tuple[int, int]
    seconds: tuple[float, float]


def costs(study: Study, measured: Measured) -> list[Cost]:
    """The cost of every stage, from the time that each network has taken for a few steps."""
    seconds = {arm: seconds_of(study, measured, arm) for arm in measured.runs}
    kept = []
    for setting in study.settings:  # the dearest candidates, where a screening keeps some
        dearest = sorted((Arm(setting, name) for name in study.family), key=lambda arm: -seconds[arm] * len(measured.arms(arm)))
        kept += dearest[: study.screen.keep] if study.screen else dearest
    found = [_search("tune", study, measured, main_arms(study))] if study.tune else []
    wide, fewest = _wide(study, measured, seconds)
    if study.screen:
        arms = [Arm(setting, name) for setting in study.settings for name in (BASELINE, *study.family)]
        seeds = len(study.screen.seeds)
        took = sum(seconds[arm] for arm in arms) * seeds
        found.append(Cost("screen", arms, (len(arms) * seeds, len(arms) * seeds), (took, took)))
    if study.tune and wide:
        least, most = (_search("tune, equal FLOPs", study, measured, arms) for arms in (fewest, wide))
        found.append(most._replace(runs=(least.runs[0], most.runs[1]), seconds=(least.seconds[0], most.seconds[1])))
    confirmed = [Arm(setting, BASELINE) for setting in study.settings] + [each for arm in kept for each in measured.arms(arm)]
    references = [Arm(setting, name) for setting in study.settings for name in study.references]
    took, once = (sum(seconds[arm._replace(control="")] for arm in arms) for arms in (confirmed, references))
    first, last = study.confirm.looks.seeds[0], study.confirm.looks.seeds[-1]
    runs, more = len(confirmed), len(references) * first
    found.append(
        Cost(
            "confirm",
            [*confirmed, *references],
            (runs * first + more, runs * last + more),
            (took * first + once * first, took * last + once * first),
        )
    )
    return found


def _wide(study: Study, measured: Measured, seconds: Mapping[Arm, float]) -> tuple[list[Arm], list[Arm]]:
    """Plain of equal compute of the candidates that go on: the most and the fewest networks that this may be."""
    most, fewest = [], []
    for setting in study.settings:
        own = [Arm(setting, name) for name in study.family]
        wide = sorted(wide_arms(measured, own), key=lambda arm: -seconds[arm._replace(control="")])
        keep = min(study.screen.keep, len(own)) if study.screen else len(own)
        most += wide[:keep]
        fewest += wide[len(own) - keep :]
    return most, fewest


def _search(stage: str, study: Study, measured: Measured, arms: Sequence[Arm]) -> Cost:
    assert study.tune is not None
    planned, seeds = rungs(study), len(study.tune.seeds)
    took = sum(seconds_of(study, measured, arm, evaluates=False) for arm in arms) * seeds
    number, share = sum(rung.values for rung in planned), sum(rung.values / rung.fraction for rung in planned)
    runs, more = len(arms) * seeds, study.tune.extensions
    return Cost(stage, arms, (runs * number, runs * (number + more)), (took * share, took * (share + more)))


def seconds_of(study: Study, measured: Measured, arm: Arm, evaluates: bool = True) -> float:
    """The time of a whole run: what a short one has taken, and its remaining batches at the rate of the short one.

    Args:
        study: the study.
        measured: the short runs.
        arm: a candidate, plain, a reference; or a control, which takes as long as its candidate.
        evaluates: include the evaluation at its end.
    """
    summary = measured.runs[arm._replace(control="")].summary
    epoch, protocol = summary["trainer/num_training_batches"], summary["protocol"]
    accumulated = {"accumulate_grad_batches": protocol["trainer"].get("accumulate_grad_batches")}
    whole, short = (
        batches_of({key.removeprefix("trainer."): amount for key, amount in options.items()} | accumulated, epoch) or epoch
        for options in (study.budget, SHORT)
    )
    per_batch = protocol["data"]["batch_size"] / summary["cost/train_images_per_second"]
    left_out = 0.0 if evaluates else summary.get("evaluation/seconds") or 0.0
    return float(summary["trainer/seconds"] - left_out + (whole - short) * per_batch)


def cost_sheet(found: list[Cost], jobs: int) -> Sheet:
    """The costs as a table."""
    runs = (sum(cost.runs[0] for cost in found), sum(cost.runs[1] for cost in found))
    seconds = (sum(cost.seconds[0] for cost in found), sum(cost.seconds[1] for cost in found))
    rows = []
    for cost in (*found, Cost("total", (), runs, seconds)):
        hours = (cost.seconds[0] / 3600 / jobs, cost.seconds[1] / 3600 / jobs)
        rows.append([cost.stage, str(len(cost.arms) or ""), _range(cost.runs, 0), _range(hours, 2)])
    return Sheet(f"Plan: runs, and hours with {jobs} at a time", ["stage", "networks", "runs", "hours"], rows)


def networks_sheet(found: list[Cost]) -> Sheet:
    """The networks of every stage: in each setting plain and the candidates, each with its controls, and references."""
    rows = []
    for cost in found:
        controls: dict[Arm, list[str]] = {}
        for arm in cost.arms:
            controls.setdefault(arm._replace(control=""), []).extend(filter(None, [arm.control]))
        names = []
        for arm, kinds in controls.items():
            alone = [arm.label + (f" and its {', '.join(kinds)}" if kinds else "")]
            names += alone if arm in cost.arms else [arm._replace(control=kind).label for kind in kinds]
        rows += [[cost.stage if number == 0 else "", name] for number, name in enumerate(names)]
    return Sheet("Networks of each stage", ["stage", "network, and controls that are trained beside it"], rows)


def rates_sheet(study: Study, measured: Measured) -> Sheet:
    """Simulated error rates, power and number of seeds of the confirmation."""
    looks = study.confirm.looks
    family = len(study.settings) * (min(study.screen.keep, len(study.family)) if study.screen else len(study.family))
    others = 1 + max(map(len, measured.needed.values()))
    # the worst case: controls are sure to lose, and nobody is found equivalent, so that none stops early
    nothing = simulate(looks, [0.0] * family, margin=0.0, num_others=1)
    margin = simulate(looks, [MARGIN, -MARGIN] * (family // 2) + [MARGIN] * (family % 2), MARGIN, others)
    rows = [
        [
            "error: no candidate differs from plain",
            f"{nothing.beneficial:.3f}",
            f"{nothing.harmful:.3f}",
            "",
            f"{nothing.seeds:.1f}",
        ],
        ["error: each differs by the margin", "", "", f"{margin.equivalent:.3f}", f"{margin.seeds:.1f}"],
    ]
    for effect in EFFECTS:
        rates = simulate(looks, [effect] + [0.0] * (family - 1), MARGIN, others)
        rows.append([f"power: one is better by d_z = {effect:g}", f"{rates.beneficial:.3f}", "", "", f"{rates.seeds:.1f}"])
    title = f"Simulated confirmation: family of {family}, looks at {', '.join(map(str, looks.seeds))} seeds ({looks.spending})"
    return Sheet(title, ["case", "P(a beneficial)", "P(a harmful)", "P(an equivalent)", "seeds per candidate"], rows)


def _range(values: tuple[float, float], digits: int) -> str:
    low, high = (f"{value:,.{digits}f}" for value in values)
    return low if low == high else f"{low} to {high}"
