"""The runs of a staged study and of a fixed design with the same errors and the same power, simulated.

    python -m benchmarks.study sweeps/studies/cifar10_zero.yaml

- Fixed: every candidate and all its controls, with the same number of seeds, judged once.
- Staged: a screening of few seeds keeps some candidates; these and their controls are confirmed, with looks.

One candidate is better than all its others by d_z standard deviations of a paired difference; the rest differ from nothing. The
fixed design gets the fewest seeds that give it the power of the staged one. The search of learning rates is counted in runs of the
whole budget, the same for both, without plain of equal compute. References are left out.
"""

import argparse
import json
from bisect import bisect_left
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semconv.comparison.declared import FEWEST_SEEDS, Looks
from semconv.comparison.simulation import simulate
from semconv.study.file import Study, read_study, rungs

ROOT = Path(__file__).parent.parent
CONTROLS = 3  # of a candidate, plain of equal compute among them
EFFECTS = (2.0, 3.0)
MOST = 60  # seeds of the fixed design
SCREENINGS, DRAWS = 20_000, 4000  # simulated screenings, and families of a confirmation


class Outcome(NamedTuple):
    """Both designs at one effect."""

    effect: float
    looks: tuple[int, ...]
    power: float  # of the staged study
    error: float  # that some candidate is called beneficial where none is, in the staged study
    seeds: int  # of the fixed design
    fixed_power: float
    fixed_error: float
    runs: float  # of the staged study, expected
    fixed_runs: float


def share_kept(num_candidates: int, num_seeds: int, keep: int, effect: float) -> float:
    """The chance that a screening keeps the candidate that is better."""
    generator = np.random.default_rng(0)
    plain, *ours = generator.normal(0, np.sqrt(0.5), (1 + num_candidates, SCREENINGS, num_seeds)).mean(-1)
    gains = np.stack(ours) - plain
    gains[0] += effect
    return float(((gains > gains[0]).sum(0) < keep).mean())


def compare(study: Study, effect: float, draws: int) -> Outcome:
    """Simulate both designs.

    Args:
        study: gives settings, candidates, screening and looks.
        effect: of the better candidate, in standard deviations of a paired difference.
        draws: simulated families of each confirmation.
    """
    assert study.screen is not None
    settings, candidates, looks = len(study.settings), len(study.family), study.confirm.looks
    keep = min(study.screen.keep, candidates)
    kept = share_kept(candidates, len(study.screen.seeds), keep, effect)
    one, none = (simulate(looks, [each] + [0.0] * (settings * keep - 1), draws=draws) for each in (effect, 0.0))
    # controls are sure to lose, and nobody is found equivalent, so that none stops early
    worst = simulate(looks, [0.0] * settings * keep, margin=0.0, num_others=1, draws=draws)
    power, seeds = kept * one.beneficial, kept * one.seeds + (1 - kept) * none.seeds
    family = settings * candidates

    def fixed(number: int, effect: float = effect, others: int = 1 + CONTROLS) -> float:
        return simulate(Looks((number,)), [effect] + [0.0] * (family - 1), num_others=others, draws=draws).beneficial

    number = bisect_left(range(FEWEST_SEEDS, MOST), power, key=fixed) + FEWEST_SEEDS
    tune = len(study.tune.seeds) * sum(rung.values / rung.fraction for rung in rungs(study)) if study.tune else 0.0
    search = settings * (1 + candidates) * tune
    screened = settings * (1 + candidates) * len(study.screen.seeds)
    confirmed = settings * looks.seeds[-1] + settings * keep * (1 + CONTROLS) * seeds  # plain up to the last look: an upper bound
    return Outcome(
        *(effect, looks.seeds, power, worst.beneficial, number, fixed(number), fixed(number, 0.0, 1)),
        search + screened + confirmed,
        search + settings * number * (1 + candidates * (1 + CONTROLS)),
    )


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ROOT / "sweeps/studies/cifar10_zero.yaml"
    parser.add_argument("study", type=Path, nargs="?", default=default, help="a study that screens")
    parser.add_argument("--effects", type=float, nargs="+", default=EFFECTS, help="d_z of the better candidate")
    parser.add_argument("--draws", type=int, default=DRAWS, help="simulated families")
    given = parser.parse_args(words)
    study = read_study(given.study)
    if study.screen is None:
        parser.error(f"{given.study} has no screen, and so but one stage to compare")
    for effect in given.effects:
        print(json.dumps(compare(study, effect, given.draws)._asdict()), flush=True)


if __name__ == "__main__":
    main()
