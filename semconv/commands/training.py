"""The `semconv run` command: one run, or the runs of several experiments and seeds."""

import sys

from semconv.commands.errors import in_one_line
from semconv.commands.short import several
from semconv.commands.sweep import work

FAILURES = 3  # runs that fail before no more are started


def main(arguments: list[str]) -> None:
    """Train and then test: here, or each of several runs in a process of its own."""
    debug = "--debug" in arguments
    with in_one_line(debug):
        asked = several([word for word in arguments if word != "--debug"])
        if asked is not None:
            print(f"{len(asked.sweep.grid)} runs in {asked.folder}; finished ones are not repeated")
            sys.exit(work(asked.sweep, asked.folder, "the same command", asked.jobs, FAILURES, resume=True))
    # importing torch takes seconds; errors in names come before
    from semconv.commands.train import main as train

    train(["run", *arguments])
