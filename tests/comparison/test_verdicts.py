import pytest

from semconv.comparison.statistics import Paired
from semconv.comparison.verdicts import PLAIN, WIDE, Evidence, gather, judge
from semconv.metrics import RECONSTRUCTION


def losing(high: float) -> Paired:
    return Paired(5, high - 0.1, high - 0.2, high, 0.97, -0.5)


def winning(effect: float) -> Paired:
    return Paired(5, 0.1, -0.1, 0.3, 0.2, effect)


def test_a_lower_error_is_a_gain_of_as_much():
    found = gather(RECONSTRUCTION, {0: 0.4, 1: 0.5}, {0: 0.5, 1: 0.7}, {"zero": {0: 0.3, 1: 0.4}}, None)
    assert found.against[PLAIN].difference == pytest.approx(0.15)
    assert found.against["zero"].difference == pytest.approx(-0.1)
    assert found.margin == pytest.approx(0.01 * 0.6)


@pytest.mark.parametrize(("high", "is_worse"), [(-0.01, True), (0.0, False)])
def test_it_is_worse_than_plain_where_the_whole_interval_is_below_zero(high, is_worse):
    against = {PLAIN: losing(high), "zero": losing(high), WIDE: losing(high)}
    (verdict,) = judge([Evidence(against, 0.9, 0.005, 0.01)])
    assert verdict.reason.startswith("worse than plain") == is_worse


def test_one_comparison_that_is_lost_is_named_whatever_the_others_win():
    against = {PLAIN: winning(0.8), "zero": losing(0.1), WIDE: winning(0.8)}
    (verdict,) = judge([Evidence(against, 0.9, 0.005, 0.01)])
    assert verdict.reason.startswith("does not beat zero")
