"""A trial as the sweep sees it: where it runs, and its outcome."""

import json
import os
import time
from pathlib import Path
from typing import Any

from semconv.configuration import is_number
from semconv.sweeping.file import Sweep
from semconv.sweeping.jobs import Job, Place, find_run
from semconv.sweeping.ledger import Claim, Ending
from semconv.sweeping.macros import own_command
from semconv.sweeping.points import departure
from semconv.tracking.folder import RunFolder

KILL_SECONDS = 30  # from SIGTERM to SIGKILL, as W&B's agent has it
WIDEST = 200  # characters of a reason: the log has it whole


class Trial:
    """A trial of this process, started when it is made.

    Args:
        claim: the claimed trial.
        sweep: its sweep.
        folder: folder of the sweep.
        training: the module whose `main` runs semconv's own training commands.
        place: where it runs.
    """

    def __init__(self, claim: Claim, sweep: Sweep, folder: Path, training: str, place: Place) -> None:
        self.claim, self.sweep = claim, sweep
        self.job = Job(claim.number, claim.run, claim.parameters, sweep.command, sweep.program, training, folder)
        self.started = time.monotonic()
        self.history = History(folder, claim.run, sweep.metric)
        self.stopping: float | None = None  # time of the request to end
        self._departure, self._arrived = "", False
        self._running = place.start(self.job, claim.lock)

    @property
    def run(self) -> RunFolder | None:
        """The run's folder; None before it exists."""
        return self.job.found

    def poll(self) -> int | None:
        """The exit code; None while the trial runs."""
        return self._running.poll()

    @property
    def departure(self) -> str:
        """A parameter whose value the run's configuration does not have, and both values; empty where there is none.

        Such a run is not one of this point, and would be recorded as if it were.
        """
        if not self._arrived and (run := self.run) is not None and (run.path / "config.yaml").is_file():
            self._departure, self._arrived = departure(run.config, self.claim.parameters), True
        return self._departure

    def terminate(self) -> None:
        """Ask the run to save and end; a call more than half a minute later kills it."""
        if self.poll() is not None:
            return
        now = time.monotonic()
        if self.stopping is None:
            self.stopping = now
            self._running.terminate()
        elif now > self.stopping + KILL_SECONDS:
            self._running.kill()

    def outcome(self, code: int) -> tuple[Ending, float | None, str]:
        """The ending of the trial, its metric, and a short reason.

        Args:
            code: exit code of the run.
        """
        if self.departure:
            return "failed", None, self.departure
        if self.run is not None and self.run.summary.get("status") == "diverged":
            return "diverged", None, str(self.run.summary.get("divergence"))
        if code != 0:
            if self.stopping is not None:
                return "stopped", None, "stopped early"
            return "failed", None, f"exit code {code}: {self.last_line()[:WIDEST]}"
        if self.run is None and own_command(self.job.words()):
            return "failed", None, f"it left no run in {self.job.folder}: leave --runs to the sweep"
        value = self.value()
        if self.sweep.metric is not None and value is None:
            return "failed", None, f"there is no {self.sweep.metric} in its summary: give metric.name a key that runs have"
        return "finished", value, ""

    def value(self) -> float | None:
        """The sweep's metric in the run's summary."""
        run, metric = self.run, self.sweep.metric
        found = run.summary.get(metric) if run is not None and metric is not None else None
        return float(found) if is_number(found) else None

    def last_line(self) -> str:
        """The last line of the run's output."""
        lines = self.job.log.read_text(encoding="utf-8", errors="replace").split("\n") if self.job.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


class History:
    """The logged rows of a run; each row is read only once.

    Args:
        folder: folder of the sweep.
        run_id: id of the run, which need not have started.
        metric: the metric whose values are kept.

    Attributes:
        values: values of the metric, in their order.
        newest: the last value of every key.
    """

    def __init__(self, folder: Path, run_id: str, metric: str | None) -> None:
        self._folder, self._run_id, self._metric = folder, run_id, metric
        self._forget(None)

    def look(self) -> "History":
        """Read new rows; read all rows again if the run has restarted, or resumed from an earlier step."""
        run = find_run(self._folder, self._run_id)
        try:
            text = self._unread(run.path / "metrics.jsonl") if run is not None else None
        except FileNotFoundError:  # the run has logged nothing yet, or is being started anew
            text = None
        if text is None:
            self._forget(None)
            return self
        whole = text[: text.rfind(b"\n") + 1]  # the last row may be incomplete
        self._read += len(whole)
        for row in filter(None, map(_row, whole.splitlines())):
            self.newest.update(row)
            if isinstance(value := row.get(self._metric or ""), int | float):
                self.values.append(float(value))
        return self

    def _unread(self, path: Path) -> bytes:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._file or status.st_size < self._read:
                self._forget(status.st_ino)
            file.seek(self._read)
            return file.read()

    def _forget(self, file: int | None) -> None:
        self._file, self._read = file, 0
        self.values: list[float] = []
        self.newest: dict[str, Any] = {}


def _row(line: bytes) -> dict[str, Any]:
    """A row; empty where a line is damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}
