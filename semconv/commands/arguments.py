"""The command line before parsing: the notation of users and sweeps, converted to that of the parser. Imports no torch."""

import os
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from semconv.configuration import bare, epochs_lifted, flatten, get
from semconv.shipped import find
from semconv.tracking.secrets import refuse_secret_interpolation
from semconv.yaml_files import parse_yaml, read_yaml, to_yaml

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
# keys that hold further keys, for which the parser would also read another file
GROUPS = ("trainer", "wandb", "config")
# values that must equal another, with the link in base.yaml; a different value is refused
FOLLOWS = {
    "data.init_args.seed": "${...seed_everything}",
    "model.init_args.seed": "${...seed_everything}",
    "model.init_args.image_size": "${...data.init_args.size}",
    "model.init_args.channels": "${...data.init_args.channels}",
    "model.init_args.batch_size": "${...data.init_args.batch_size}",
}
# options without a value
FLAGS = ("-h", "--help", "--help-all", "--debug", "--print_config")
# values that equal another unless they are set: a patch may be larger than a cell
MAY_FOLLOW = {"model.init_args.objective.init_args.patch": "${...cell}"}
# the key that another one follows, both as users write them
FOLLOWED = {bare(target): bare(link.strip("${.}")) for target, link in FOLLOWS.items()} | {"model.objective.patch": "model.cell"}


@dataclass(frozen=True)
class Option:
    """An option of the command line with its value, or a word that belongs to none; `value` is None where there is none."""

    name: str
    value: str | None = None
    joined: bool = False  # written with =

    @property
    def key(self) -> str:
        """The dotted key that it sets, without init_args and class_path: `--model.init_args.size` equals `--model.size`."""
        return bare(self.name.lstrip("-"))

    @property
    def is_config(self) -> bool:
        return self.name in ("-c", "--config")

    @property
    def is_name(self) -> bool:
        return not self.name.startswith("-")

    @property
    def given(self) -> list[str]:
        """Its words as the user gave them."""
        if self.value is None:
            return [self.name]
        return [f"{self.name}={self.value}"] if self.joined else [self.name, self.value]

    @property
    def words(self) -> list[str]:
        """Its words as the parser takes them."""
        first, *inner = self.key.split(".")
        if self.value == "null" and first in ("model", "data") and len(inner) > 1:
            # below the first class, jsonargparse turns null into the text "None" on the command line, but not in a file
            content: Any = None
            for name in reversed(inner):
                content = {"init_args": {name: content}}
            return ["-c", to_yaml({first: content})]
        return self.given


def prepare(arguments: list[str]) -> list[str]:
    """Convert arguments for the parser: null for None, each class before its own arguments, links in place of equal values.

    `trainer.max_steps` alone is the whole budget: epochs that an earlier file gives are lifted.

    Raises:
        ValueError: there is no such file, a file names another one, or a file or a value reads a secret from the environment.
    """
    given = list(read(arguments))
    options = [_relinked(option) if option.is_config else option for option in given]
    for option in options:
        refuse_secret_interpolation(option.value or "", option.name)
    # files in their order, and then all that the command line itself sets
    files, words = ([_values(option) for option in given if option.is_config is kind] for kind in (True, False))
    if epochs_lifted([*files, {key: value for values in words for key, value in values.items()}]):
        options.append(Option("--trainer.max_epochs", "-1", joined=True))
    return [word for option in classes_first(options) for word in option.words]


def split(arguments: list[str]) -> Iterator[Option]:
    """Split arguments into options. The value `None` of W&B's sweeps is null."""
    words = list(arguments)
    while words:
        name, joined, value = words.pop(0).partition("=")
        takes = name.startswith("-") and name not in FLAGS
        if not joined and takes and words and not words[0].startswith("--") and words[0] != "-c":
            yield Option(name, _null(words.pop(0)))
        else:
            yield Option(name, _null(value) if joined else None, bool(joined))


def read(arguments: list[str]) -> Iterator[Option]:
    """Split arguments into options, one for each configuration file, which is found by its name.

    Raises:
        ValueError: there is no such file.
    """
    for option in split(arguments):
        yield from each_file(option)


def each_file(option: Option) -> list[Option]:
    """Split an option into one per configuration file, each with its path: `-c A,B` is `-c A -c B`, as in the values of a sweep.

    Raises:
        ValueError: there is no such file.
    """
    if not option.is_config or option.value is None or _is_content(option.value):
        return [option]
    files = [option.value] if os.path.isfile(option.value) else option.value.split(",")
    return [replace(option, value=str(find(file.strip(), "experiments"))) for file in files]


