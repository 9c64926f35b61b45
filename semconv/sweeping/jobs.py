"""Trials as the machine that runs them needs them, and the one interface between a sweep and that machine."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from semconv.sweeping.macros import expand, own_command
from semconv.tracking.folder import RunFolder
from semconv.tracking.locks import Lock

NOT_STARTED, INTERRUPTED = 127, 130  # exit codes, as a shell has them


class Job(NamedTuple):
    """A trial in plain values, which travel to other machines."""

    number: int
    run: str  # id of its run
    parameters: Mapping[str, Any]
    command: Sequence[Any]  # of the sweep
    program: str  # of the sweep's file
    training: str  # the module whose `main` runs semconv's own training commands
    folder: Path  # of the sweep

    @property
    def log(self) -> Path:
        return self.file("log")

    @property
    def found(self) -> RunFolder | None:
        """The run's folder; None before it exists."""
        return find_run(self.folder, self.run)

    def file(self, suffix: str) -> Path:
        """A file of the trial beside its run."""
        return self.folder / "trials" / f"{self.number:03d}.{suffix}"

    def words(self, resumed: RunFolder | None = None) -> list[str]:
        """The command of the trial.

        Args:
            resumed: its run, which continues.
        """
        parameters = {**self.parameters, "runs": str(self.folder)}
        words = expand(self.command, self.program, dict(sorted(parameters.items())), self.file("json"))
        ours = own_command(words)
        if resumed is None or not ours:
            return words
        return [*words[: -len(ours)], ours[0], "--resume", str(resumed.path)]


class Running(ABC):
    """A trial that has been placed."""

    @abstractmethod
    def poll(self) -> int | None:
        """The exit code; None until the trial has ended. Then everything that it leaves is in the sweep's folder."""

    @abstractmethod
    def terminate(self) -> None:
        """Ask the run to save and end."""

    @abstractmethod
    def kill(self) -> None:
        """End the run at once."""


class Place(ABC):
    """A machine, or a cluster, that runs trials."""

    @property
    @abstractmethod
    def jobs(self) -> int:
        """Trials at a time."""

    @abstractmethod
    def start(self, job: Job, lock: Lock) -> Running:
        """Start a trial, or resume its run from the last checkpoint; a finished run is not started again.

        Args:
            job: the trial.
            lock: held by this process, and by processes of the trial that may outlive it.
        """


def find_run(folder: Path, run_id: str) -> RunFolder | None:
    """Find a run of a sweep by its id."""
    return next((RunFolder(path) for path in folder.glob(f"*/{run_id}") if path.is_dir()), None)
