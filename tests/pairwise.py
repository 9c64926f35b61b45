"""Small sets of settings in which every two values of two factors meet, and one case for many settings."""

import inspect
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


def together(names: str, settings: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """One case for all settings, where `pytest.mark.parametrize` makes a case of each: for checks of a millisecond.

    A failure shows the arguments of its setting, the first that fails.

    Args:
        names: of the test's arguments, comma-separated.
        settings: a value of the argument, or a tuple of values of several, for each run of the test.
    """
    wanted = names.replace(" ", "").split(",")
    runs = [dict(zip(wanted, [setting] if len(wanted) == 1 else setting, strict=True)) for setting in settings]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        def run(**others: Any) -> None:
            for setting in runs:
                test(**setting, **others)

        signature = inspect.signature(test)
        left = [parameter for name, parameter in signature.parameters.items() if name not in wanted]
        run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
        run.__dict__.update(test.__dict__)  # marks
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return run

    return decorate
