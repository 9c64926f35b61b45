import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from semconv.comparison.declared import Looks
from semconv.comparison.sequential import level_of, nominal_levels, repeated_p
from semconv.comparison.simulation import DRAWS, simulate

FIVE = (1, 2, 3, 4, 5)
PLAN = Looks.of([5, 10, 20])


def test_results_are_tested_at_the_level_of_the_latest_look():
    looks = Looks((5, 10))
    first, second = nominal_levels(looks)
    assert [level_of(looks, n) for n in (4, 5, 9, 10, 12)] == [0.05, first, first, second, second]
    assert level_of(None, 9) == 0.05


def bounds(looks, alpha=0.05):
    return norm.isf(np.array(nominal_levels(looks, alpha)) / 2)


@pytest.mark.parametrize(
    ("spending", "published"),
    [
        # Lan & DeMets (1983), five equal looks, one-sided .025
        ("obrien_fleming", [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]),
        ("pocock", [2.4380, 2.4268, 2.4101, 2.3966, 2.3859]),
    ],
)
def test_bounds_are_the_published_ones(spending, published):
    assert bounds(Looks(FIVE, spending)) == pytest.approx(published, abs=2e-3)


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
def test_all_looks_together_keep_the_level(spending):
    looks = Looks((4, 7, 20), spending)
    times = np.array(looks.seeds) / 20
    correlation = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    never = multivariate_normal.cdf(bounds(looks), cov=correlation, abseps=1e-8, releps=1e-8, maxpts=2_000_000)
    assert 1 - never == pytest.approx(0.025, abs=2e-5)


def test_a_repeated_p_value_is_the_level_at_which_a_look_stops():
    for alpha in (0.05, 0.05 / 14, 1e-4):
        assert repeated_p(nominal_levels(PLAN, alpha), PLAN)[0] == pytest.approx(alpha, rel=1e-2)
        for look in range(3):
            p = np.ones(3)
            p[look] = nominal_levels(PLAN, alpha)[look]
            assert repeated_p(p, PLAN)[look:] == pytest.approx(alpha, rel=1e-2)
    assert repeated_p([1.0, 1.0], PLAN).tolist() == [1.0, 1.0]
    assert repeated_p([0.03], Looks((5,))).tolist() == [0.03]


@pytest.mark.parametrize(
    ("seeds", "spending", "message"),
    [
        ([5, 5], "pocock", "looks are 5 5: give rising"),
        ([2, 5], "pocock", "from 3 to 10000"),
        ([], "pocock", "give rising numbers"),
        ([5], "haybittle", "spending is haybittle: give obrien_fleming or pocock"),
    ],
)
def test_a_plan_that_is_none_is_refused(seeds, spending, message):
    with pytest.raises(ValueError, match=message):
        Looks.of(seeds, spending)


def at_most(share):
    """The bound on a share of DRAWS whose true value is `share`."""
    from scipy.stats import binom

    return binom.ppf(0.9995, DRAWS, share) / DRAWS


@pytest.mark.parametrize("looks", [Looks((5,)), PLAN, Looks((5, 10, 20), "pocock")], ids=str)
def test_the_error_of_a_family_is_nominal_for_each_word(looks):
    # the worst case of intersection-union: the controls are sure to lose, and nobody is found equivalent and stops early
    nothing = simulate(looks, [0.0] * 4, margin=0.0, num_others=1)
    assert nothing.beneficial <= at_most(0.025)
    assert nothing.harmful <= at_most(0.025)
    at_the_margin = simulate(looks, [1.0, -1.0, 1.0, -1.0], margin=1.0)
    assert at_the_margin.equivalent <= at_most(0.025)
    # and the bound is used: a family of one reaches it
    assert simulate(looks, [0.0], num_others=1).harmful == pytest.approx(0.025, abs=0.012)


def test_looking_early_saves_seeds_and_keeps_the_power():
    once, often = simulate(Looks((20,)), [2.5, 2.5]), simulate(PLAN, [2.5, 2.5])
    assert once.beneficial > 0.99
    assert often.beneficial > once.beneficial - 0.01
    assert often.seeds < 0.6 * once.seeds
