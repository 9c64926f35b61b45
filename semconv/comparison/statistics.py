"""Tests over seeds. Differences are signed so that positive is better, and paired: the same seed in both runs."""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

ALPHA, POWER, MOST_SEEDS = 0.05, 0.8, 1000


class Paired(NamedTuple):
    """A paired comparison over n seeds; where n is 1, only n and difference are known."""

    n: int
    difference: float  # mean
    low: float | None  # of the 95 % t interval
    high: float | None
    p: float | None  # one-sided: that the true difference is not above 0
    effect: float | None  # d_z: mean over standard deviation of the differences; infinite where they are all equal


def paired(differences: Sequence[float] | np.ndarray) -> Paired:
    """Compare by a paired t test.

    Args:
        differences: one per seed, positive = better.

    Raises:
        ValueError: there is no difference.
    """
    if not len(differences):
        raise ValueError("no seed is common to both: run both with the same seeds")
    mean, sd = _moments(differences)
    n = len(differences)
    if n == 1:
        return Paired(1, mean, None, None, None, None)
    if sd == 0:
        return Paired(n, mean, mean, mean, 0.0 if mean > 0 else 1.0, math.copysign(math.inf, mean) if mean else 0.0)
    test = stats.ttest_1samp(differences, 0)
    low, high = test.confidence_interval(1 - ALPHA)
    one_sided = test.pvalue / 2 if mean > 0 else 1 - test.pvalue / 2
    return Paired(n, mean, float(low), float(high), float(one_sided), mean / sd)


def equivalence(differences: Sequence[float] | np.ndarray, margin: float) -> float | None:
    """p of two one-sided tests (Schuirmann, 1987): that the true difference lies outside +-margin; None for one seed."""
    from statsmodels.stats.weightstats import ttost_paired

    mean, sd = _moments(differences)
    if len(differences) < 2:
        return None
    if sd == 0:
        return 0.0 if abs(mean) < margin else 1.0
    return float(ttost_paired(np.asarray(differences), np.zeros(len(differences)), -margin, margin)[0])


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of a family (Holm, 1979)."""
    from statsmodels.stats.multitest import multipletests  # takes a second, which a table without verdicts need not wait for

    return [float(p) for p in multipletests(p_values, ALPHA, method="holm")[1]] if len(p_values) else []


def seeds_needed(effect: float, alpha: float = ALPHA) -> int | None:
    """Seeds for 80 % power of a one-sided paired t test at an effect d_z; None where it is not above 0 or takes over 1,000."""
    from statsmodels.stats.power import TTestPower

    if not effect > 0:
        return None
    bounded = min(effect, 50.0)  # from some 1e5 on TTestPower gives NaN; two or three seeds are enough long before
    return _fewest(lambda n: float(TTestPower().power(bounded, n, alpha, alternative="larger")))


def seeds_for_equivalence(sd: float, margin: float) -> int | None:
    """Seeds for 80 % power of two one-sided tests where the true difference is 0; None where it takes over 1,000."""
    if sd == 0:
        return 2

    def power(n: int) -> float:
        room = margin * math.sqrt(n) / sd - stats.t.ppf(1 - ALPHA, n - 1)
        return float(2 * stats.t.cdf(max(room, 0.0), n - 1) - 1)

    return _fewest(power)


def interaction(differences: Mapping[str, Mapping[int, float]]) -> tuple[float, float] | None:
    """Interaction of a difference with the level of a factor: F and p of a repeated-measures analysis of variance.

    Args:
        differences: by level and seed. Seeds that not all levels have are left out.

    Returns:
        None where there are fewer than two levels or two such seeds, or nothing varies.
    """
    import pandas
    from statsmodels.stats.anova import AnovaRM

    seeds = set.intersection(*(set(level) for level in differences.values())) if differences else set()
    if len(differences) < 2 or len(seeds) < 2:
        return None
    rows = [(seed, level, values[seed]) for level, values in differences.items() for seed in sorted(seeds)]
    table = pandas.DataFrame(rows, columns=["seed", "level", "difference"])
    within = table.difference - table.groupby("seed").difference.transform("mean")
    if float(within.groupby(table.level).std(ddof=0).max()) <= 1e-12 * max(1.0, float(table.difference.abs().max())):
        return None
    row = AnovaRM(table, "difference", "seed", within=["level"]).fit().anova_table.iloc[0]
    return float(row["F Value"]), float(row["Pr > F"])


def _moments(differences: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; a deviation that is rounding is 0."""
    values = np.asarray(differences, dtype=float)
    mean = float(values.mean())
    sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return mean, 0.0 if sd <= 1e-12 * max(abs(mean), 1e-3) else sd


def _fewest(power: Callable[[int], float]) -> int | None:
    """The fewest seeds of enough power, which rises with their number."""
    if power(MOST_SEEDS) < POWER:
        return None
    return bisect_left(range(2, MOST_SEEDS + 1), POWER, key=power) + 2
