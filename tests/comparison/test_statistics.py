# mypy: disable-error-code="operator,misc"
import math

import numpy as np
import pandas
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import brentq
from statsmodels.stats.anova import AnovaRM
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from semconv.comparison.declared import FEWEST_SEEDS
from semconv.comparison.statistics import (
    ALPHA,
    holm,
    interaction,
    p_above,
    p_inside,
    paired,
    seeds_for_equivalence,
    seeds_needed,
    spread,
)
from tests.pairwise import together

DRAWS = 1000


def test_a_comparison_by_hand():
    found = paired([1.0, 2.0, 3.0])
    # mean 2, deviation 1, error 1 / root 3; t(.975, 2) = 4.302653
    assert found.difference == 2
    assert found.effect == pytest.approx(2)
    assert (found.high - found.low) / 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_a_claim_holds_where_the_whole_interval_is_on_its_side():
    generator = np.random.default_rng(0)
    for _ in range(200):
        differences = generator.normal(0.5, 1, generator.integers(3, 12))
        found = paired(differences)
        assert (p_above(differences) < ALPHA) == (found.low > 0)
        assert (p_above(-differences) < ALPHA) == (found.high < 0)
        assert (p_inside(differences, 0.9) < ALPHA) == (found.low > -0.9 and found.high < 0.9)
        assert found.p == pytest.approx(min(p_above(differences), p_above(-differences)))


def test_equivalence_is_that_of_statsmodels():
    generator = np.random.default_rng(1)
    ours, theirs = generator.normal(0, 1, (4, 12)), generator.normal(0.1, 1, (4, 12))
    expected = [2 * ttost_paired(a, b, -0.7, 0.7)[0] for a, b in zip(ours, theirs, strict=True)]
    assert p_inside(ours - theirs, 0.7) == pytest.approx(np.minimum(expected, 1))


def test_differences_without_spread_spread_as_far_as_the_metric_can_tell():
    # equal differences of .1, known to .01: t = .1 / (.01 / root 3)
    found = paired([0.1] * 3, resolution=0.01)
    assert found.p == pytest.approx(2 * stats.t.sf(0.1 / (0.01 / math.sqrt(3)), 2))
    assert found.effect == pytest.approx(10)
    assert found.low < 0.1 < found.high
    wide = np.array([[0.0, 1.0, 5.0], [2.0, 2.0, 2.0]])
    spread_out = spread(wide, 0.5)
    assert spread_out[0].tolist() == wide[0].tolist()
    assert (spread_out[1].mean(), spread_out[1].std(ddof=1)) == pytest.approx((2, 0.5))


def test_one_seed_has_no_interval():
    assert paired([0.3]) == (1, 0.3, None, None, None, None)


def test_holm_is_that_of_statsmodels():
    p_values = np.random.default_rng(2).uniform(0, 0.2, (20, 5)) ** 2
    expected = [multipletests(row, ALPHA, method="holm")[1] for row in p_values]
    assert holm(p_values) == pytest.approx(np.array(expected))
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])  # .01 * 3, then max with .02 * 2, then .03
    assert holm([]).tolist() == []


@together("seeds", [3, 5, 10, 40])
@together("alpha", [0.05, 0.05 / 14])
def test_seeds_needed_agree_with_statsmodels(seeds, alpha):
    power = TTestPower().power
    effect = brentq(lambda effect: power(effect, seeds, alpha / 2, alternative="larger") - 0.8, 0.1, 40)
    assert seeds_needed(effect * 1.001, alpha) == seeds
    assert seeds_needed(effect * 0.999, alpha) == seeds + 1


def test_seeds_where_there_is_no_effect():
    assert seeds_needed(0.0) is None
    assert seeds_needed(-1.0) is None
    assert seeds_needed(1e-3) is None


