"""A finished run as comparisons see it."""

import sys
from typing import Any, NamedTuple

from semconv.configuration import flatten

Summary = dict[str, Any]


class FinishedRun(NamedTuple):
    """A finished run."""

    folder: str
    summary: Summary

    @property
    def protocol(self) -> dict[str, Any]:
        return flatten(self.summary["protocol"])

    @property
    def metrics(self) -> dict[str, float]:
        """All numbers of the summary."""
        return {key: value for key, value in self.summary.items() if isinstance(value, int | float)}

    @property
    def id(self) -> str:
        return self.folder.rstrip("/").rpartition("/")[2]


class Found(NamedTuple):
    """Runs, and the factors and the family that their sweeps declare."""

    runs: list[FinishedRun]
    factors: list[str]
    family: list[str]


def leave_out(folder: str, reason: str) -> None:
    """Name a run that is left out, and the reason."""
    print(f"left out: {folder}: {reason}", file=sys.stderr)
