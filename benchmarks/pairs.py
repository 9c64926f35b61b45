"""Measurements that take turns, and the ratios and slopes that they allow.

The speed of a machine changes by tens of per cent within minutes, so times that were taken one after the other do not compare. Here
all contestants are measured in turns, A B B A A B, and a ratio is the median over the pairs of each round. `ratio` refuses values
that were not taken in the same turns.
"""

import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import uuid4


class Turns(NamedTuple):
    """Values of one contestant, by round."""

    name: str
    session: str  # of the call of `alternate`
    places: tuple[int, ...]  # among all turns of the session
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> "Turns":
        """Turns, as JSON keeps them."""
        return cls(written["name"], written["session"], tuple(written["places"]), tuple(written["values"]))


class Spread(NamedTuple):
    """Median and quartiles over rounds."""

    median: float
    low: float
    high: float
    n: int  # rounds


def alternate(contestants: Mapping[str, Callable[[], float]], rounds: int, warmup: int = 1) -> dict[str, Turns]:
    """Measure all contestants in turns: in the given order and, every other round, in the opposite one.

    Args:
        contestants: what measures one of them, by name: seconds, bytes, or any other number above 0.
        rounds: number of rounds.
        warmup: rounds before them, whose values are left out.
    """
    session, place = f"{os.getpid()}-{uuid4().hex}", 0
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in contestants}
    for number in range(warmup + rounds):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            value = contestants[name]()
            if number >= warmup:
                found[name].append((place, value))
            place += 1
    return {name: Turns(name, session, *zip(*turns, strict=True)) for name, turns in found.items()}


def ratio(one: Turns, other: Turns) -> Spread:
    """The values of one over those of another.

    Raises:
        ValueError: they were not measured in turns.
    """
    return _spread([own / theirs for own, theirs in _rounds([one, other])])


def slopes(grid: Mapping[int, Turns]) -> Spread:
    """The exponents of the power laws that each round over a grid of sizes gives.

    Args:
        grid: turns by size.

    Raises:
        ValueError: they were not measured in turns.
    """
    return _spread([slope(list(grid), values) for values in _rounds(list(grid.values()))])


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The exponent of a power law: least squares of log value on log size."""
    return statistics.linear_regression([math.log(size) for size in sizes], [math.log(value) for value in values]).slope


def fastest(contestants: Iterable[Turns]) -> Turns:
    """The contestant of the smallest median."""
    return min(contestants, key=lambda turns: turns.median)


def _rounds(contestants: Sequence[Turns]) -> list[tuple[float, ...]]:
    """The values of all contestants by round."""
    names = " and ".join(turns.name for turns in contestants)
    if len({turns.session for turns in contestants}) > 1:
        raise ValueError(f"{names} were measured in different sessions: a ratio needs turns of one session")
    places = list(zip(*(turns.places for turns in contestants), strict=True))
    if any(max(earlier) > min(later) for earlier, later in pairwise(places)):
        raise ValueError(f"{names} were measured one after the other: a ratio needs turns")
    return list(zip(*(turns.values for turns in contestants), strict=True))


def _spread(values: Sequence[float]) -> Spread:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    return Spread(median, low, high, len(values))
