"""The command line before it is parsed: what people and sweeps write, turned into what the parser takes. Imports no torch."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from semconv.configuration import bare, flatten, get, keys, one_line
from semconv.tracking.secrets import refuse_secret_interpolation

# values that must equal another, with the link in base.yaml; a different value is refused
FOLLOWS = {
    "data.init_args.seed": "${...seed_everything}",
    "model.init_args.seed": "${...seed_everything}",
    "model.init_args.image_size": "${...data.init_args.size}",
    "model.init_args.channels": "${...data.init_args.channels}",
    "model.init_args.batch_size": "${...data.init_args.batch_size}",
}
# values that equal another unless they are set: a patch may be larger than a cell
MAY_FOLLOW = {"model.init_args.objective.init_args.patch": "${...cell}"}


@dataclass(frozen=True)
class Option:
    """An option of the command line with its value; `value` is None where it has none."""

    name: str
    value: str | None = None
    joined: bool = False  # written with =

    @property
    def key(self) -> str:
        """What it sets, without init_args and class_path: `--model.init_args.size` and `--model.size` are one."""
        return bare(self.name.lstrip("-"))

    @property
    def is_config(self) -> bool:
        return self.name in ("-c", "--config")

    @property
    def words(self) -> list[str]:
        first, *inner = self.key.split(".")
        if self.value == "null" and first in ("model", "data") and len(inner) > 1:
            # below the first class, jsonargparse makes the text "None" of null; in a file it does not
            content: Any = None
            for name in reversed(inner):
                content = {"init_args": {name: content}}
            return ["-c", yaml.safe_dump({first: content})]
        if self.value is None:
            return [self.name]
        return [f"{self.name}={self.value}"] if self.joined else [self.name, self.value]


def prepare(arguments: list[str]) -> list[str]:
    """Arguments as the parser takes them: null for None, each class before its own arguments, followers relinked.

    Raises:
        ValueError: a file or a value asks for a secret of the environment.
    """
    options = [_relinked(option) if option.is_config else option for option in read(arguments)]
    for option in options:
        refuse_secret_interpolation(option.value or "", option.name)
    return [word for option in classes_first(options) for word in option.words]


def read(arguments: list[str]) -> Iterator[Option]:
    """Options with their values. A value `None` is null, as W&B's sweeps write it; `-c A.yaml,B.yaml` is `-c A.yaml -c B.yaml`."""
    words = list(arguments)
    while words:
        name, joined, value = words.pop(0).partition("=")
        if not joined and name.startswith("-") and words and not words[0].startswith("--") and words[0] != "-c":
            option = Option(name, _null(words.pop(0)))
        else:
            option = Option(name, _null(value) if joined else None, bool(joined))
        yield from _each_file(option)


def classes_first(options: list[Option]) -> list[Option]:
    """Options in their order, but arguments of a class after the class: given before, they would go to the class before."""
    ordered: list[Option] = []
    for option in options:
        chooses = option.value is not None and not option.value.startswith("{")
        waiting = [other for other in ordered if chooses and other.key.startswith(f"{option.key}.")]
        ordered = [other for other in ordered if other not in waiting] + [option, *waiting]
    return ordered


def follower_problem(config: Mapping[str, Any]) -> str | None:
    """What is wrong with a configuration in which a value does not agree with what it follows; None if all do."""
    for target, link in FOLLOWS.items():
        source = link.strip("${.}")
        follows, followed = get(config, target), get(config, source)
        if None not in (follows, followed) and _plain(follows) != _plain(followed):
            return (
                f"{bare(target)} is {_plain(follows)}, but follows {bare(source)}, which is {_plain(followed)}: "
                f"leave it out and give {bare(source)}"
            )
    return None


def links_in_force(arguments: list[str]) -> dict[str, str]:
    """The optional links that no later file or option replaces by a value: the link by dotted key."""
    values: dict[str, Any] = {}
    for option in read(arguments):
        values |= _values(option)
    return {target: link for target, link in MAY_FOLLOW.items() if values.get(bare(target)) == link}


def with_links(config: Mapping[str, Any], links: Mapping[str, str]) -> dict[str, Any]:
    """A configuration with links in place of the values at some dotted keys; a key that is absent stays absent."""
    linked = deepcopy(dict(config))
    for target, link in links.items():
        holder, _, name = target.rpartition(".")
        if name in (get(linked, holder) or {}):
            get(linked, holder)[name] = link
    return linked


def without(arguments: list[str], part: str) -> tuple[list[str], str | None]:
    """Arguments without the options and the keys of files that set `part`, and its whole key; None if nothing sets it."""
    rest: list[str] = []
    whole = None
    for option in read(arguments):
        content = _content(option) if option.is_config else None
        setting = [key for key in ([option.key] if content is None else keys(content)) if f".{part}." in f".{key}."]
        whole = setting[0] if setting else whole
        if content is not None:
            rest += ["-c", yaml.safe_dump(_pruned(content, part.partition(".")[0]))]
        elif not setting:
            rest += option.words
    return rest, whole


def _each_file(option: Option) -> list[Option]:
    """An option for each configuration file: a parameter of a sweep can name several in one value."""
    names = (option.value or "").split(",")
    if option.is_config and len(names) > 1 and all(name.endswith((".yaml", ".yml")) for name in names):
        return [replace(option, value=name.strip()) for name in names]
    return [option]


def _relinked(option: Option) -> Option:
    """A file with links in place of the values that equal what they must follow, such as the configuration of a finished run.

    So an override of the value that they follow reaches them too.
    """
    content = _content(option)
    if content is None:
        return option
    refuse_secret_interpolation(Path(option.value or "").read_text(encoding="utf-8"), str(option.value))
    agreeing = {
        target: link
        for target, link in FOLLOWS.items()
        if (followed := get(content, link.strip("${.}"))) is not None and get(content, target) == followed
    }
    return replace(option, value=yaml.safe_dump(with_links(content, agreeing), sort_keys=False)) if agreeing else option


def _values(option: Option) -> dict[str, Any]:
    """The values that an option sets, or the file that it names, by dotted key."""
    try:
        content = _content(option) if option.is_config else yaml.safe_load(option.value or "")
    except yaml.YAMLError:
        content = option.value
    return {bare(key): value for key, value in flatten(content, "" if option.is_config else option.key).items()}


def _content(option: Option) -> dict[str, Any] | None:
    """What a configuration file holds; None where there is none, which the parser says better.

    Raises:
        ValueError: it is no YAML.
    """
    try:
        content = yaml.safe_load(Path(option.value or "").read_text(encoding="utf-8"))
    except OSError:
        return None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{option.value} is not valid YAML: {one_line(error)}") from error
    return content if isinstance(content, dict) else None


def _pruned(content: Any, name: str) -> Any:
    if isinstance(content, dict):
        return {key: _pruned(value, name) for key, value in content.items() if key != name}
    return content


def _null(value: str) -> str:
    return "null" if value == "None" else value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
