"""The commands that train, before torch is imported: help, errors in names and keys, and the runs of several experiments."""

import sys
import tempfile
from pathlib import Path

from semconv.commands.errors import in_one_line
from semconv.commands.help import answer
from semconv.commands.keys import check_keys
from semconv.commands.short import Several, several, write_out
from semconv.commands.sweep import work
from semconv.sweeping.macros import expand, own_command
from semconv.sweeping.processes import Here

FAILURES = 3  # runs that fail before no more are started


def main(arguments: list[str]) -> None:
    """Answer what needs no torch; else train: here, or each of several runs in a process of its own."""
    command, *words = [word for word in arguments if word != "--debug"]
    with in_one_line("--debug" in arguments):
        if "--help-all" in words:
            arguments = [command, "--help"]
        elif text := answer(command, words):
            print(text)
            return
        elif command == "run" and (asked := several(words)) is not None:
            _check(asked)
            print(f"{len(asked.sweep.grid)} runs in {asked.folder}; finished ones are not repeated")
            sys.exit(work(asked.sweep, asked.folder, "the same command", Here(asked.jobs), FAILURES, resume=True))
        else:
            check_keys(command, write_out(words))
    # importing torch takes seconds; help and errors in names come before
    from semconv.commands.train import main as train

    train(arguments)


def _check(asked: Several) -> None:
    """Check the keys of each experiment."""
    experiments = {point["config"]: point for point in asked.sweep.grid}
    for point in experiments.values():
        command, *words = own_command(expand(asked.sweep.command, "semconv", point, Path(tempfile.gettempdir()) / "semconv.json"))
        check_keys(command, words)
