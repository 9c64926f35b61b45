# mypy: disable-error-code="operator,misc"
import gc
import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import brentq
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from semconv.comparison.statistics import (
    equivalence,
    holm,
    interaction,
    paired,
    seeds_for_equivalence,
    seeds_needed,
)
from semconv.comparison.verdicts import PLAIN, WIDE, gather, judge
from semconv.metrics import REPRESENTATION

DRAWS = 2000


@pytest.fixture(autouse=True)
def no_collection(monkeypatch):
    """statsmodels' correction collects garbage at each call, a tenth of a second."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.fixture
def words_alone(monkeypatch):
    """Leaves out the number of seeds that a verdict would take, which is most of the work of an inconclusive one."""
    for name in ("seeds_needed", "seeds_for_equivalence"):
        monkeypatch.setattr(f"semconv.comparison.verdicts.{name}", lambda *_: None)


def test_a_comparison_by_hand():
    found = paired([1.0, 2.0, 3.0])
    # mean 2, deviation 1, error 1 / root 3; t(.975, 2) = 4.302653
    assert found.difference == 2
    assert found.effect == pytest.approx(2)
    assert (found.high - found.low) / 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_intervals_and_p_values_are_those_of_scipy():
    differences = np.random.default_rng(0).normal(0.3, 1, 9)
    found, oracle = paired(differences), stats.ttest_1samp(differences, 0, alternative="greater")
    interval = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert found.p == pytest.approx(oracle.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(interval))


def test_equivalence_is_that_of_statsmodels():
    generator = np.random.default_rng(1)
    ours, theirs = generator.normal(0, 1, 12), generator.normal(0.1, 1, 12)
    assert equivalence(ours - theirs, 0.7) == pytest.approx(ttost_paired(ours, theirs, -0.7, 0.7)[0])


@pytest.mark.parametrize(("value", "p", "effect"), [(0.1, 0.0, math.inf), (-0.1, 1.0, -math.inf), (0.0, 1.0, 0.0)])
def test_differences_without_spread_give_no_nan(value, p, effect):
    found = paired([0.5 + value - 0.5] * 4)
    assert (found.p, found.effect) == (p, effect)
    assert found.low == found.high == found.difference


def test_one_seed_has_no_interval():
    assert paired([0.3]) == (1, 0.3, None, None, None, None)
    assert equivalence([0.3], 1.0) is None


def test_holm_by_hand():
    # .01 * 3, then max with .02 * 2, then .03
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])


@pytest.mark.parametrize("seeds", [3, 5, 10, 40])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 14])
def test_seeds_needed_agree_with_statsmodels(seeds, alpha):
    power = TTestPower().power
    effect = brentq(lambda effect: power(effect, seeds, alpha, alternative="larger") - 0.8, 0.1, 40)
    assert seeds_needed(effect * 1.001, alpha) == seeds
    assert seeds_needed(effect * 0.999, alpha) == seeds + 1


def test_seeds_where_there_is_no_effect():
    assert seeds_needed(0.0) is None
    assert seeds_needed(-1.0) is None
    assert seeds_needed(1e-3) is None


def test_seeds_for_equivalence_give_that_power():
    generator = np.random.default_rng(2)
    n = seeds_for_equivalence(1.0, 0.8)
    found = [equivalence(generator.normal(0, 1, n), 0.8) < 0.05 for _ in range(DRAWS)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def exact_power_of_equivalence(n, margin):
    """For a deviation of 1 and no difference: over the sample's deviation, how often its mean lies far enough inside the margin."""
    t = stats.t.ppf(0.95, n - 1)

    def integrand(sd):
        reach = margin * math.sqrt(n) - t * sd
        return (2 * stats.norm.cdf(reach) - 1) * 2 * (n - 1) * sd * stats.chi2.pdf((n - 1) * sd**2, n - 1)

    return quad(integrand, 0, margin * math.sqrt(n) / t)[0]


@pytest.mark.parametrize(("margin", "seeds"), [(8.0, 2), (6.1, 3), (2.5, 4), (1.9, 5), (1.6, 6), (0.5, 36)])
def test_seeds_for_equivalence_are_the_fewest_of_enough_power(margin, seeds):
    assert next(n for n in range(2, 100) if exact_power_of_equivalence(n, margin) >= 0.8) == seeds
    assert seeds_for_equivalence(1.0, margin) == seeds


def test_two_seeds_are_enough_to_test_equivalence():
    ours, theirs = np.array([0.5, 0.3]), np.array([0.4, 0.25])
    assert equivalence(ours - theirs, 0.2) == pytest.approx(ttost_paired(ours, theirs, -0.2, 0.2)[0])


@pytest.mark.parametrize(("margin", "p"), [(0.2, 0.0), (0.05, 1.0)])
def test_differences_without_spread_are_equivalent_where_they_lie_inside_the_margin(margin, p):
    assert equivalence([0.1] * 4, margin) == equivalence([-0.1] * 4, margin) == p


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


def within_bounds(count: int, share: float) -> bool:
    """Whether a count of DRAWS lies in the central 99.9 % of a binomial distribution."""
    low, high = stats.binom.interval(0.999, DRAWS, share)
    return low <= count <= high


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_covers_the_truth_as_often_as_it_says(n):
    generator = np.random.default_rng(n)
    found = [paired(generator.normal(0.2, 1, n)) for _ in range(DRAWS)]
    assert within_bounds(sum(each.low <= 0.2 <= each.high for each in found), 0.95)


