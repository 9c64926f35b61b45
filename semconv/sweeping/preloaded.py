"""Trials in processes that have imported everything already.

One process imports torch, Lightning and semconv, computes nothing, and forks for each trial. The child is in the state of a fresh
process after its imports, so that it computes the same bits; a test shows it.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from semconv.memory import keep_freed_memory
from semconv.tracking.locks import Lock

IMPORTED = [
    *("semconv.data", "semconv.encoders", "semconv.mechanisms", "semconv.decoders"),
    # the last two are imported by the start of a W&B run
    *("rich.progress", "wandb", "wandb.sdk.launch.inputs.internal", "pandas"),
]
ENDS_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


def start(program: str, words: Sequence[str], environment: Mapping[str, str], log: Path, lock: Lock | None) -> BaseProcess:
    """Start `semconv WORDS` in its own process.

    Args:
        program: the module whose `main` takes the words.
        words: a subcommand that trains, and its arguments.
        environment: environment variables of the process.
        log: file for the output of the process.
        lock: held until the process ends; None: the process ends with this one.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([program, *IMPORTED])
    # every process searches modules where this one does: by default Python would search the current folder first
    path = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    given = (program, list(words), {**environment, **path}, os.getcwd(), str(log.resolve()), lock)
    process = context.Process(target=_trial, args=given)
    with _variables(path):
        process.start()
    return process


def _trial(program: str, words: list[str], environment: dict[str, str], folder: str, log: str, lock: int | None) -> None:
    if lock is None:
        end_with_parent()  # the importing process, which ends with the one that asked
    keep_freed_memory()
    os.setsid()  # Ctrl-C reaches the sweep only, which passes it on
    keep_niceness(os.getpid())
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["semconv", *words]
    # Lightning starts the other processes of a run on several devices by this module
    sys.modules["__main__"].__spec__ = find_spec("semconv.__main__")
    import_module(program).main(words)


@contextmanager
def _variables(given: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the block lasts."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():  # no others: a process that another thread starts meanwhile needs them
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def keep_niceness(leader: int) -> None:
    """Give a new session the niceness of this process, among all sessions.

    Linux shares the cores among sessions, each as nice as the next, and counts the niceness of processes within a session only
    (sched(7), autogroup). Without this a sweep below `nice` would take as much from other work as one without.

    Args:
        leader: the process that leads the session.
    """
    with suppress(OSError):  # another system, or a Linux without autogroups
        Path(f"/proc/{leader}/autogroup").write_text(str(os.nice(0)))


def end_with_parent() -> None:
    """Let this process be killed when the one that started it has ended, however that ended; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(ENDS_WITH_PARENT, signal.SIGKILL)
