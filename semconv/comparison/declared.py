"""The factors and the family that a sweep declares."""

from collections.abc import Mapping
from typing import Any

from semconv.configuration import bare

# parameters of a sweep that identify a run and are no part of its protocol
NO_FACTORS = ("config", "c", "seed_everything", "experiment")


def factors_of(sweep: Mapping[str, Any]) -> list[str]:
    """The factors of a sweep in W&B's schema, as dotted keys without init_args.

    They are the parameters that it varies, and the words of the line `factors:` of its description, for keys that its configuration
    files vary.
    """
    parameters = sweep.get("parameters") or {}
    varied = [key for key, spec in parameters.items() if isinstance(spec, Mapping) and _varies(spec)]
    keys = [bare(key) for key in varied]
    return [key for key in keys if key.lstrip("-") not in NO_FACTORS] + _described(sweep, "factors")


def family_of(sweep: Mapping[str, Any]) -> list[str]:
    """The experiments that a sweep declares to be judged together: the lines `family:` of its description.

    W&B's schema takes no keys of ours; it keeps the description as it is.
    """
    return _described(sweep, "family")


def _described(sweep: Mapping[str, Any], key: str) -> list[str]:
    lines = str(sweep.get("description") or "").splitlines()
    return [word for line in lines if line.startswith(f"{key}:") for word in line.removeprefix(f"{key}:").split()]


def _varies(spec: Mapping[str, Any]) -> bool:
    return len(spec["values"]) > 1 if "values" in spec else "value" not in spec
