"""The plan of a study: runs and hours of each stage, and the error rates of its looks."""

from typing import NamedTuple

from semconv.comparison.simulation import simulate
from semconv.comparison.tables import Sheet
from semconv.study.arms import PLAIN, Arm
from semconv.study.file import Study, Tune
from semconv.study.stages import SHORT, Measured, rungs, tuned_arms

MARGIN = 1.0  # of equivalence in the simulation, in the same unit
EFFECTS = (0.0, 1.0, 2.0, 3.0)  # of one candidate over all its others, in standard deviations of a paired difference


class Cost(NamedTuple):
    """The cost of a stage.

    Args:
        stage: its name.
        arms: number of networks.
        runs: number of runs, at least and at most.
        seconds: time of all runs, one after another, at least and at most.
    """

    stage: str
    arms: int
    runs: tuple[int, int]
    seconds: tuple[float, float]


def costs(study: Study, measured: Measured) -> list[Cost]:
    """The cost of every stage, from the time that each network has taken for a few steps."""
    seconds = {arm: seconds_of(study, measured, arm) for arm in measured.runs}
    found = []
    if study.tune:
        arms = tuned_arms(study, measured)
        whole = sum(seconds[arm._replace(control="")] for arm in arms) * len(study.tune.seeds)
        share, number = _of_search(study.tune, rungs(study.tune, True) if study.tune.halving else [1])
        most = study.tune.extensions
        runs = len(arms) * len(study.tune.seeds)
        found.append(Cost("tune", len(arms), (runs * number, runs * (number + most)), (whole * share, whole * (share + most))))
    names = list(study.family)
    if study.screen:
        arms = [Arm(setting, name) for setting in study.settings for name in (PLAIN, *names)]
        runs = len(arms) * len(study.screen.seeds)
        took = sum(seconds[arm] for arm in arms) * len(study.screen.seeds)
        found.append(Cost("screen", len(arms), (runs, runs), (took, took)))
    # the dearest candidates, where a screening keeps some
    confirmed: list[Arm] = []
    for setting in study.settings:
        arms = sorted((Arm(setting, name) for name in names), key=lambda arm: -seconds[arm] * len(measured.arms(arm)))
        kept = arms[: study.screen.keep] if study.screen else arms
        confirmed += [Arm(setting, PLAIN), *(each for arm in kept for each in measured.arms(arm))]
    first, last = study.confirm.looks.seeds[0], study.confirm.looks.seeds[-1]
    references = [Arm(setting, name) for setting in study.settings for name in study.references]
    at_once = sum(seconds[arm._replace(control="")] for arm in confirmed)
    once = sum(seconds[arm] for arm in references) * first
    runs_of = tuple(len(confirmed) * number + len(references) * first for number in (first, last))
    found.append(
        Cost("confirm", len(confirmed) + len(references), (runs_of[0], runs_of[1]), (at_once * first + once, at_once * last + once))
    )
    return found


def seconds_of(study: Study, measured: Measured, arm: Arm) -> float:
    """The time of a whole run: what the short one has taken, and its remaining steps at the rate of the short one."""
    summary = measured.runs[arm].summary
    short = SHORT["trainer.max_steps"]
    steps = study.options.get("trainer.max_steps", -1)
    if not isinstance(steps, int) or steps < 0:
        steps = int(study.options.get("trainer.max_epochs", 1)) * summary["trainer/num_training_batches"]
    per_step = summary["protocol"]["data"]["batch_size"] / summary["cost/train_images_per_second"]
    return float(summary["trainer/seconds"] + (steps - int(str(short))) * per_step)


def cost_sheet(found: list[Cost], jobs: int) -> Sheet:
    """The costs as a table."""
    runs = (sum(cost.runs[0] for cost in found), sum(cost.runs[1] for cost in found))
    seconds = (sum(cost.seconds[0] for cost in found), sum(cost.seconds[1] for cost in found))
    rows = []
    for cost in (*found, Cost("total", 0, runs, seconds)):
        hours = (cost.seconds[0] / 3600 / jobs, cost.seconds[1] / 3600 / jobs)
        rows.append([cost.stage, str(cost.arms or ""), _range(cost.runs, 0), _range(hours, 2)])
    return Sheet(f"Plan: runs, and hours with {jobs} at a time", ["stage", "networks", "runs", "hours"], rows)


def rates_sheet(study: Study, measured: Measured) -> Sheet:
    """Simulated error rates, power and number of seeds of the confirmation."""
    family = len(study.settings) * (min(study.screen.keep, len(study.family)) if study.screen else len(study.family))
    others = 1 + max(map(len, measured.needed.values()))
    rows = []
    for effect in EFFECTS:
        rates = simulate(study.confirm.looks, [effect] + [0.0] * (family - 1), MARGIN, others)
        rows.append(
            [f"{effect:g}", f"{rates.beneficial:.3f}", f"{rates.harmful:.3f}", f"{rates.equivalent:.3f}", f"{rates.seeds:.1f}"]
        )
    looks = study.confirm.looks
    title = f"Simulated confirmation: family of {family}, looks at {', '.join(map(str, looks.seeds))} seeds ({looks.spending})"
    head = "effect d_z of one candidate, 0 of the rest"
    return Sheet(title, [head, "P(a beneficial)", "P(a harmful)", "P(an equivalent)", "seeds per candidate"], rows)


def _of_search(tune: Tune, divisors: list[int]) -> tuple[float, int]:
    """The time of a search in whole runs, and its number of runs, for one arm and seed."""
    share, number, values = 0.0, 0, len(tune.values)
    for divisor in divisors:
        share, number = share + values / divisor, number + values
        values = max(2, -(-values // (tune.halving or 1)))
    return share, number


def _range(values: tuple[float, float], digits: int) -> str:
    low, high = (f"{value:,.{digits}f}" for value in values)
    return low if low == high else f"{low} to {high}"
