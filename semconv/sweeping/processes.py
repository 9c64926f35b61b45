"""Trials in processes of this machine."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess

import yaml

from semconv.files import append_text, write_text
from semconv.sweeping import preloaded
from semconv.sweeping.jobs import NOT_STARTED, Job, Place, Running
from semconv.sweeping.macros import is_plain, own_command
from semconv.tracking.folder import newest_checkpoint
from semconv.tracking.locks import Lock
from semconv.tracking.secrets import redact


class Process(Running):
    """A trial's process.

    Args:
        process: the process, or the exit code where there is none.
    """

    def __init__(self, process: BaseProcess | subprocess.Popen[bytes] | int) -> None:
        self._process = process

    def poll(self) -> int | None:
        if isinstance(self._process, int):
            return self._process
        return self._process.exitcode if isinstance(self._process, BaseProcess) else self._process.poll()

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if not isinstance(self._process, int) and self._process.pid is not None and self.poll() is None:
            os.kill(self._process.pid, number)


class Here(Place):
    """This machine.

    Args:
        jobs: trials at a time; they share the cores.
    """

    def __init__(self, jobs: int = 1) -> None:
        self._jobs = jobs
        if jobs > 1:
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))

    @property
    def jobs(self) -> int:
        return self._jobs

    def start(self, job: Job, lock: Lock) -> Process:
        return begin(job, lock)


def begin(job: Job, lock: Lock | None) -> Process:
    """Start or resume a trial here, as `Place.start` says.

    Args:
        job: the trial.
        lock: held until the process ends; None: the process ends with this one.
    """
    run = job.found
    if run is not None and run.summary.get("status") in ("finished", "diverged"):
        return Process(0)
    resumed = run is not None and newest_checkpoint(run.checkpoints) is not None
    if run is not None and not resumed:
        shutil.rmtree(run.path)  # it has nothing to resume from, and its name is needed
    words = job.words(run if resumed else None)
    append_text(job.log, f"$ {' '.join(redact(words))}\n")
    environment = _environment(job)
    if is_plain(words):
        return Process(preloaded.start(job.training, own_command(words), environment, job.log, lock))
    try:
        return Process(_spawn(words, environment, job, lock))
    except (OSError, IndexError) as error:  # IndexError: the command is empty
        reason = error.strerror if isinstance(error, OSError) else "it is empty"
        append_text(job.log, f"the command {redact(' '.join(words[:1]))!r} cannot be started: {reason}\n")
        return Process(NOT_STARTED)


def _environment(job: Job) -> dict[str, str]:
    # W&B reads a sweep's parameters from this file, and shows them as keys of the run's configuration
    path = job.file("yaml")
    values = {name: {"value": value} for name, value in redact(job.parameters).items()}
    write_text(path, yaml.safe_dump({"wandb_version": 1, **values}))
    kept = {name: value for name, value in os.environ.items() if name != "WANDB_SWEEP_ID"}
    return {**kept, "WANDB_RUN_ID": job.run, "WANDB_SWEEP_PARAM_PATH": str(path.resolve())}


def _spawn(words: Sequence[str], environment: Mapping[str, str], job: Job, lock: Lock | None) -> subprocess.Popen[bytes]:
    with open(job.log, "ab") as log:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C reaches the sweep only, which passes it on
            pass_fds=[lock.descriptor] if lock else [],
            preexec_fn=None if lock else preloaded.end_with_parent,
        )
    preloaded.keep_niceness(process.pid)
    return process