def classes_first(options: list[Option]) -> list[Option]:
    """Move the arguments of a class behind the option that chooses it: before it, they would go to the previous class."""
    ordered: list[Option] = []
    for option in options:
        chooses = option.value is not None and not option.value.startswith("{")
        waiting = [other for other in ordered if chooses and other.key.startswith(f"{option.key}.")]
        ordered = [other for other in ordered if other not in waiting] + [option, *waiting]
    return ordered


def named_code(arguments: list[str]) -> set[str]:
    """The packages whose classes the user may have named: by a class path in a file, or in any way on the command line itself.

    Text elsewhere in a file names none, as nobody reads a file for it.
    """
    found: set[str] = set()
    for option in read(arguments):
        try:
            content = content_of(option) if option.is_config else parse_yaml(option.value or "")
        except ValueError:  # text that is no YAML names no class
            continue
        found |= {path.partition(".")[0] for path in _class_paths(content, any_text=not option.is_config) if DOTTED.fullmatch(path)}
    return found


def follower_problem(config: Mapping[str, Any]) -> str | None:
    """The error in a configuration where a value differs from the value that it must equal; None if there is none."""
    for target, link in FOLLOWS.items():
        source = link.strip("${.}")
        follows, followed = get(config, target), get(config, source)
        if None not in (follows, followed) and _plain(follows) != _plain(followed):
            return (
                f"{bare(target)} is {_plain(follows)}, but must equal {bare(source)}, which is {_plain(followed)}: "
                f"leave it out and set {bare(source)}"
            )
    return None


def links_in_force(values: Mapping[str, Any]) -> dict[str, str]:
    """Find the optional links that no later file or option replaces by a value: the link by dotted key.

    Args:
        values: as `given_values` gives them.
    """
    return {target: link for target, link in MAY_FOLLOW.items() if values.get(bare(target)) == link}


def given_values(arguments: list[str]) -> dict[str, Any]:
    """The values that files and options give, by bare dotted key."""
    values: dict[str, Any] = {}
    for option in read(arguments):
        values |= _values(option)
    return values


def with_links(config: Mapping[str, Any], links: Mapping[str, str]) -> dict[str, Any]:
    """Put links in place of the values at some dotted keys of a configuration; an absent key stays absent."""
    linked = deepcopy(dict(config))
    for target, link in links.items():
        holder, _, name = target.rpartition(".")
        if name in (get(linked, holder) or {}):
            get(linked, holder)[name] = link
    return linked


def _class_paths(content: Any, any_text: bool) -> Iterator[str]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _class_paths(value, any_text or (str(key).rpartition(".")[2] == "class_path" and isinstance(value, str)))
    elif isinstance(content, list):
        for value in content:
            yield from _class_paths(value, any_text)
    elif isinstance(content, str) and any_text:
        yield content


def _is_content(value: str) -> bool:
    """Tell the content of a configuration, or the standard input, from the name of a file.

    Raises:
        ValueError: it is content, and not valid.
    """
    if value == "-" or os.path.isfile(value):
        return value == "-"
    try:
        return isinstance(parse_yaml(value), dict)
    except ValueError as error:
        if re.search(r"[\n{\[]|:\s", value):
            raise ValueError(f"-c is not valid YAML: {error}") from error
        return False


def _relinked(option: Option) -> Option:
    """Put links in place of equal values in a file, such as the configuration of a finished run.

    So an override of one value reaches all values that must equal it.
    """
    content = content_of(option)
    if content is None:
        return option
    for key in GROUPS:
        if isinstance(content.get(key), str):
            raise ValueError(f"{key} is {content[key]}: write its keys and values here, or give the file by -c")
    if os.path.isfile(option.value or ""):
        refuse_secret_interpolation(Path(option.value or "").read_text(encoding="utf-8"), str(option.value))
    agreeing = {
        target: link
        for target, link in FOLLOWS.items()
        if (followed := get(content, link.strip("${.}"))) is not None and get(content, target) == followed
    }
    return replace(option, value=to_yaml(with_links(content, agreeing))) if agreeing else option


def _values(option: Option) -> dict[str, Any]:
    """The values by dotted key that an option sets, itself or in the file that it names."""
    try:
        content = content_of(option) if option.is_config else parse_yaml(option.value or "")
    except ValueError:
        content = option.value
    return {bare(key): value for key, value in flatten(content, "" if option.is_config else option.key).items()}


def content_of(option: Option) -> dict[str, Any] | None:
    """Read a configuration: a file, or content that stands on the command line; None if there is none, which the parser reports.

    Raises:
        ValueError: it is not valid YAML, or holds no keys.
    """
    value = option.value or ""
    if os.path.isfile(value):
        content = read_yaml(Path(value))
        if not isinstance(content, dict | None):
            raise ValueError(f"{value} holds no keys: a configuration has some, such as model and data")
        return content
    return parse_yaml(value) if value != "-" and _is_content(value) else None


def _null(value: str) -> str:
    return "null" if value == "None" else value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