def simulated(generator, n, sd, effects, shared=0.0):
    """Evidence on a family: seeds make all rise and fall together, each network adds noise of its own.

    Args:
        effects: of each candidate over plain, its controls and wide plain, in units of the deviation of a difference.
        shared: deviation of what is common to all of a seed.
    """
    common = generator.normal(0, shared, n)

    def draw(shift=0.0):
        return dict(enumerate(0.5 + common + shift + generator.normal(0, sd / math.sqrt(2), n)))

    plain = draw()
    return [gather(REPRESENTATION, draw(effect * sd), plain, {"zero": draw(), "shuffled": draw()}, draw()) for effect in effects]


@pytest.mark.usefixtures("words_alone")
def test_a_family_of_identical_functions_is_called_beneficial_no_more_often_than_nominal():
    generator = np.random.default_rng(4)
    wrong = 0
    for _ in range(DRAWS):
        verdicts = judge(simulated(generator, 5, 0.01, [0.0] * 3, shared=0.05))
        wrong += any(verdict.word == "beneficial" for verdict in verdicts)
    assert wrong <= stats.binom.ppf(0.9995, DRAWS, 0.05)


def count_wrong(family: int) -> int:
    """How many of DRAWS families hold one called beneficial, in the worst case of intersection-union.

    All comparisons but those with plain are certain to be won, and each candidate has seeds of its own.
    """
    generator, wrong = np.random.default_rng(5), 0
    for _ in range(DRAWS):
        evidence = []
        for _ in range(family):
            ours, plain = (dict(enumerate(generator.normal(0.5, 0.01, 5))) for _ in range(2))
            low = dict.fromkeys(ours, 0.0)
            evidence.append(gather(REPRESENTATION, ours, plain, {"zero": low}, low))
        wrong += any(verdict.word == "beneficial" for verdict in judge(evidence))
    return wrong


@pytest.mark.usefixtures("words_alone")
@pytest.mark.parametrize("family", [1, 3])
def test_against_controls_that_all_lose_by_chance_the_error_is_nominal(family):
    share = 1 - (1 - 0.05 / family) ** family  # of Holm's first step
    assert within_bounds(count_wrong(family), share)


@pytest.mark.usefixtures("words_alone")
def test_two_identical_functions_come_out_equivalent():
    generator = np.random.default_rng(6)
    margin = REPRESENTATION.margin
    n = seeds_for_equivalence(margin / 1.5, margin)
    words = [judge(simulated(generator, n, margin / 1.5, [0.0], shared=0.05))[0].word for _ in range(DRAWS)]
    assert words.count("equivalent") >= 0.8 * DRAWS - 3 * math.sqrt(0.16 * DRAWS)
    assert words.count("beneficial") <= stats.binom.ppf(0.9995, DRAWS, 0.05)


@pytest.mark.usefixtures("words_alone")
def test_a_planted_effect_is_found():
    generator = np.random.default_rng(7)
    found = [judge(simulated(generator, 10, 0.01, [2.0], shared=0.05))[0].word == "beneficial" for _ in range(DRAWS // 4)]
    assert np.mean(found) > 0.99


def test_it_has_to_win_every_comparison():
    generator = np.random.default_rng(8)
    ours = dict(enumerate(0.6 + generator.normal(0, 0.001, 6)))
    low, high = ({seed: value + shift for seed, value in ours.items()} for shift in (-0.1, 0.1))
    low = {seed: value + 1e-4 * seed for seed, value in low.items()}
    winning = judge([gather(REPRESENTATION, ours, low, {"zero": low}, low)])[0]
    assert (winning.word, winning.seeds) == ("beneficial", None)
    for plain, control, wide in ((high, low, low), (low, high, low), (low, low, high)):
        assert judge([gather(REPRESENTATION, ours, plain, {"zero": control}, wide)])[0].word != "beneficial"


def test_what_was_not_compared_is_named():
    ours = {0: 0.9, 1: 0.91, 2: 0.9}
    plain = {0: 0.5, 1: 0.5, 2: 0.51}
    reasons = [
        judge([gather(REPRESENTATION, ours, plain, controls, wide)])[0].reason
        for controls, wide in (({}, plain), ({"zero": plain}, None), ({"noise": plain}, plain))
    ]
    assert reasons == ["not compared with a control", "not compared with plain_wide", "not compared with a control"]
    (alone,) = judge([gather(REPRESENTATION, {0: 0.9}, {0: 0.5}, {}, None)])
    assert alone.reason == "one seed: no interval"
    (apart,) = judge([gather(REPRESENTATION, {0: 0.9}, {1: 0.5}, {}, None)])
    assert apart.reason == "no seed in common with plain"


def test_an_inconclusive_result_says_how_many_seeds_would_settle_it():
    generator = np.random.default_rng(9)
    noise = generator.normal(0, 1, 4)
    differences = (noise - noise.mean()) / noise.std(ddof=1) * 0.01 + 0.008  # d_z .8 exactly
    plain = dict.fromkeys(range(4), 0.5)
    ours = {seed: 0.5 + difference for seed, difference in enumerate(differences)}
    (verdict,) = judge([gather(REPRESENTATION, ours, plain, {"zero": plain}, plain)])
    assert verdict.word == "inconclusive"
    assert verdict.seeds == seeds_needed(0.8)
    assert f"{verdict.seeds} seeds" in verdict.reason
    assert set(gather(REPRESENTATION, ours, plain, {"zero": plain}, plain).against) == {PLAIN, "zero", WIDE}
