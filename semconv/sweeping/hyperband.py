"""Early termination by Hyperband (Li et al., 2018), as in W&B: a trial not among the best 1/eta at a bracket is stopped."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

LAST = 1e12  # a bracket that no run reaches


def brackets(given: Mapping[str, Any]) -> list[int]:
    """The brackets: the numbers of values of the metric before each decision.

    Args:
        given: `early_terminate` of a sweep: `min_iter` (the first bracket; each further one is eta times the previous), or
            `max_iter` and `s` (the end, and the number of brackets before it).

    Raises:
        ValueError: there is no bracket.
    """
    eta = given.get("eta", 3)
    if "max_iter" in given:
        found, bracket = [], float(given["max_iter"])
        for _ in range(int(given.get("s", 0))):
            bracket /= eta
            if bracket < 1:
                break
            found.append(int(bracket))
        found.sort()
    else:
        found, bracket = [], float(given.get("min_iter", 0))
        while len(found) < 100 and bracket < LAST:
            found.append(int(bracket))
            bracket *= eta
    if not found or found[0] < 1:
        raise ValueError("early_terminate has no bracket: give min_iter of 1 or more, or max_iter above eta and s of 1 or more")
    return found


def to_stop(
    histories: Mapping[str, Sequence[float]], running: Sequence[str], given: Mapping[str, Any], maximise: bool
) -> list[str]:
    """Select the running trials to stop.

    A trial is judged at the last bracket that it has passed: its best value so far, or with `strict` its value at that bracket as
    in the paper, is compared with the value that separates the best 1/eta of all trials at that bracket.

    Args:
        histories: every trial's values of the metric in their order, stopped and finished trials included.
        running: names of the running trials.
        given: `early_terminate` of the sweep.
        maximise: whether larger values are better.
    """
    values = {name: [-value if maximise else value for value in row if math.isfinite(value)] for name, row in histories.items()}
    stopped = []
    for name in running:
        own = values.get(name, [])
        passed = [bracket for bracket in brackets(given) if bracket <= len(own)]
        if not passed:
            continue
        reached = own[passed[-1] - 1] if given.get("strict") else min(own)
        if reached > _threshold(list(values.values()), passed[-1], given.get("eta", 3)):
            stopped.append(name)
    return stopped


def _threshold(rows: Sequence[Sequence[float]], bracket: int, eta: float) -> float:
    there = sorted(row[bracket - 1] for row in rows if len(row) >= bracket)
    return there[int(1 / eta * len(there))]
