"""Small sets of settings in which every two values of two factors meet."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, product
from typing import Any

Setting = tuple[Any, ...]


def always(*_: Any) -> bool:
    return True


def pairs_of(setting: Sequence[int]) -> set[tuple[tuple[int, int], ...]]:
    """Every two factors of a setting with their values, each as (factor, number of its value)."""
    return set(combinations(enumerate(setting), 2))


def pairwise(*factors: Iterable[Any], allowed: Callable[..., bool] = always) -> list[Setting]:
    """All pairs of values that occur in an allowed setting, in few settings: greedily, and always the same ones.

    Args:
        factors: the values of each factor; at least two factors.
        allowed: whether a setting, its values as arguments, may be chosen.
    """
    values = [list(factor) for factor in factors]
    numbers = product(*(range(len(factor)) for factor in values))
    left = {one: pairs_of(one) for one in numbers if allowed(*(factor[i] for factor, i in zip(values, one, strict=True)))}
    missing = set().union(*left.values())
    chosen: list[Setting] = []
    while missing:
        best = max(left, key=lambda one: len(left[one] & missing))
        missing -= left.pop(best)
        chosen.append(tuple(factor[i] for factor, i in zip(values, best, strict=True)))
    return chosen
