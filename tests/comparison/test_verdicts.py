# mypy: disable-error-code="operator"
import numpy as np
import pytest

from semconv.comparison.declared import WIDE, Looks
from semconv.comparison.statistics import ALPHA, seeds_needed
from semconv.comparison.verdicts import CANDIDATE, PLAIN, gather, judge
from semconv.metrics import RECONSTRUCTION, REPRESENTATION

NOISE = np.array([0.011, -0.007, 0.002, 0.009, -0.004, -0.008, 0.006, -0.003, 0.001, 0.005])


def seeds(mean, spread=0.001, n=5, shift=0):
    """Values by seed about a mean, in the order of NOISE moved on by `shift`."""
    return {seed: float(mean + spread * 100 * NOISE[(seed + shift) % 10]) for seed in range(n)}


def verdict(ours, plain, zero=None, shuffled=None, wide=None, **settings):
    """The verdict by linear top-1, where others are plain unless they are given."""
    others = {PLAIN: plain, "zero": zero or plain, "shuffled": shuffled or plain, WIDE: wide or plain}
    (found,) = judge([gather(REPRESENTATION, ours, others, **settings)])
    return found


def test_a_lower_error_is_a_gain_of_as_much():
    found = gather(RECONSTRUCTION, {0: 0.4, 1: 0.5}, {PLAIN: {0: 0.5, 1: 0.7}, "zero": {0: 0.3, 1: 0.4}})
    assert found.against[PLAIN].difference == pytest.approx(0.15)
    assert found.against["zero"].difference == pytest.approx(-0.1)
    assert found.margin == pytest.approx(0.01 * 0.6)


def test_it_has_to_win_every_comparison():
    low, high = seeds(0.5, shift=1), seeds(0.7, shift=2)
    winning = verdict(seeds(0.6), low)
    assert (winning.word, winning.text, winning.seeds) == ("beneficial", "beneficial", None)
    for name in ("zero", "shuffled", "wide"):
        lost = verdict(seeds(0.6), low, **{name: high})
        assert lost.word == "inconclusive"
        assert lost.hardest == {"wide": WIDE}.get(name, name)
        assert lost.reason.startswith(f"does not beat {lost.hardest}")


def test_worse_than_plain_is_harmful_whatever_the_rest():
    found = verdict(seeds(0.5), seeds(0.6, shift=1), zero=seeds(0.4), wide=seeds(0.4))
    assert (found.word, found.hardest) == ("harmful", PLAIN)
    assert found.p < ALPHA


def test_a_small_gain_or_loss_is_negligible_by_the_declared_share_of_the_margin():
    gain = seeds(0.5, 1e-5)
    plain = {seed: value - 0.003 for seed, value in seeds(0.5, 1e-5, shift=1).items()}  # the margin is .005
    assert verdict(gain, plain).text == "beneficial, but negligible"
    assert verdict(gain, plain, negligible=0.5).text == "beneficial"
    assert verdict(plain, gain).text == "harmful, but negligible"
    evidence = gather(REPRESENTATION, gain, {PLAIN: plain, "zero": plain})
    (exact,) = judge([evidence._replace(negligible=evidence.against[PLAIN].difference)])
    assert exact.negligible
    assert "the margin is 0.005" in verdict(plain, gain).reason


def test_plain_itself_is_equivalent():
    found = verdict(seeds(0.5, 1e-4), seeds(0.5, 1e-4, shift=1))
    assert found.word == "equivalent"


@pytest.mark.parametrize(
    ("plain", "word"), [(seeds(0.45, 0.003, shift=3), "beneficial"), (seeds(0.55, 0.003, shift=3), "harmful"), (None, "equivalent")]
)
def test_every_word_is_corrected_over_the_family(plain, word):
    ours = seeds(0.5, 0.003)
    others = dict.fromkeys((PLAIN, "zero", "shuffled", WIDE), plain or {seed: value + 1e-4 for seed, value in ours.items()})
    evidence = gather(REPRESENTATION, ours, others)
    alone = judge([evidence])[0]
    assert alone.word == word
    p = getattr(evidence.p, word)
    padding = [gather(REPRESENTATION, {0: 0.1}, {PLAIN: {1: 0.1}})] * 9
    assert judge([evidence, *padding])[0].p == pytest.approx(min(10 * p, 1)) or judge([evidence, *padding])[0].word != word
    many = judge([evidence, *padding * int(ALPHA / max(p, 1e-5) + 2)])[0] if p > 1e-5 else None
    assert many is None or many.word != word


