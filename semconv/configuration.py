"""Nested configurations: dotted keys, links, nearest names; and errors in one line. Imports no torch."""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeGuard, get_args

BUDGET = ("trainer.max_steps", "trainer.max_epochs")


def get(config: Mapping[str, Any], key: str) -> Any:
    """Look up a dotted key; None if it is absent."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key, with the mappings above it; a value above it is the name of the class that has the key."""
    *above, last = key.split(".")
    for name in above:
        if not isinstance(config.setdefault(name, {}), dict):
            config[name] = {"class_path": config[name]}
        config = config[name]
    config[last] = value


def bare(key: str) -> str:
    """Remove init_args and class_path from a dotted key."""
    return ".".join(part for part in key.split(".") if part not in ("init_args", "class_path"))


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Map dotted keys to values, as on the command line: a class has its own key, its arguments the keys below; None is omitted.

    A class of semconv is its name; one of others keeps its module, since it may have the name of one of semconv's.
    """
    if isinstance(config, Mapping):
        if "class_path" in config:
            below = flatten(config.get("init_args") or {}, prefix)
            path = str(config["class_path"])
            return {prefix: path.rpartition(".")[2] if path.startswith("semconv.") else path, **below}
        parts = (flatten(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in config.items())
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(config, list | tuple) and any(isinstance(value, Mapping) for value in config):
        return {prefix: "+".join(_written(value) for value in config)}
    if config is None:
        return {}
    return {prefix: config if isinstance(config, str | int | float | bool) else json.dumps(config, default=str)}


def require(name: str, value: float, low: float = -math.inf, high: float = math.inf, exclude: str = "") -> None:
    """Refuse a number outside a range, and one that is not finite.

    Args:
        name: of the argument, for the message.
        value: the number.
        low: least value.
        high: largest value.
        exclude: the ends that are no values themselves: `low`, `high` or `low high`.

    Raises:
        ValueError: it is outside.
    """
    fits = (value > low if "low" in exclude else value >= low) and (value < high if "high" in exclude else value <= high)
    if not math.isfinite(value) or not fits:
        lower = f"above {low:.10g}" if "low" in exclude else f"of {low:.10g} or more"
        upper = f"below {high:.10g}" if "high" in exclude else f"at most {high:.10g}"
        wanted = " and ".join(text for text, end in ((lower, low), (upper, high)) if math.isfinite(end)) or "that is finite"
        raise ValueError(f"{name} is {value}: give a number {wanted}")


def is_number(value: Any) -> TypeGuard[int | float]:
    """True for a finite number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def require_choice(name: str, value: str, choices: Any) -> None:
    """Refuse a word that is none of a `Literal` type.

    Args:
        name: of the argument, for the message.
        value: the word.
        choices: the type.

    Raises:
        ValueError: it is another word.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name} is {value!r}: choose among {', '.join(get_args(choices))}")


def epochs_lifted(levels: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether `trainer.max_steps`, given after `trainer.max_epochs` and without it, is the whole budget.

    Args:
        levels: values by dotted key, each level counting above those before it.
    """
    steps, epochs = ([number for number, values in enumerate(levels) if values.get(key) not in (None, -1)] for key in BUDGET)
    return bool(steps and epochs) and steps[-1] > epochs[-1]


def no_class(config: Any, prefix: str = "") -> tuple[str, str] | None:
    """The first class path of a parsed configuration that names something else, with its key: a function would be called.

    Args:
        config: mappings, lists and values. What the parser has not imported is called by nobody.
        prefix: dotted key of `config`.
    """
    if isinstance(config, Mapping) and isinstance(path := config.get("class_path"), str):
        found_object = imported(path)
        if found_object is not None and not isinstance(found_object, type):
            return bare(prefix), path
    pairs = config.items() if isinstance(config, Mapping) else enumerate(config) if isinstance(config, list | tuple) else ()
    return next((found for key, value in pairs if (found := no_class(value, f"{prefix}.{key}".strip(".")))), None)


def imported(path: str) -> Any:
    """The object of a dotted name, without importing anything; None if its module is not imported."""
    above, _, name = path.rpartition(".")
    module, _, outer = above.rpartition(".")
    return getattr(sys.modules.get(above) or getattr(sys.modules.get(module), outer or "-", None), name, None)


def not_finite(config: Any, prefix: str = "") -> tuple[str, float] | None:
    """The first number of a nested configuration that is not finite, with its dotted key; None if all are."""
    pairs = config.items() if isinstance(config, Mapping) else enumerate(config) if isinstance(config, list | tuple) else ()
    for key, value in pairs:
        name = bare(f"{prefix}.{key}".strip("."))
        if isinstance(value, float) and not math.isfinite(value):
            return name, value
        if (found := not_finite(value, name)) is not None:
            return found
    return None


def resolve_links(config: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the relative links of a configuration, such as `${...cell}`, by the values that they name.

    One dot means the link's own node, and each further dot the node above, as in OmegaConf. Nothing else is resolved, so that
    somebody else's configuration cannot read environment variables.
    """

    def resolve(value: Any, above: list[Mapping[str, Any]]) -> Any:
        if isinstance(value, Mapping):
            return {key: resolve(inner, [value, *above]) for key, inner in value.items()}
        link = re.fullmatch(r"\$\{(\.+)([\w.]+)\}", value) if isinstance(value, str) else None
        return get(above[len(link[1]) - 1], link[2]) if link and len(link[1]) <= len(above) else value

    return resolve(config, [])


def nearest(name: str, names: list[str]) -> str | None:
    """Find the most similar of some names; None if no name is similar."""
    found = get_close_matches(name, names, n=1, cutoff=0.6)
    return found[0] if found else None


def one_line(error: Exception, limit: int | None = None) -> str:
    """The message of an error on one line, without its last full stop; its class if there is no message.

    Args:
        error: any exception.
        limit: characters at most.
    """
    return " ".join(str(error).split())[:limit].rstrip(".") or type(error).__name__


def _written(value: Any) -> str:
    flat = flatten(value)
    name = flat.pop("", "")
    return f"{name}({', '.join(f'{key}={inner}' for key, inner in flat.items())})" if flat else str(name)
