"""Trials as jobs of SLURM, which submitit submits, follows, and puts back into the queue at their time limit."""

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from semconv.configuration import one_line
from semconv.files import append_text
from semconv.sweeping.jobs import INTERRUPTED, NOT_STARTED, Job, Place, Running
from semconv.sweeping.nodes import Errand, errand, leave_nothing, work
from semconv.sweeping.processes import Process
from semconv.tracking.locks import Lock, locked

EXECUTOR = "SlurmExecutor"
DEFAULTS: Mapping[str, Any] = {
    "time": 12 * 60,  # minutes; submitit's own limit is 5
    "job_name": "semconv",
    # srun does not take it from sbatch in all versions
    "setup": ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK"],
}
NUMBERS = ("time", "signal_delay_s")  # options that submitit computes with; it takes all others as text, or as lists of lines
LISTS = ("setup", "teardown", "srun_args")
# semconv's own, as a trial is one task on one node, or neither text nor a number
NOT_OPTIONS = (
    *("nodes", "ntasks_per_node", "cpus_per_task", "gpus_per_node", "command", "folder", "map_count", "array_parallelism"),
    *("additional_parameters", "use_srun", "stderr_to_stdout"),
)
JOBS = 8
REQUEUES = 100  # of a trial, at its time limit
ASK_SECONDS = 5.0  # between questions about a trial that was cancelled, which may end without a result


class Slurm(Place):
    """A cluster with SLURM, all of whose nodes see the current folder.

    Args:
        options: of submitit's executor, by name, as text.
        cpus: CPUs of a job; None: one.
        gpus: GPUs of a job; None: none.
        jobs: trials that are submitted at a time.

    Raises:
        ValueError: submitit is not installed, there is no SLURM, or it does not know an option.
    """

    def __init__(
        self, options: Mapping[str, str], cpus: int | None = None, gpus: int | None = None, jobs: int | None = None
    ) -> None:
        self._jobs = jobs or JOBS
        own = {name: _value(name, text) for name, text in options.items()}
        if "setup" in own:
            own["setup"] = [*DEFAULTS["setup"], *own["setup"]]
        self.options = {**DEFAULTS, "cpus_per_task": cpus or 1, **({"gpus_per_node": gpus} if gpus else {}), **own}
        with TemporaryDirectory() as folder:
            self._executor(Path(folder))

    @property
    def jobs(self) -> int:
        return self._jobs

    def start(self, job: Job, lock: Lock) -> Running:
        try:
            # the environment, which may hold keys, is sent by SLURM, and not written into submitit's files
            sent = errand(job, None)._replace(environment={})
            submitted = self._executor(job.folder / "slurm").submit(Task(sent))
        except Exception as error:  # sbatch refuses it
            append_text(job.log, f"it cannot be submitted: {one_line(error, 300)}\n")
            return Process(NOT_STARTED)
        return Submitted(submitted, job)

    def _executor(self, folder: Path) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise ValueError("--cluster slurm needs submitit, which is not installed: pip install submitit") from error
        try:
            executor = getattr(submitit, EXECUTOR)(folder, max_num_timeout=REQUEUES)
            executor.update_parameters(**self.options)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"--cluster slurm: {one_line(error, 300)}") from error
        return executor


class Submitted(Running):
    """A trial as a job.

    Args:
        submitted: submitit's job.
        job: the trial.
    """

    def __init__(self, submitted: Any, job: Job) -> None:
        self._submitted, self._job = submitted, job
        self._cancelled_at: float | None = None
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None and self._is_done():
            found: int | str = INTERRUPTED
            # submitit waits for a result that may come late, and that of what was cancelled need not come
            if self._cancelled_at is None or self._submitted.paths.result_pickle.exists():
                try:
                    found = self._submitted.result()
                except Exception as error:
                    found = one_line(error, 300)
            if isinstance(found, str):
                append_text(self._job.log, f"{found}\n")
            self._code = found if isinstance(found, int) else NOT_STARTED
        return self._code

    def terminate(self) -> None:
        self._cancelled_at = time.monotonic()
        try:
            self._submitted.cancel(check=False)
        except OSError as error:
            append_text(self._job.log, f"it cannot be cancelled: {one_line(error)}\n")

    def kill(self) -> None:
        """Wait no longer: SLURM kills what it has cancelled, though it may not say so."""
        if self.poll() is None:
            append_text(
                self._job.log, f"SLURM does not say that job {self._submitted.job_id} has ended: squeue shows whether it has\n"
            )
            self._code = INTERRUPTED

    def _is_done(self) -> bool:
        asks = self._cancelled_at is not None and time.monotonic() > self._cancelled_at + ASK_SECONDS
        if asks:
            self._cancelled_at = time.monotonic()
        return bool(self._submitted.done(force_check=asks))


class Task:
    """A trial as submitit takes it to a node, and puts it back into the queue.

    Args:
        errand: the trial.
    """

    def __init__(self, errand: Errand) -> None:
        self.errand = errand

    def __call__(self) -> int | str:
        """Run the trial, and give its exit code, or why it could not be started.

        submitit's SIGUSR2 comes before the time limit: the trial saves, and submitit's own handler puts the job back.
        """
        put_back: Any = signal.getsignal(signal.SIGUSR2)
        try:
            # a job of a sweep that was killed may still run: this one continues it after its end
            with locked(Path(self.errand.place, self.errand.job.file("node"))):
                return work(self.errand, {signal.SIGUSR2: put_back, signal.SIGTERM: leave_nothing})
        except Exception as error:
            return one_line(error, 300)

    def checkpoint(self) -> Any:
        """The trial again, which continues from its last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _value(name: str, text: str) -> Any:
    """An option as submitit takes it."""
    if name in NOT_OPTIONS:
        advice = {"cpus_per_task": "give --cpus-per-trial", "gpus_per_node": "give --gpus-per-trial"}
        raise ValueError(f"--slurm {name}={text}: {advice.get(name, 'leave it out, as a trial is one task on one node')}")
    if name in NUMBERS and not text.isdecimal():
        raise ValueError(f"--slurm {name}={text}: give a whole number" + (" of minutes" if name == "time" else ""))
    return int(text) if name in NUMBERS else [text] if name in LISTS else text