def test_beneficial_is_said_only_where_the_interval_leaves_zero_out():
    generator = np.random.default_rng(0)
    words = set()
    for _ in range(200):
        plain = dict(enumerate(generator.normal(0.5, 0.01, 5)))
        found = gather(REPRESENTATION, dict(enumerate(generator.normal(0.512, 0.01, 5))), {PLAIN: plain})
        word = judge([found])[0].word
        words.add(word)
        assert (word == "beneficial") == (found.against[PLAIN].low > 0)
        assert (word == "harmful") == (found.against[PLAIN].high < 0)
    assert {"beneficial", "inconclusive"} <= words


def test_two_seeds_give_no_verdict_however_equal_their_differences():
    found = verdict({0: 0.6, 1: 0.61}, {0: 0.5, 1: 0.51})
    assert (found.word, found.p, found.reason) == ("inconclusive", None, "a verdict takes at least 3 seeds")


def test_rounded_values_count_as_no_more_exact_than_they_are():
    # three equal differences of one image in a hundred
    accuracy = REPRESENTATION._replace(resolution=0.01)
    found = gather(accuracy, {0: 0.36, 1: 0.37, 2: 0.36}, {PLAIN: {0: 0.35, 1: 0.36, 2: 0.35}})
    assert judge([found])[0].word == "inconclusive"
    assert found.against[PLAIN].effect == pytest.approx(1)


def test_comparisons_are_over_the_seeds_that_all_networks_have():
    plain, ours = seeds(0.5, shift=1), seeds(0.6)
    zero = {seed: value for seed, value in plain.items() if seed != 3}
    found = verdict({seed: value for seed, value in ours.items() if seed != 1}, plain, zero=zero, lost={CANDIDATE: [1]})
    assert found.word == "beneficial"
    assert found.reason.endswith("; it lacks seed 1; zero lacks seed 3")
    evidence = gather(REPRESENTATION, ours, {PLAIN: plain, "zero": zero})
    assert {each.n for each in evidence.against.values()} == {4}
    apart = verdict({0: 0.9, 1: 0.9, 2: 0.9}, {3: 0.5, 4: 0.5, 5: 0.5})
    assert apart.reason.startswith("no seed that all networks have; plain lacks seeds 0, 1, 2; zero lacks seeds 0, 1, 2")


def test_a_control_that_was_lost_wholly_blocks_no_comparison_with_plain():
    worse = verdict(seeds(0.5), seeds(0.6, shift=1), zero={7: 0.5})
    assert worse.word == "harmful"
    better = verdict(seeds(0.6), seeds(0.5, shift=1), zero={7: 0.5})
    assert (better.word, better.reason.startswith("not compared with zero")) == ("inconclusive", True)
    ours, plain = ({10 + seed: value for seed, value in each.items()} for each in (seeds(0.5), seeds(0.6, shift=1)))
    for zero in (seeds(0.5), {20: 0.5}):  # lower seeds are no seeds of the look, either
        assert verdict(ours, plain, zero=zero, shuffled=plain, wide=plain, looks=Looks.of([5, 10])).word == "harmful"


def test_a_lost_seed_does_not_move_the_looks():
    looks = Looks.of([4, 8])
    ours, plain = seeds(0.6, n=8), seeds(0.5, n=8, shift=1)
    without = {PLAIN: {seed: value for seed, value in plain.items() if seed != 2}}
    found = gather(REPRESENTATION, ours, without, looks=looks, lost={PLAIN: [2]})
    assert (found.against[PLAIN].n, found.next_look) == (7, None)
    first = gather(REPRESENTATION, ours, {PLAIN: plain}, looks=looks, num_looks=1)
    assert first.against[PLAIN].n == 4
    (named,) = judge([first])
    assert named.reason.endswith("not used, as later than the look: seeds 4, 5, 6, 7")


