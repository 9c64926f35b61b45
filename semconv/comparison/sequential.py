"""Group-sequential tests: a confirmation that looks at its results several times, and stops where they are settled.

Looking k times at the level α finds something by chance more often than α. An error-spending function says how much of α may be
used up to each look (Lan & DeMets, 1983), and so at which nominal level each look tests. The levels come from the joint
distribution of the statistics of all looks under the null hypothesis, and are applied to the p values of the t tests (Jennison &
Turnbull, 2000, chapters 7 and 11).
"""

from functools import lru_cache, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import trapezoid
from scipy.optimize import brentq
from scipy.stats import norm

from semconv.comparison.declared import Looks, Spending
from semconv.comparison.statistics import ALPHA

FARTHEST = 10.0  # deviations from the mean, beyond which nothing is integrated
POINTS = 401  # of the integration
ALPHAS = np.logspace(-8, -1e-6, 80)  # levels over which a repeated p value is interpolated


@lru_cache(maxsize=4096)
def nominal_levels(looks: Looks, alpha: float = ALPHA) -> tuple[float, ...]:
    """The two-sided level at which each look tests so that all together keep the two-sided level alpha.

    Half of alpha is spent in each direction: a claim has one.
    """
    seeds, allowed = looks.seeds, [_spent(looks.spending, look / looks.seeds[-1], alpha / 2) for look in looks.seeds]
    bounds = [float(norm.isf(allowed[0]))]
    grid = np.linspace(-FARTHEST, min(bounds[0], FARTHEST), POINTS)
    density = norm.pdf(grid)  # of the statistic where no earlier look has stopped
    for i in range(1, len(seeds)):
        share = np.sqrt(seeds[i - 1] / seeds[i])  # z of this look = share * z of the one before + noise
        noise = np.sqrt(1 - share**2)
        excess = partial(_excess, grid, density, share, noise, max(allowed[i] - allowed[i - 1], 1e-300))
        bounds.append(brentq(excess, -FARTHEST, 4 * FARTHEST) if excess(4 * FARTHEST) < 0 else 4 * FARTHEST)
        after = np.linspace(-FARTHEST, min(bounds[i], FARTHEST), POINTS)
        density = trapezoid(density * norm.pdf((after[:, None] - share * grid) / noise) / noise, grid, axis=1)
        grid = after
    return tuple(float(2 * norm.sf(bound)) for bound in bounds)


def level_of(looks: Looks | None, num_seeds: int) -> float:
    """The two-sided level at which results of so many seeds are tested: that of the latest look; alpha without any."""
    reached = looks.reached(num_seeds) if looks else []
    return nominal_levels(looks)[len(reached) - 1] if looks and reached else ALPHA


def _excess(grid: NDArray, density: NDArray, share: float, noise: float, allowed: float, bound: float) -> float:
    """The probability that this look, and none before, is above a bound, minus that which is allowed."""
    return float(trapezoid(density * norm.sf((bound - share * grid) / noise), grid)) - allowed


def repeated_p(p_values: ArrayLike, looks: Looks) -> NDArray:
    """Repeated p values: for each look, the smallest level at which the plan has made the claim by then.

    As they hold at every look, corrections for a family apply to them as to other p values.

    Args:
        p_values: of one claim, doubled as `p_above` gives them; looks on the last axis, which may be fewer than planned.
    """
    given = np.asarray(p_values, dtype=float)
    if len(looks.seeds) == 1:
        return given
    table = _levels(looks)
    found = [
        np.interp(np.log(np.maximum(given[..., i], 1e-300)), table[i], np.log(ALPHAS), right=0.0) for i in range(given.shape[-1])
    ]
    return np.minimum.accumulate(np.exp(np.stack(found, axis=-1)), axis=-1)


@lru_cache(maxsize=16)
def _levels(looks: Looks) -> NDArray:
    """The logarithms of the nominal levels: look by `ALPHAS`."""
    return np.log(np.maximum(np.array([nominal_levels(looks, float(alpha)) for alpha in ALPHAS]).T, 1e-300))


def _spent(spending: Spending, time: float, alpha: float) -> float:
    """The part of a one-sided alpha that may be used up to a time from 0 to 1."""
    if spending == "pocock":
        return float(alpha * np.log1p((np.e - 1) * time))
    return float(2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(time)))
