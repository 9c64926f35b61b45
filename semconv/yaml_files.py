"""YAML as researchers write it: 1e-3 is a number, no key stands twice, and nothing refers to itself. Imports no torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

DEEPEST, MOST = 50, 100_000  # levels, and values once aliases are followed
FIRST = list("-+.0123456789")
FLOAT = "tag:yaml.org,2002:float"
EXPONENT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.[\d_]+)[eE][-+]?\d+$")  # YAML 1.1 takes 1e-3 and 1.0e5 for text
OTHERS = ("binary", "omap", "pairs", "set", "timestamp")  # types that no configuration has


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        found = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is no text: give each key a name", problem_mark=key.start_mark)
            if (key.tag, str(key.value)) in found:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice: leave one out", problem_mark=key.start_mark)
            found.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (LookupError, ValueError, ArithmeticError) as error:  # text that its tag does not fit, or a number without end
            said = f"{str(node.value)[:60]} is no {node.tag.rpartition(':')[2]}: correct it, or write it in quotes"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark) from error


class _Dumper(yaml.SafeDumper):
    pass


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith("timestamp")]
    for letter, resolvers in _Loader.yaml_implicit_resolvers.items()
}
for kind in OTHERS:
    _Loader.add_constructor(f"tag:yaml.org,2002:{kind}", _Loader.construct_undefined)
for each in (_Loader, _Dumper):  # a text such as "1e-3" is written in quotes, so that it stays one
    each.add_implicit_resolver(FLOAT, EXPONENT, FIRST)


def parse_yaml(text: str) -> Any:
    """Parse YAML.

    Raises:
        ValueError: it is not valid, repeats a key, or is deeper or larger than any configuration.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):  # by events: a parser that recurses would not survive a deep file
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                break
        else:
            value = yaml.load(text, Loader=_Loader)
            if _fits(value, DEEPEST, [MOST]):
                return value
    except yaml.YAMLError as error:
        raise ValueError(_reason(error)) from error
    raise ValueError(f"it has more than {DEEPEST} levels or {MOST:,} values, or refers to itself: write it out")


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        ValueError: it is not valid; see `parse_yaml`.
        OSError: it cannot be read.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid YAML: it is no UTF-8 text") from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error


def to_yaml(value: Any) -> str:
    """Write plain values as YAML, in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def _fits(value: Any, levels: int, left: list[int]) -> bool:
    left[0] -= 1
    if levels < 0 or left[0] < 0:
        return False
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return all(_fits(each, levels - 1, left) for each in inner)


def _reason(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    said = " ".join((problem or str(error)).split()).replace("\0", "")
    return f"line {mark.line + 1}: {said}" if mark else said