def test_a_look_waits_for_the_run_of_each_of_its_seeds():
    looks = Looks.of([4, 8])
    ours, plain = seeds(0.6, n=8), seeds(0.5, n=8, shift=1)
    first = gather(REPRESENTATION, ours, {PLAIN: plain}, looks=looks, num_looks=1)

    def beside(*others):
        zero = {seed: plain.get(seed, 0.5) for seed in others}
        return gather(REPRESENTATION, ours, {PLAIN: plain, "zero": zero}, looks=looks)

    for others in ((0, 1, 2, 3), (0, 1, 2, 3, 4, 5, 6), (0, 1, 2, 3, 4, 5, 6, 8)):
        assert (beside(*others).against[PLAIN], beside(*others).next_look) == (first.against[PLAIN], 8)
    for lacking in ((0, 1, 3), (0, 1, 3, 4, 5, 6, 7, 8), (4, 5, 6, 7)):  # as many runs are not those of the look
        assert (beside(*lacking).reached, beside(*lacking).next_look, judge([beside(*lacking)])[0].word) == (
            False,
            4,
            "inconclusive",
        )


def test_what_was_not_run_is_named_and_leaves_harmful_and_equivalent_possible():
    better = verdict(seeds(0.6), seeds(0.5, shift=1), missing=["shuffled", WIDE])
    assert (better.word, better.p, better.reason) == ("inconclusive", None, "not compared with shuffled and plain_wide")
    assert verdict(seeds(0.5), seeds(0.6, shift=1), missing=["shuffled"]).word == "harmful"


def test_an_refusal_refuses_every_verdict():
    for ours in (seeds(0.6), seeds(0.4)):
        found = verdict(ours, seeds(0.5, shift=1), refuse=lambda seeds: "does not beat its untrained self")
        assert (found.word, found.p, found.reason) == ("inconclusive", None, "does not beat its untrained self")


def test_a_refusal_is_asked_for_the_seeds_of_the_look():
    ours, plain = seeds(0.6, n=8), seeds(0.5, n=8, shift=1)
    for number, asked in ((1, "[0, 1, 2, 3]"), (2, "[0, 1, 2, 3, 4, 5, 6, 7]")):
        found = gather(REPRESENTATION, ours, {PLAIN: plain}, refuse=str, looks=Looks.of([4, 8]), num_looks=number)
        assert found.refusal == asked


def test_an_inconclusive_result_says_how_many_seeds_would_settle_it():
    noise = NOISE[:4]
    differences = (noise - noise.mean()) / noise.std(ddof=1) * 0.01 + 0.008  # d_z .8 exactly
    plain = dict.fromkeys(range(4), 0.5)
    found = verdict({seed: 0.5 + difference for seed, difference in enumerate(differences)}, plain)
    assert found.word == "inconclusive"
    assert found.seeds == seeds_needed(0.8)
    assert f"{found.seeds} seeds" in found.reason


def test_a_plan_judges_at_its_looks_by_stricter_levels():
    looks = Looks.of([4, 8])
    ours, plain = seeds(0.6, 0.02, n=10), seeds(0.5, 0.02, n=10, shift=3)

    def at(n):
        return gather(
            REPRESENTATION,
            {s: v for s, v in ours.items() if s < n},
            {PLAIN: {s: v for s, v in plain.items() if s < n}},
            looks=looks,
        )

    assert at(3).p.beneficial == 1
    assert (at(3).next_look, at(5).next_look, at(9).next_look) == (4, 8, None)
    assert {n: at(n).against[PLAIN].n for n in (4, 7, 8, 10)} == {4: 4, 7: 4, 8: 8, 10: 8}
    once = gather(REPRESENTATION, {s: v for s, v in ours.items() if s < 4}, {PLAIN: plain})
    assert at(4).p.beneficial > once.p.beneficial
    assert at(4).against[PLAIN].high - at(4).against[PLAIN].low > once.against[PLAIN].high - once.against[PLAIN].low
    assert judge([at(10)])[0].word == "beneficial"
    assert judge([at(4)] * 5)[0].reason.startswith("next look at 8 seeds")
