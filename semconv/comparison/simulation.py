"""Error rates, power and number of seeds of a plan of looks, by simulation."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semconv.comparison.declared import Looks
from semconv.comparison.sequential import repeated_p
from semconv.comparison.statistics import ALPHA, holm
from semconv.comparison.verdicts import PLAIN, Claims, claims

DRAWS = 2000
AT_ONCE = 50_000_000  # random numbers that are held at a time


class Rates(NamedTuple):
    """Shares of the simulated families in which at least one candidate is called by a word, and the mean number of seeds."""

    beneficial: float
    harmful: float
    equivalent: float
    seeds: float  # of a candidate: it gets no more runs once its verdict is settled


def simulate(looks: Looks, effects: Sequence[float], margin: float = 1.0, num_others: int = 4, draws: int = DRAWS) -> Rates:
    """Simulate a family of candidates whose values are normally distributed, with an effect of the seed that all networks share.

    Args:
        looks: numbers of seeds at which verdicts are given.
        effects: true difference of each candidate to all its others, in standard deviations of a paired difference.
        margin: of equivalence, in the same unit.
        num_others: plain, controls and plain of equal compute.
        draws: number of families.
    """
    generator, numbers = np.random.default_rng(0), draws * (1 + len(effects) * num_others) * looks.seeds[-1]
    parts = np.array_split(np.arange(draws), math.ceil(numbers / AT_ONCE))
    p_values = np.concatenate([_p_values(generator, looks, effects, margin, num_others, len(part)) for part in parts])
    settled = np.full((draws, len(effects)), -1)  # index of the claim
    current = p_values[:, 0]
    seeds = np.zeros((draws, len(effects)))
    for look, count in enumerate(looks.seeds):
        going = settled < 0
        seeds[going] = count
        current = np.where(going[:, None], p_values[:, look], current)
        made = holm(current) < ALPHA
        settled = np.where(made.any(1), made.argmax(1), -1)  # the first claim that is made gives the word
    beneficial, harmful, equivalent = (float((settled == i).any(1).mean()) for i in range(len(Claims._fields)))
    return Rates(beneficial, harmful, equivalent, float(seeds.mean()))


def _p_values(
    generator: np.random.Generator, looks: Looks, effects: Sequence[float], margin: float, num_others: int, draws: int
) -> NDArray:
    """p values of some draws: draw, look, claim, candidate."""
    noise = generator.normal(0, np.sqrt(0.5), (1 + len(effects) * num_others, draws, looks.seeds[-1]))
    plain, rest = noise[0], iter(noise[1:])
    tested = []  # candidate, look: claims of all draws
    for effect in effects:
        ours = effect + next(rest)
        others = {PLAIN: plain, **{str(i): next(rest) for i in range(1, num_others)}}
        at_looks = [claims({name: (ours - each)[:, :look] for name, each in others.items()}, margin) for look in looks.seeds]
        tested.append(repeated_p(np.stack(at_looks, axis=-1), looks))
    return np.array(tested).transpose(2, 3, 1, 0)
