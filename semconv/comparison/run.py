"""A finished run as comparisons see it."""

import math
import sys
from datetime import datetime
from typing import Any, NamedTuple

from semconv.comparison.declared import Declared
from semconv.configuration import flatten

Summary = dict[str, Any]


class FinishedRun(NamedTuple):
    """A finished run.

    Args:
        folder: its folder, or its address.
        summary: content of its `summary.json`.
        time: when it started or, where that is not known, was last written; Unix, in seconds.
    """

    folder: str
    summary: Summary
    time: float = 0.0

    @property
    def protocol(self) -> dict[str, Any]:
        return flatten(self.summary["protocol"])

    @property
    def metrics(self) -> dict[str, float]:
        """All finite numbers of the summary."""
        return {key: value for key, value in self.summary.items() if isinstance(value, int | float) and math.isfinite(value)}

    @property
    def not_finite(self) -> list[str]:
        """Metrics that are NaN or infinite; W&B writes them as text."""
        return [
            key
            for key, value in self.summary.items()
            if value in ("NaN", "Infinity", "-Infinity") or (isinstance(value, float) and not math.isfinite(value))
        ]

    @property
    def id(self) -> str:
        return self.folder.rstrip("/").rpartition("/")[2]


class Found(NamedTuple):
    """Runs, and what their sweeps declare."""

    runs: list[FinishedRun]
    declared: Declared


def leave_out(folder: str, reason: str) -> None:
    """Name a run that is left out, and the reason."""
    print(f"left out: {folder}: {reason}", file=sys.stderr)


def started_at(time: object) -> float | None:
    """A time in ISO 8601 as seconds of Unix time; None where it is none."""
    try:
        return datetime.fromisoformat(str(time)).timestamp()
    except ValueError:
        return None
