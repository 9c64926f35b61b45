"""Points of a sweep: whether a run has the values of its point."""

from collections.abc import Mapping
from typing import Any

from semconv.configuration import bare
from semconv.tracking.facts import short_name
from semconv.yaml_files import parse_yaml

SHORT = ("config", "data", "seeds")  # options that stand for files, or for others
NOT_SAVED = ("runs", "resume", "pretrained", "ckpt_path", "weights_only")  # not in a run's configuration, or not as given
ABSENT = object()
OF_STUDY, NO_SETTING = "points", "only"  # a point of a study is a file: points/<setting>/<name>.yaml


def departure(config: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """The first parameter of a point that a run's configuration has another value of; empty if there is none.

    Parameters that a configuration does not have by their names, and values that are mappings, are not compared.
    """
    for name, value in point.items():
        found = ABSENT if name in (*SHORT, *NOT_SAVED) else _look_up(config, bare(name))
        if found is not ABSENT and not _holds(found, value):
            return f"{name} has no effect: the configuration has {found}, and the sweep says {value}"
    return ""


def _look_up(config: Mapping[str, Any], key: str) -> Any:
    """The value of a bare dotted key; of a class its name."""
    value: Any = config
    for part in key.split("."):
        if isinstance(value, Mapping) and "class_path" in value:
            value = value.get("init_args")
        if not isinstance(value, Mapping) or part not in value:
            return ABSENT
        value = value[part]
    return short_name(value) if isinstance(value, Mapping) and "class_path" in value else value


def _holds(found: Any, value: Any) -> bool:
    try:
        given = parse_yaml(value) if isinstance(value, str) else value
    except ValueError:
        given = value
    if isinstance(found, str):  # also the name of a class, which may be given with its module
        return str(value) in (found, short_name(found)) or str(value).rpartition(".")[2] == found or "<redacted" in found
    if isinstance(given, list) and isinstance(found, list | tuple):
        return len(given) == len(found) and all(map(_holds, found, given))
    return found == (None if given == "None" else given) or isinstance(given, Mapping | list) or isinstance(found, Mapping | list)
