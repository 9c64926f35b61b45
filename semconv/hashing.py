"""Random numbers as a hash of what they are for.

Masks, crops, order and noise do not come from a generator with a state: a 64-bit key made of (seed, stream, epoch, index, ...)
is hashed with a counter. So an image has the same mask in the same epoch for every model, width, batch layout, worker count and
world size, on CPU and GPU alike, and a resumed run draws what the uninterrupted one would have drawn.

The hash is SplitMix64 (Steele, Lea & Flood, 2014) in int64 arithmetic, whose wrap-around equals that of uint64.
"""

import zlib

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64


def make_keys(*words: int | str | Tensor, device: torch.device | str | None = None) -> Tensor:
    """Fold words into 64-bit keys.

    Args:
        words: integers (below 2**63), names of streams, and integer tensors; tensors broadcast against each other.
        device: the key's device if no word is a tensor.

    Returns:
        int64 keys of the broadcast shape; a scalar if no word is a tensor.
    """
    key: int | Tensor = 0
    for word in words:
        if isinstance(word, str):
            word = zlib.crc32(word.encode())
        if isinstance(key, int) and isinstance(word, Tensor):  # plain integers, up to here, are much faster
            key = _as_tensor(key, word.device)
        key = _fold(key, word)
    return key if isinstance(key, Tensor) else _as_tensor(key, device)


def make_seed(*words: int | str) -> int:
    """The key of words that are no tensors, as a plain integer: a seed for a generator, for which no tensor is made."""
    key = 0
    for word in words:
        key = _fold_int(key, zlib.crc32(word.encode()) if isinstance(word, str) else word)
    return _signed(key)


def draw_number(*words: int | str) -> float:
    """The number in [0, 1) that `uniform(make_keys(*words), 1)` holds, for which no tensor is made."""
    return (_mix_int(make_seed(*words) + GOLDEN) >> 40) * 2.0**-24


def hash_words(keys: Tensor, count: int) -> Tensor:
    """The first `count` 64-bit words of each key's stream: int64, the shape of `keys` and then `count`."""
    counters = torch.arange(1, count + 1, device=keys.device)
    return _mix(keys[..., None] + counters * GOLDEN)


def uniform(keys: Tensor, count: int) -> Tensor:
    """`count` float32 numbers in [0, 1) per key, multiples of 2**-24: the shape of `keys` and then `count`."""
    return _shift_right(hash_words(keys, count), 40).float() * 2.0**-24


def normal(keys: Tensor, count: int) -> Tensor:
    """`count` float32 numbers of mean 0 and variance 1 per key: the shape of `keys` and then `count`.

    Each is a sum of twelve 16-bit uniform integers (Irwin-Hall): integer arithmetic, which gives the same bits on every device,
    while a Box-Muller transform would not. Their range is [-6, 6].
    """
    words = hash_words(keys, 3 * count).unflatten(-1, (count, 3))
    total = sum((_shift_right(words, shift) & 0xFFFF).sum(-1) for shift in (0, 16, 32, 48))
    return (torch.as_tensor(total) - 6 * 0xFFFF).float() * 2.0**-16


def permutation(keys: Tensor, count: int) -> Tensor:
    """A permutation of range(count) per key: int64, the shape of `keys` and then `count`."""
    return hash_words(keys, count).argsort(dim=-1, stable=True)


def _fold(key: int | Tensor, word: int | Tensor) -> int | Tensor:
    if isinstance(key, int) and isinstance(word, int):
        return _fold_int(key, word)
    state = torch.as_tensor(key)
    return _mix(_mix(state + GOLDEN) ^ word)


def _fold_int(key: int, word: int) -> int:
    return _mix_int(_mix_int(key + GOLDEN) ^ (word % 2**64))


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift_right(state, 30)) * FIRST
    state = (state ^ _shift_right(state, 27)) * SECOND
    return state ^ _shift_right(state, 31)


def _mix_int(state: int) -> int:
    """`_mix` for one integer from 0 to 2**64 - 1."""
    state %= 2**64
    state = (state ^ (state >> 30)) * FIRST % 2**64
    state = (state ^ (state >> 27)) * SECOND % 2**64
    return state ^ (state >> 31)


def _shift_right(state: Tensor, bits: int) -> Tensor:
    # torch shifts int64 arithmetically: clear the copies of the sign bit
    return (state >> bits) & (2 ** (64 - bits) - 1)


def _as_tensor(state: int, device: torch.device | str | None) -> Tensor:
    """The int64 scalar with the bits of an unsigned 64-bit integer; filled on the device, because a copy would wait for it."""
    return torch.full((), _signed(state), dtype=torch.int64, device=device)


def _signed(state: int) -> int:
    return state - 2**64 if state >= 2**63 else state