def exact_power_of_equivalence(n, margin):
    """For a deviation of 1 and no difference: over the sample's deviation, how often its mean lies far enough inside the margin."""
    t = stats.t.ppf(0.975, n - 1)

    def integrand(sd):
        reach = margin * math.sqrt(n) - t * sd
        return (2 * stats.norm.cdf(reach) - 1) * 2 * (n - 1) * sd * stats.chi2.pdf((n - 1) * sd**2, n - 1)

    return quad(integrand, 0, margin * math.sqrt(n) / t)[0]


@pytest.mark.parametrize("margin", [8.0, 2.4, 1.9, 0.8])
def test_seeds_for_equivalence_are_the_fewest_of_enough_power(margin):
    seeds = next(n for n in range(3, 100) if exact_power_of_equivalence(n, margin) >= 0.8)
    assert seeds_for_equivalence(1.0, margin) == seeds
    generator = np.random.default_rng(3)
    found = p_inside(generator.normal(0, 1, (DRAWS, seeds)), margin) < ALPHA
    assert found.mean() >= 0.8 - 0.03


def test_differences_without_spread_take_the_fewest_seeds():
    assert seeds_for_equivalence(0.0, 0.1) == FEWEST_SEEDS


def test_rounding_is_no_interaction_whatever_the_sign_of_the_differences():
    for sign in (1, -1):
        level = {0: sign * 1e6, 1: sign * 2e6}
        assert interaction({"a": level, "b": {seed: math.nextafter(value, 0) for seed, value in level.items()}}) is None


def test_an_interaction_of_two_levels_is_a_paired_t_test():
    generator = np.random.default_rng(3)
    first, second = generator.normal(0, 1, 8), generator.normal(1, 1, 8)
    levels = {"a": dict(enumerate(first)), "b": {**dict(enumerate(second)), 99: 5.0}}
    statistic, p = interaction(levels)
    oracle = stats.ttest_rel(first, second)
    assert (statistic, p) == pytest.approx((oracle.statistic**2, oracle.pvalue))
    assert interaction({"a": levels["a"]}) is None
    assert interaction({"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0, 1: 2.0}}) is None


def test_an_interaction_of_several_levels_is_that_of_an_analysis_of_variance():
    values = np.random.default_rng(7).normal(0, 1, (4, 6)) + np.arange(4)[:, None]
    rows = [(seed, level, value) for level, row in enumerate(values) for seed, value in enumerate(row)]
    table = pandas.DataFrame(rows, columns=["seed", "level", "value"])
    oracle = AnovaRM(table, "value", "seed", within=["level"]).fit().anova_table.iloc[0]["F Value"]
    found = interaction({str(level): dict(enumerate(row)) for level, row in enumerate(values)})
    assert found == pytest.approx((oracle, stats.f.sf(oracle, 1, 5)))


def test_levels_that_differ_by_the_same_at_every_seed_interact_as_far_as_the_metric_can_tell():
    # means .02 apart, residuals known to .001: F = 3 * .02² / 2 / .001²
    levels = {"a": {0: 0.01, 1: 0.02, 2: 0.05}, "b": {0: 0.03, 1: 0.04, 2: 0.07}}
    assert interaction(levels, 0.001) == pytest.approx((600, stats.f.sf(600, 1, 2)))


def test_an_interaction_is_not_found_in_levels_of_unequal_spread_more_often_than_it_says():
    generator = np.random.default_rng(5)
    deviations, draws = (0.1, 0.11, 0.12, 3.0), 300
    found = 0
    for _ in range(draws):
        outcome = interaction({str(each): dict(enumerate(generator.normal(0, each, 4))) for each in deviations})
        assert outcome
        found += outcome[1] < 0.05
    assert found <= stats.binom.ppf(0.999, draws, 0.05)


@pytest.mark.parametrize("n", [3, 10])
def test_the_interval_covers_the_truth_as_often_as_it_says(n):
    generator = np.random.default_rng(n)
    found = [paired(generator.normal(0.2, 1, n)) for _ in range(DRAWS)]
    low, high = stats.binom.interval(0.999, DRAWS, 0.95)
    assert low <= sum(each.low <= 0.2 <= each.high for each in found) <= high
