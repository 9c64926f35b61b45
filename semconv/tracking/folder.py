"""The folder of a run, which every run has, whatever else records it."""

import json
import os
import re
import secrets
import shlex
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from semconv.configuration import one_line, resolve_links
from semconv.files import append_text, user_path, write_text
from semconv.tracking.environment import describe_session
from semconv.tracking.locks import Lock
from semconv.yaml_files import parse_yaml, to_yaml

NAME = re.compile(r"[\w+=-][\w.+=-]*")  # of one folder, and no hidden one
PATIENCE = 15.0  # seconds to wait for a folder: data workers of a killed process live on for up to five
Status = Literal["running", "finished", "failed", "diverged", "terminated"]


class RunFolder:
    """A run's folder: `config.yaml`, `metrics.jsonl`, `summary.json`, `environment.json`, `checkpoints/` and `media/`.

    Any training loop can use it: call `create` once, then `log` and `summarise` as often as needed.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = user_path(path)
        self._lock: Lock | None = None

    @classmethod
    def new(cls, runs: str | Path, experiment: str) -> "RunFolder":
        """Choose `<runs>/<experiment>/<run id>`, without creating it. The id is WANDB_RUN_ID if that is set, as in W&B."""
        if not NAME.fullmatch(experiment):
            raise ValueError(f"experiment is {experiment!r}: give a name of letters, digits and . _ - + =, which names a folder")
        run_id = os.environ.get("WANDB_RUN_ID") or time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)
        if not NAME.fullmatch(run_id):
            raise ValueError(f"WANDB_RUN_ID is {run_id!r}: give a name of letters, digits and . _ - + =, which names a folder")
        return cls(user_path(runs) / experiment / run_id)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def media(self) -> Path:
        return self.path / "media"

    @property
    def environment(self) -> dict[str, Any]:
        return _read_json(self.path / "environment.json")

    @property
    def summary(self) -> dict[str, Any]:
        return _read_json(self.path / "summary.json")

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration, its links replaced by the values that they name."""
        return resolve_links(self._read_config())

    def create(self, config: Mapping[str, Any], **about: Any) -> None:
        """Create the folder, with the run's whole configuration and environment.

        An interrupted trial that W&B's agent starts again, under the same id, starts anew if it has no checkpoint.

        Args:
            config: content of `config.yaml`.
            about: further entries of `environment.json` beside versions, commit and command, such as the device.

        Raises:
            ValueError: the folder exists already.
        """
        if self._is_given_again():
            self.hold()
            shutil.rmtree(self.path)
            self.release()
        if self.path.exists():
            path = shlex.quote(str(self.path))
            raise ValueError(f"{self.path} holds a run already: resume it by --resume {path}, or set another WANDB_RUN_ID")
        self.path.mkdir(parents=True)
        self.write_config(config)
        self._begin_session(about)

    def resume(self, step: int, config: Mapping[str, Any], **about: Any) -> None:
        """Continue after `step` steps: rows of later steps, from a process that was interrupted, are removed.

        A changed configuration replaces the previous one, which is kept as `config-until-step-<step>.yaml`.
        """
        kept = [row for row in self.rows() if row["step"] is None or row["step"] < step]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        if self._read_config() != config:
            write_text(self.path / f"config-until-step-{step}.yaml", (self.path / "config.yaml").read_text(encoding="utf-8"))
            self.write_config(config)
        self._begin_session({"from_step": step, **about})

    def hold(self) -> None:
        """Keep other processes from using the folder, until `release` or the end of this process.

        Raises:
            ValueError: another process uses it.
        """
        if self._lock is not None:
            return
        lock, limit = Lock(self.path / "run.lock"), time.monotonic() + PATIENCE
        while not lock.acquire(wait=False):
            if time.monotonic() > limit:
                lock.close()
                raise ValueError(f"another process uses {self.path}: wait until it has ended")
            time.sleep(0.1)
        self._lock = lock

    def release(self) -> None:
        """Let other processes use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write_config(self, config: Mapping[str, Any]) -> None:
        write_text(self.path / "config.yaml", to_yaml(dict(config)))

    def log(self, metrics: Mapping[str, Any], step: int | None, **clock: Any) -> dict[str, Any]:
        """Add a row to `metrics.jsonl`.

        Args:
            metrics: numbers by name.
            step: their training step, from 0.
            clock: further clocks, such as `samples_seen`.

        Returns:
            the row: step, clocks, time (Unix, in seconds) and metrics.
        """
        row = {"step": step, **clock, "time": round(time.time(), 3), **metrics}
        append_text(self.path / "metrics.jsonl", json.dumps(row) + "\n")
        return row

    def rows(self) -> Iterator[dict[str, Any]]:
        """Read the rows of `metrics.jsonl`, without an incomplete last line."""
        path = self.path / "metrics.jsonl"
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                return
            if isinstance(row, dict) and "step" in row:
                yield row

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Add values to `summary.json`."""
        write_text(self.path / "summary.json", json.dumps({**self.summary, **values}, indent=2) + "\n")

    def _is_given_again(self) -> bool:
        """True for an interrupted trial of W&B's agent that has nothing to resume from."""
        given = "WANDB_SWEEP_ID" in os.environ and os.environ.get("WANDB_RUN_ID") == self.path.name
        return (
            given
            and self.path.exists()
            and newest_checkpoint(self.checkpoints) is None
            and self.summary.get("status") not in ("finished", "diverged")
        )

    def _read_config(self) -> dict[str, Any]:
        return _read(self.path / "config.yaml", parse_yaml)

    def _begin_session(self, about: Mapping[str, Any]) -> None:
        # a resumed run has had several environments
        sessions = [*self.environment.get("sessions", []), describe_session(about)]
        write_text(self.path / "environment.json", json.dumps({"sessions": sessions}, indent=2) + "\n")


def newest_checkpoint(folder: Path) -> Path | None:
    """Find the newest complete checkpoint in a folder: `last.ckpt`, else the latest complete `step-<steps>.ckpt`, else None."""
    candidates = [folder / "last.ckpt", *sorted(folder.glob("step-*.ckpt"), reverse=True)]
    return next((path for path in candidates if is_whole(path)), None)


def is_whole(path: Path) -> bool:
    """Tell whether a checkpoint exists and is complete, by its checksums."""
    if not path.is_file():  # a FIFO would never end
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):  # zipfile raises any of these
        return False


def _read_json(path: Path) -> dict[str, Any]:
    return _read(path, json.loads) if path.exists() else {}


def _read(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    if not path.is_file():  # a FIFO would never end
        raise ValueError(f"there is no file {path}: give a run's folder, runs/<experiment>/<run id>")
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is damaged ({one_line(error, 80)}): restore it, or leave the run out") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (it holds no keys): restore it, or leave the run out")
    return content
