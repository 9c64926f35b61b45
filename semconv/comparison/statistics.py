"""Tests over seeds. Differences are signed so that positive is better, and paired: the same seed in both runs.

One level holds for all: a claim is made at the two-sided level `ALPHA` if the 1 - `ALPHA` interval lies wholly on its side of the
bound. So the p value of a claim in one direction is twice that of the one-sided test.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from semconv.comparison.declared import FEWEST_SEEDS

ALPHA, POWER, MOST_SEEDS = 0.05, 0.8, 1000
FINEST = 1e-9  # no metric is taken for more exact than this


class Paired(NamedTuple):
    """A paired comparison over n seeds; where n is 1, only n and difference are known."""

    n: int
    difference: float  # mean
    low: float | None  # of the t interval
    high: float | None
    p: float | None  # of the two-sided paired t test
    effect: float | None  # d_z: mean over standard deviation of the differences


def paired(differences: Sequence[float] | np.ndarray, resolution: float = FINEST, level: float = ALPHA) -> Paired:
    """Compare by a paired t test.

    Args:
        differences: one per seed, positive = better.
        resolution: the smallest difference that the metric can show, which is the least standard deviation.
        level: 1 - coverage of the interval.

    Raises:
        ValueError: there is no difference.
    """
    n = len(differences)
    if not n:
        raise ValueError("no seed is common to both: run both with the same seeds")
    mean = float(np.mean(differences))
    if n == 1:
        return Paired(1, mean, None, None, None, None)
    values = spread(differences, resolution)
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval(1 - level)
    return Paired(n, mean, float(low), float(high), float(test.pvalue), mean / float(values.std(ddof=1)))


def p_above(differences: ArrayLike, bound: float = 0.0) -> NDArray:
    """p of the claim that the true difference is above a bound, over the last axis: below `ALPHA` if the interval is above it."""
    return np.minimum(2 * stats.ttest_1samp(differences, bound, axis=-1, alternative="greater").pvalue, 1.0)


def p_inside(differences: ArrayLike, margin: float) -> NDArray:
    """p of two one-sided tests (Schuirmann, 1987), doubled as `p_above` is: that the true difference lies inside +-margin."""
    return np.maximum(p_above(differences, -margin), p_above(np.negative(differences), -margin))


def spread(differences: ArrayLike, resolution: float) -> NDArray:
    """The differences, or as many of the same mean and of the standard deviation `resolution` where theirs is smaller."""
    values = np.asarray(differences, dtype=float)
    even = np.linspace(-1, 1, values.shape[-1])
    mean, even = values.mean(-1, keepdims=True), even / even.std(ddof=1)
    least = np.maximum(resolution, FINEST * np.abs(mean))  # a smaller one would be lost in rounding
    return np.where(values.std(-1, ddof=1, keepdims=True) < least, mean + least * even, values)


def holm(p_values: ArrayLike) -> NDArray:
    """Adjusted p values of a family (Holm, 1979), over the last axis."""
    p = np.asarray(p_values, dtype=float)
    order = p.argsort(-1)
    scaled = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(scaled, -1), 1.0)
    return np.take_along_axis(adjusted, order.argsort(-1), -1)


def seeds_needed(effect: float, alpha: float = ALPHA) -> int | None:
    """Seeds for 80 % power of a paired t test at an effect d_z; None where it is not above 0 or takes over 1,000."""
    from statsmodels.stats.power import TTestPower

    if not effect > 0:
        return None
    bounded = min(effect, 50.0)  # from some 1e5 on TTestPower gives NaN; few seeds are enough long before
    return _fewest(lambda n: float(TTestPower().power(bounded, n, alpha / 2, alternative="larger")))


def seeds_for_equivalence(sd: float, margin: float, alpha: float = ALPHA) -> int | None:
    """Seeds for 80 % power of the test of equivalence where the true difference is 0; None where it takes over 1,000."""
    if sd == 0:
        return FEWEST_SEEDS

    def power(n: int) -> float:
        room = margin * math.sqrt(n) / sd - stats.t.ppf(1 - alpha / 2, n - 1)
        return float(2 * stats.t.cdf(max(room, 0.0), n - 1) - 1)

    return _fewest(power)


def interaction(differences: Mapping[str, Mapping[int, float]], resolution: float = FINEST) -> tuple[float, float] | None:
    """Interaction of a difference with the level of a factor: F and p of a repeated-measures analysis of variance.

    The spread may differ between levels: p is that of the lower bound of the degrees of freedom (Greenhouse & Geisser, 1959).

    Args:
        differences: by level and seed. Seeds that not all levels have are left out.
        resolution: the smallest difference that the metric can show, which is the least standard deviation of the residuals.

    Returns:
        None where there are fewer than two levels or two such seeds, or no difference depends on the level.
    """
    seeds = set.intersection(*(set(level) for level in differences.values())) if differences else set()
    if len(differences) < 2 or len(seeds) < 2:
        return None
    values = np.array([[level[seed] for seed in sorted(seeds)] for level in differences.values()])
    within, largest = values - values.mean(0), float(np.abs(values).max())
    if float(np.abs(within).max()) <= 1e-12 * max(1.0, largest):
        return None
    means = within.mean(1, keepdims=True)
    noise = float(((within - means) ** 2).sum()) / ((len(values) - 1) * (len(seeds) - 1))
    statistic = len(seeds) * float(means.var(ddof=1)) / max(noise, resolution**2, (FINEST * largest) ** 2)
    return statistic, float(stats.f.sf(statistic, 1, len(seeds) - 1))


def _fewest(power: Callable[[int], float]) -> int | None:
    """The fewest seeds of enough power, which rises with their number."""
    if power(MOST_SEEDS) < POWER:
        return None
    return bisect_left(range(FEWEST_SEEDS, MOST_SEEDS + 1), POWER, key=power) + FEWEST_SEEDS
