"""The distributions of W&B sweeps, as quantile functions of a share in (0, 1)."""

import math
from collections.abc import Callable, Iterator, Mapping
from statistics import NormalDist
from typing import Any

from semconv.configuration import is_number

Spec = Mapping[str, Any]  # a parameter of a sweep file
SHARES = 1e-9, 1 - 1e-9  # the smallest and the largest share that is drawn
EXTENT = ("min", "max")
# the required keys of each distribution, and the optional ones with their defaults
NEEDS: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {
    "constant": (("value",), {}),
    "categorical": (("values",), {}),
    "categorical_w_probabilities": (("values", "probabilities"), {}),
    "int_uniform": (EXTENT, {}),
    "uniform": (EXTENT, {}),
    "q_uniform": (EXTENT, {"q": 1.0}),
    "log_uniform": (EXTENT, {}),
    "log_uniform_values": (EXTENT, {}),
    "q_log_uniform": (EXTENT, {"q": 1.0}),
    "q_log_uniform_values": (EXTENT, {"q": 1.0}),
    "inv_log_uniform": (EXTENT, {}),
    "inv_log_uniform_values": (EXTENT, {}),
    "normal": ((), {"mu": 0.0, "sigma": 1.0}),
    "q_normal": ((), {"mu": 0.0, "sigma": 1.0, "q": 1.0}),
    "log_normal": ((), {"mu": 0.0, "sigma": 1.0}),
    "q_log_normal": ((), {"mu": 0.0, "sigma": 1.0, "q": 1.0}),
    "beta": ((), {"a": 1.0, "b": 1.0}),
    "q_beta": ((), {"a": 1.0, "b": 1.0, "q": 1.0}),
}
# distributions whose ends are logarithms, and those of the ends themselves
HINTS = {name: f"{name}_values" for name in ("log_uniform", "q_log_uniform", "inv_log_uniform")}


def distribution(spec: Spec) -> str:
    """The distribution of a parameter: the one that it names, else the one that W&B infers from its keys."""
    if "distribution" in spec:
        return str(spec["distribution"])
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical_w_probabilities" if "probabilities" in spec else "categorical"
    return "int_uniform" if all(_is_int(spec.get(name)) for name in EXTENT) else "uniform"


def problem(spec: Spec) -> str | None:
    """The error in a parameter; None if there is none."""
    name = distribution(spec)
    if name not in NEEDS:
        return f"there is no distribution {name}: take one of {', '.join(NEEDS)}"
    needed, optional = NEEDS[name]
    if missing := [key for key in needed if key not in spec]:
        return f"{name} needs {' and '.join(missing)}"
    if unknown := [key for key in spec if key not in (*needed, *optional, "distribution")]:
        return f"{name} has no {unknown[0]}: it takes {', '.join((*needed, *optional)) or 'nothing'}"
    if "values" in needed and not (isinstance(spec["values"], list) and spec["values"]):
        return "values is not a list with at least one value"
    if "probabilities" in needed:
        return _probability_problem(spec)
    numbers = {**optional, **{key: spec[key] for key in spec if key not in ("distribution", "value", "values")}}
    return _number_problem(name, numbers) or _end_problem(name, spec)


def quantile(spec: Spec) -> Callable[[float], Any]:
    """The quantile function of a parameter: from a share in (0, 1) to a value, a plain int or float where it is a number."""
    name = distribution(spec)
    given = {**NEEDS[name][1], **spec}
    if name == "constant":
        return lambda share: given["value"]
    if name == "categorical":
        return lambda share: given["values"][_place(share, len(given["values"]))]
    if name == "categorical_w_probabilities":
        return lambda share: given["values"][_weighted(share, given["probabilities"])]
    if name == "int_uniform":
        return lambda share: given["min"] + _place(share, given["max"] - given["min"] + 1)
    continuous = _continuous(name.removeprefix("q_"), given)
    if not name.startswith("q_"):
        return continuous
    step = given["q"]
    return lambda share: _plain(round(continuous(share) / step) * step, step)


def grid_values(spec: Spec) -> list[Any] | None:
    """All values of a parameter with finitely many values, as in W&B's grids; None for other parameters."""
    name = distribution(spec)
    if name == "constant":
        return [spec["value"]]
    if name == "categorical":
        return list(spec["values"])
    if name == "int_uniform":
        return list(range(spec["min"], spec["max"] + 1))
    if name == "q_uniform":
        low, high, step = spec["min"], spec["max"], spec.get("q", 1.0)
        return [low + i * step for i in range(math.ceil((high - low) / step))]
    return None


