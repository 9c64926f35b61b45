import numpy as np
import pytest
import torch

from semconv.hashing import draw_number, hash_words, make_keys, make_seed, normal, permutation, uniform


def splitmix64(state: int) -> int:
    """The published mixer, in Python's unbounded integers."""
    limit = 2**64
    state %= limit
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % limit
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % limit
    return state ^ (state >> 31)


def test_words_are_splitmix64():
    keys = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63)])
    ours = hash_words(keys, 4).numpy().astype(np.uint64)
    golden = 0x9E3779B97F4A7C15
    theirs = [[splitmix64(int(key) + golden * (i + 1)) for i in range(4)] for key in keys]
    np.testing.assert_array_equal(ours, np.array(theirs, dtype=np.uint64))


def test_splitmix64_matches_the_published_stream_of_seed_zero():
    # first outputs for seed 0 of Vigna's reference splitmix64.c
    first = hash_words(torch.tensor(0), 3).numpy().astype(np.uint64)
    assert [int(word) for word in first] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_keys_do_not_depend_on_the_batch_they_are_made_in():
    together = make_keys(3, "mask", 7, torch.arange(100))
    alone = torch.stack([make_keys(3, "mask", 7, torch.tensor(i)) for i in range(100)])
    assert torch.equal(together, alone)


def test_integers_and_tensors_make_the_same_keys():
    for seed in (0, 5, -3, 2**62):
        plain = make_keys(seed, "mask", 7, 9)
        assert torch.equal(plain, make_keys(torch.tensor(seed), "mask", torch.tensor(7), 9))
        assert make_seed(seed, "mask", 7, 9) == int(plain)
        assert draw_number(seed, "mask", 7, 9) == uniform(plain, 1).item()
        assert torch.equal(plain, make_keys(seed, "mask", 7, torch.tensor(9)))


def test_every_word_and_its_place_count():
    keys = [make_keys(1, 2), make_keys(2, 1), make_keys(1, 2, 0), make_keys("1", 2), make_keys(1, 3)]
    assert len({int(key) for key in keys}) == len(keys)


def test_keys_of_a_large_data_set_do_not_collide():
    keys = make_keys(0, "mask", torch.arange(20)[:, None], torch.arange(50_000)[None])
    assert keys.unique().numel() == 1_000_000


def test_uniform_fills_the_unit_interval_evenly():
    numbers = uniform(make_keys(0, torch.arange(1000)), 200)
    counts = torch.histc(numbers, bins=50, min=0, max=1)
    # chi-squared with 49 degrees of freedom: above 85 once in a thousand draws, and this draw is fixed
    assert ((counts - 4000) ** 2 / 4000).sum() < 85
    assert numbers.min() >= 0
    assert numbers.max() < 1


def test_neighbouring_keys_are_uncorrelated():
    numbers = uniform(make_keys(0, torch.arange(20_000)), 2)
    streams = torch.stack([numbers[:-1, 0], numbers[1:, 0], numbers[:-1, 1]])
    # standard error of a correlation of 20,000 pairs: .007
    assert (torch.corrcoef(streams) - torch.eye(3)).abs().max() < 0.03


def test_normal_has_the_moments_of_a_normal():
    numbers = normal(make_keys(0, torch.arange(1000)), 200).double()
    assert numbers.mean().abs() < 0.01
    assert (numbers.var() - 1).abs() < 0.01
    kurtosis = ((numbers - numbers.mean()) ** 4).mean() / numbers.var() ** 2
    assert abs(kurtosis - (3 - 0.1)) < 0.03  # the sum of twelve uniforms lacks 1.2 / 12 of it


def test_permutations_are_permutations_and_differ():
    orders = permutation(make_keys(0, torch.arange(50)), 64)
    assert torch.equal(orders.sort(-1).values, torch.arange(64).expand(50, 64))
    assert orders.unique(dim=0).shape[0] == 50


@pytest.mark.gpu
def test_bits_are_the_same_on_the_gpu():
    index = torch.arange(1000)
    for draw in (hash_words, uniform, normal, permutation):
        assert torch.equal(draw(make_keys(5, "s", index), 33), draw(make_keys(5, "s", index.cuda()), 33).cpu())
