"""Errors of the user: one line on the terminal and exit code 2."""

import importlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import yaml

from semconv.commands.arguments import unknown_part, without
from semconv.configuration import keys, nearest

PACKAGE = Path(__file__).parents[1]


def fail(message: str) -> NoReturn:
    """Print one line and exit with code 2."""
    print("semconv: error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


@contextmanager
def in_one_line(debug: bool = False) -> Iterator[None]:
    """Print errors of the user's within in one line and exit with code 2; all others keep their traceback.

    Args:
        debug: show the traceback too.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        # jsonargparse wraps what a constructor raises
        said = [message for cause in causes(error) if (message := own_message(cause))]
        if not said:
            raise
        if debug:
            traceback.print_exc()
        fail(said[-1])


def causes(error: BaseException) -> list[BaseException]:
    """An error, what it was raised from, what that was raised from, and so on."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def own_message(error: BaseException) -> str | None:
    """What this package, or the operating system, has to say to the user; None for any other error, which keeps its traceback."""
    text = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}: make room, give access, or choose another folder"
    if "in DataLoader worker process" in text:  # raised anew from a worker, with its traceback as text
        frames = re.findall(r'File "([^"]+)", line', text)
        text = text.strip().splitlines()[-1].partition(": ")[2]
    else:
        frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = isinstance(error, ValueError) and frames and Path(frames[-1]).is_relative_to(PACKAGE)
    return text if own else None


def correct(message: str, arguments: list[str], print_config: Callable[[list[str]], str]) -> str:
    """A parser's complaint, with the nearest key or class that there is where there is none of the name given.

    Args:
        message: the complaint.
        arguments: of a subcommand, the first of them.
        print_config: gives the whole configuration of some arguments, as YAML.
    """
    found = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message)
    if found:
        return _did_you_mean(message, found[2], dir(importlib.import_module(found[1])))
    part = unknown_part(message)
    if part is None:
        return message
    rest, key = without(arguments[1:], part)
    config = yaml.safe_load(print_config([arguments[0], *rest])) or {}
    message = f"there is no option {key}" if key else message
    return _did_you_mean(message, key or part, list(keys(config)))


def _did_you_mean(message: str, name: str, names: list[str]) -> str:
    found = nearest(name, names)
    return f"{message}: did you mean {found}?" if found else message
