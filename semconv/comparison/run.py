"""A finished run as comparisons see it."""

import sys
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from semconv.comparison.declared import Declared
from semconv.configuration import flatten, is_number
from semconv.metrics import of_section

Summary = dict[str, Any]
LARGEST = 1e100  # metric, in size: a larger one is as good as infinite
# of runs that start from another one: linear probes, fine-tuning, and training from scratch beside it
LATER = tuple(dict.fromkeys(metric.key.partition("/")[0] for metric in of_section("classification")))


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Args:
        folder: its folder, or its address.
        summary: content of its `summary.json`.
        time: when it started or, where that is not known, was last written; Unix, in seconds.
    """

    folder: str
    summary: Summary
    time: float = 0.0

    @cached_property
    def protocol(self) -> dict[str, Any]:
        return flatten(self.summary["protocol"])

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The protocol and the decoder, which a comparison may vary on purpose though it is a part of the network."""
        return {**self.protocol, **flatten(self.summary["variant"].get("decoder"), "model.decoder")}

    @property
    def has_diverged(self) -> bool:
        return self.summary.get("status") == "diverged"

    @cached_property
    def metrics(self) -> dict[str, float]:
        """All numbers of the summary up to `LARGEST`; of a run that has diverged, its costs alone."""
        found = {key: number for key, value in self.summary.items() if (number := finite(value)) is not None}
        return {key: value for key, value in found.items() if key.startswith("cost/")} if self.has_diverged else found

    def has_failed(self, key: str) -> bool:
        """True if the run has diverged, or a metric is there and is no number up to `LARGEST`; null says that it does not apply."""
        return self.has_diverged or (self.summary.get(key) is not None and finite(self.summary[key]) is None)

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


def finite(value: Any) -> float | None:
    """A finite number of which squares are finite, too; None for anything else, such as the text that W&B writes for NaN."""
    return value if is_number(value) and abs(value) <= LARGEST else None
