"""The macros of a sweep's command, expanded as W&B's agent does."""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Any

from semconv.files import write_text

DEFAULT = ("${env}", "${interpreter}", "${program}", "${args}")
OURS = ("run", "fit")
PYTHON = re.compile(r"python[\d.]*")
PLAIN = ("semconv", "python -m semconv", f"{sys.executable} -m semconv")
VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")


def expand(command: Sequence[Any], program: str, parameters: Mapping[str, Any], json_file: Path) -> list[str]:
    """Expand the command of a trial into words.

    `${env}` is /usr/bin/env, `${interpreter}` is python, `${envvar:NAME}` an environment variable (its name if it is not set);
    `${args}` and its variants are the parameters. An unknown macro is dropped.

    Args:
        command: the command of the sweep file.
        program: the program of the sweep file.
        parameters: parameters by dotted key, in the order of the command line.
        json_file: written if the command holds `${args_json_file}`.
    """
    if "${args_json_file}" in command:
        write_text(json_file, json.dumps(dict(parameters)))
    known = {
        "env": ["/usr/bin/env"],
        "interpreter": ["python"],
        "program": [program],
        "args_json_file": [str(json_file)],
        **forms(parameters),
    }
    words: list[str] = []
    for part in command:
        word = VARIABLE.sub(lambda found: os.environ.get(found[1], found[1]), str(part))
        words += known.get(word[2:-1], []) if word.startswith("${") and word.endswith("}") else [word]
    return words


def own_command(words: Sequence[str]) -> list[str]:
    """The subcommand and arguments of a command that trains with semconv; empty for other commands.

    It may begin with env and variables, and name semconv by its path, or as a module of any Python.
    """
    rest = list(words)
    if rest and Path(rest[0]).name == "env":
        rest = list(dropwhile(lambda word: "=" in word and not word.startswith("-"), rest[1:]))
    if rest and (rest[0] == sys.executable or PYTHON.fullmatch(Path(rest[0]).name)) and rest[1:3] == ["-m", "semconv"]:
        rest = rest[2:]
    return rest[1:] if rest and Path(rest[0]).name == "semconv" and rest[1:2] and rest[1] in OURS else []


def is_plain(words: Sequence[str]) -> bool:
    """True for a command that trains with semconv, and neither sets variables nor names another Python or semconv than this."""
    ours = own_command(words)
    return bool(ours) and " ".join(words[: -len(ours)]).removeprefix("/usr/bin/env ") in PLAIN


def forms(parameters: Mapping[str, Any]) -> dict[str, list[str]]:
    """The parameters in the form of each macro, by the macro's name."""
    flags = {name: f"{name}={value}" for name, value in parameters.items()}
    on = {name: name if value is True else flags[name] for name, value in parameters.items() if value is not False}
    return {
        "args": [f"--{flag}" for flag in flags.values()],
        "args_no_equals": [word for name, value in parameters.items() for word in (f"--{name}", str(value))],
        "args_no_hyphens": list(flags.values()),
        "args_no_boolean_flags": [f"--{flag}" for flag in on.values()],
        "args_json": [json.dumps(dict(parameters))],
        "args_append_hydra": [f"+{flag}" for flag in flags.values()],
        "args_override_hydra": [f"++{flag}" for flag in flags.values()],
    }


MACROS = ("${args_json_file}", *(f"${{{name}}}" for name in forms({})))  # of the parameters
