"""A trial: its command, its process, and its outcome."""

import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import yaml

from semconv.sweeping import preloaded
from semconv.sweeping.file import Sweep
from semconv.sweeping.ledger import Claim, Ending
from semconv.sweeping.macros import expand, own_command
from semconv.tracking.files import write_text
from semconv.tracking.folder import RunFolder, newest_checkpoint
from semconv.tracking.secrets import redact

KILL_SECONDS = 30  # from SIGTERM to SIGKILL, as W&B's agent has it


class Trial:
    """A trial of this process.

    Args:
        claim: the claimed trial.
        sweep: its sweep.
        folder: folder of the sweep.
        program: the module whose `main` runs semconv's own training commands.
    """

    def __init__(self, claim: Claim, sweep: Sweep, folder: Path, program: str) -> None:
        self.claim, self.sweep, self.folder, self.program = claim, sweep, folder, program
        self.log = folder / "trials" / f"{claim.number:03d}.log"
        self.started = time.monotonic()
        self.history = History(folder, claim.run, sweep.metric)
        self.stopping: float | None = None  # time of the request to end
        self._process: BaseProcess | subprocess.Popen[bytes] | None = None

    @property
    def run(self) -> RunFolder | None:
        """The run's folder; None before it exists."""
        return find_run(self.folder, self.claim.run)

    def start(self) -> None:
        """Start the run, or resume it from its last checkpoint; a finished run is not started again."""
        run = self.run
        if run is not None and run.summary.get("status") in ("finished", "diverged"):
            return
        resumed = run is not None and newest_checkpoint(run.checkpoints) is not None
        if run is not None and not resumed:
            shutil.rmtree(run.path)  # it has nothing to resume from, and its name is needed
        words = self._words(run if resumed else None)
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(redact(words))}\n")
        environment = self._environment()
        ours = own_command(words)
        if ours:
            self._process = preloaded.start(self.program, ours, environment, self.log, self.claim.lock)
        else:
            self._process = self._spawn(words, environment)

    def poll(self) -> int | None:
        """The exit code; None while the trial runs."""
        if self._process is None:
            return 0
        return self._process.exitcode if isinstance(self._process, BaseProcess) else self._process.poll()

    def terminate(self) -> None:
        """Ask the run to save and end; a call more than half a minute later kills it."""
        if self._process is None or self._process.pid is None or self.poll() is not None:
            return
        now = time.monotonic()
        if self.stopping is None:
            self.stopping = now
            os.kill(self._process.pid, signal.SIGTERM)
        elif now > self.stopping + KILL_SECONDS:
            os.kill(self._process.pid, signal.SIGKILL)

    def outcome(self, code: int) -> tuple[Ending, float | None, str]:
        """The ending of the trial, its metric, and a short reason.

        Args:
            code: exit code of the run.
        """
        if self.run is not None and self.run.summary.get("status") == "diverged":
            return "diverged", None, str(self.run.summary.get("divergence"))
        if code != 0:
            if self.stopping is not None:
                return "stopped", None, "stopped early"
            return "failed", None, f"exit code {code}: {self.last_line()}"
        value = self.value()
        if self.sweep.metric is not None and value is None:
            return "failed", None, f"there is no {self.sweep.metric} in its summary: give metric.name a key that runs have"
        return "finished", value, ""

    def value(self) -> float | None:
        """The sweep's metric in the run's summary."""
        run, metric = self.run, self.sweep.metric
        found = run.summary.get(metric) if run is not None and metric is not None else None
        return float(found) if isinstance(found, int | float) and math.isfinite(found) else None

    def last_line(self) -> str:
        """The last line of the run's output."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")

    def _words(self, resumed: RunFolder | None) -> list[str]:
        parameters = {**self.claim.parameters, "runs": str(self.folder)}
        json_file = self.folder / "trials" / f"{self.claim.number:03d}.json"
        words = expand(self.sweep.command, self.sweep.program, dict(sorted(parameters.items())), json_file)
        ours = own_command(words)
        if resumed is not None and ours:
            return ["semconv", ours[0], "--resume", str(resumed.path)]
        return words

    def _environment(self) -> dict[str, str]:
        # W&B reads a sweep's parameters from this file, and shows them as keys of the run's configuration
        path = self.folder / "trials" / f"{self.claim.number:03d}.yaml"
        values = {name: {"value": value} for name, value in self.claim.parameters.items()}
        write_text(path, yaml.safe_dump({"wandb_version": 1, **values}))
        kept = {name: value for name, value in os.environ.items() if name != "WANDB_SWEEP_ID"}
        return {**kept, "WANDB_RUN_ID": self.claim.run, "WANDB_SWEEP_PARAM_PATH": str(path.resolve())}

    def _spawn(self, words: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C reaches the sweep only, which passes it on
                pass_fds=[self.claim.lock.descriptor],
            )


def find_run(folder: Path, run_id: str) -> RunFolder | None:
    """Find a run of a sweep by its id."""
    return next((RunFolder(path) for path in folder.glob(f"*/{run_id}") if path.is_dir()), None)


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
        path = run.path / "metrics.jsonl" if run is not None else None
        if path is None or not path.exists():
            self._forget(None)
            return self
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._file or status.st_size < self._read:
                self._forget(status.st_ino)
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]  # the last row may be incomplete
        self._read += len(whole)
        for row in map(json.loads, whole.splitlines()):
            self.newest.update(row)
            if isinstance(value := row.get(self._metric), int | float):
                self.values.append(float(value))
        return self

    def _forget(self, file: int | None) -> None:
        self._file, self._read = file, 0
        self.values: list[float] = []
        self.newest: dict[str, Any] = {}