def grid_size(spec: Spec) -> int | None:
    """The number of values that `grid_values` would list."""
    match distribution(spec):
        case "int_uniform":
            return spec["max"] - spec["min"] + 1
        case "q_uniform":
            return math.ceil((spec["max"] - spec["min"]) / spec.get("q", 1.0))
    values = grid_values(spec)
    return None if values is None else len(values)


def all_values(spec: Spec) -> Iterator[Any]:
    """The values that a parameter lists."""
    if "value" in spec:
        yield spec["value"]
    yield from spec.get("values") or []


def _continuous(name: str, given: Spec) -> Callable[[float], float]:
    match name:
        case "uniform":
            return _uniform(given["min"], given["max"])
        case "log_uniform":
            return _exp(_uniform(given["min"], given["max"]))
        case "log_uniform_values":
            return _exp(_uniform(math.log(given["min"]), math.log(given["max"])))
        case "inv_log_uniform":  # 1/x is log-uniform
            return _exp(_uniform(-given["max"], -given["min"]))
        case "inv_log_uniform_values":
            return _exp(_uniform(math.log(given["min"]), math.log(given["max"])))
        case "normal":
            return _normal(given)
        case "log_normal":
            return _exp(_normal(given))
        case _:
            return lambda share: float(_inverse_beta()(given["a"], given["b"], share))


def _uniform(low: float, high: float) -> Callable[[float], float]:
    return lambda share: low + (high - low) * share


def _exp(inner: Callable[[float], float]) -> Callable[[float], float]:
    return lambda share: math.exp(inner(share))


def _normal(given: Spec) -> Callable[[float], float]:
    return lambda share: given["mu"] + given["sigma"] * NormalDist().inv_cdf(share)


def _inverse_beta() -> Callable[..., Any]:
    from scipy.special import betaincinv

    return betaincinv


def _place(share: float, count: int) -> int:
    return min(max(math.ceil(share * count) - 1, 0), count - 1)


def _weighted(share: float, probabilities: list[float]) -> int:
    total = 0.0
    for i, probability in enumerate(probabilities):
        total += probability
        if share < total:
            return i
    return max(i for i, probability in enumerate(probabilities) if probability > 0)


def _plain(value: float, step: float) -> float:
    return int(value) if _is_int(step) else float(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _probability_problem(spec: Spec) -> str | None:
    probabilities = spec["probabilities"]
    if not isinstance(probabilities, list) or len(probabilities) != len(spec["values"]):
        return f"{len(spec['values'])} values need as many probabilities"
    if not all(is_number(share) and share >= 0 for share in probabilities) or abs(sum(probabilities) - 1) > 1e-5:
        return f"probabilities {probabilities} are not shares that add up to 1"
    return None


def _number_problem(name: str, given: Spec) -> str | None:
    for key, value in given.items():
        if not is_number(value) or (name == "int_uniform" and not _is_int(value)):
            return f"{key} is {value!r}: give a {'whole ' if name == 'int_uniform' else ''}number"
    if "min" in given and given["min"] >= given["max"]:
        return f"min {given['min']} is not below max {given['max']}"
    if name.endswith("_values") and given["min"] <= 0:
        return f"min is {given['min']}, which has no logarithm: give it above 0"
    if given.get("q", 1) <= 0 or any(given.get(key, 1) < 0 for key in ("sigma", "a", "b")):
        return f"{name} needs q above 0, and sigma, a and b of 0 or more"
    return None


def _end_problem(name: str, spec: Spec) -> str | None:
    """The error in a distribution whose smallest or largest draws are no numbers of a computer."""
    if name in ("constant", "categorical", "int_uniform"):
        return None
    try:
        drawn = [quantile(spec)(share) for share in SHARES]
        fits = all(map(math.isfinite, drawn)) and (drawn[0] > 0 or "log" not in name or name.startswith("q_"))
    except (OverflowError, ValueError):
        fits = False
    if fits:
        return None
    ends = ", ".join(f"{key} {value}" for key, value in spec.items() if key != "distribution")
    if name in HINTS:
        return (
            f"{name} takes the natural logarithm of the ends, and {ends} give no number: give the ends themselves, by {HINTS[name]}"
        )
    return f"{name} with {ends} draws values that are too large or too small: give a narrower one"
