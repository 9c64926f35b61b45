"""The covering sets from which other tests take their settings, and the cases that run several of them."""

from itertools import combinations, product

import pytest

from tests.pairwise import pairwise, together

FACTORS = [(1, 3, 5, 7), (1, 2, 4), (1, 4), ("zeros", "reflect", "replicate", "circular")]


def pads(kernel, stride, groups, mode):
    return kernel > 1 or mode == "zeros"


def occurring(settings):
    """The pairs of values in some settings."""
    return {pair for setting in settings for pair in combinations(enumerate(setting), 2)}


@pytest.mark.parametrize("allowed", [lambda *_: True, pads])
def test_every_pair_that_is_allowed_is_met_in_few_settings(allowed):
    everything = [setting for setting in product(*FACTORS) if allowed(*setting)]
    chosen = pairwise(*FACTORS, allowed=allowed)
    assert set(chosen) <= set(everything)
    assert occurring(chosen) == occurring(everything)
    assert len(chosen) == len(set(chosen)) <= 20  # 16 pairs of kernel and mode, one a setting
    assert chosen == pairwise(*FACTORS, allowed=allowed)


def test_of_two_factors_every_setting_is_chosen():
    assert sorted(pairwise("abc", [1, 2])) == sorted(product("abc", [1, 2]))


def test_values_need_be_neither_hashable_nor_different():
    assert len(pairwise([[1], [1]], [{}, {}], [None])) == 4


@pytest.mark.parametrize("outer", ["x", "y"])
@together("first, second", [(1, "a"), (2, "b")])
@together("third", [None, True])
def test_settings_together_are_run_in_turn(outer, first, second, third, tmp_path):
    with open(tmp_path / "runs", "a+") as file:
        file.write(f"{outer}{first}{second}{third} ")
        file.seek(0)
        runs = file.read().split()
    assert runs == [f"{outer}1aNone", f"{outer}1aTrue", f"{outer}2bNone", f"{outer}2bTrue"][: len(runs)]
    assert runs[-1] == f"{outer}{first}{second}{third}"


def test_a_setting_that_fails_fails_the_case():
    met = []

    @together("number", [1, 2, 3])
    def check(number):
        met.append(number)
        assert number < 2

    with pytest.raises(AssertionError):
        check()
    assert met == [1, 2]
