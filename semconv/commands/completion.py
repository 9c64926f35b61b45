"""Tab completion in bash and zsh, by argcomplete, which calls `semconv` for each press of the key. Imports no torch."""

import argparse
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import argcomplete
from argcomplete.completers import FilesCompleter

from semconv.commands import help as texts
from semconv.commands.check import CHECKS
from semconv.commands.list import KINDS
from semconv.shipped import Kind, folders

Commands = dict[str, tuple[str, str]]


def complete(commands: Commands) -> None:
    """Print what a word may become, to whom argcomplete says, and end the process.

    Args:
        commands: each command, its module and its line of help.
    """
    argcomplete.autocomplete(make_parser(commands), always_complete_options=False)


def make_parser(commands: Commands) -> argparse.ArgumentParser:
    """A parser that knows every command and option, with completers; it only completes."""
    parser = argparse.ArgumentParser(prog="semconv")
    subparsers = parser.add_subparsers()
    for name, (module, text) in commands.items():
        if module == "training":
            _add_training(subparsers.add_parser(name, help=text))
        elif name == "check":
            check = subparsers.add_parser(name, help=text)
            check.add_argument("check", choices=list(CHECKS))
            _add_training(check)
        elif name == "estimate":
            own = import_module(f"semconv.commands.{module}").make_parser()
            _add_training(subparsers.add_parser(name, help=text, parents=[own], add_help=False))
        else:
            own = import_module(f"semconv.commands.{module}").make_parser()
            _add_completers(subparsers.add_parser(name, help=text, parents=[own], add_help=False))
    return parser


def _add_training(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command that takes a configuration: names, files and dotted keys."""
    _with(parser.add_argument("experiments", nargs="*"), _names("experiments"))
    _with(parser.add_argument("-c", "--config", action="append"), _names("experiments"))
    _with(parser.add_argument("--data"), _names("experiments", "data/"))
    for option in ("--seeds", "--jobs", "--resume", "--pretrained"):
        _with(parser.add_argument(option), FilesCompleter())
    for option in ("--help-all", "--print_config", "--debug"):
        if option not in parser._option_string_actions:  # a command's own
            parser.add_argument(option, action="store_true")
    there = {option for action in parser._actions for option in action.option_strings}
    for key in sorted({f"--{key}" for key in texts.example().known()} - there):
        _with(parser.add_argument(key), _values(key.removeprefix("--")))


def _add_completers(parser: argparse.ArgumentParser) -> None:
    """Names of sweeps and studies, and kinds of lists, where a command takes such."""
    takes: dict[str, Callable] = {
        "semconv sweep": _names("sweeps"),
        "semconv study": _names("sweeps/studies"),
        "semconv list": lambda **_: KINDS,
    }
    for action in parser._actions:
        if action.dest in ("file", "kinds") and parser.prog in takes:
            _with(action, takes[parser.prog])


def _names(kind: Kind, below: str = "") -> Callable[..., Iterable[str]]:
    """Names of files of a kind, the last one of several with commas, and files by path."""

    def names(prefix: str, **_: object) -> list[str]:
        before, comma, last = prefix.rpartition(",")
        paths = {path.relative_to(folder).with_suffix("").as_posix() for folder in folders(kind) for path in folder.rglob("*.yaml")}
        own = [path for path in FilesCompleter((".yaml",))(last) if not Path(path).is_dir() or last]
        return [
            f"{before}{comma}{name}"
            for name in (*(path.removeprefix(below) for path in sorted(paths) if path.startswith(below)), *own)
        ]

    return names


def _values(key: str) -> Callable[..., Iterable[str]]:
    """The classes that a key takes, by their names, or by their paths behind a dot; files for any other."""

    def values(prefix: str, **_: object) -> Iterable[str]:
        with suppress(ValueError):
            return [path if "." in prefix else path.rpartition(".")[2] for path, _ in texts.classes_at(key)]
        return FilesCompleter()(prefix)

    return values


def _with(action: argparse.Action, completer: Callable) -> None:
    action.completer = completer  # type: ignore[attr-defined]
