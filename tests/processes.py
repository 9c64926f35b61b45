"""`semconv` in a process of its own, forked from that of the tests, because imports take longer than short runs."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import semconv.commands.train  # noqa: F401  for all children together
from semconv.__main__ import main as command
from semconv.shipped import PACKAGE
from semconv.tracking.environment import code_of

code_of(PACKAGE)  # which is kept: half a second for each child that trains


class Done(NamedTuple):
    """A process that has ended."""

    returncode: int
    stdout: str
    stderr: str


class Forked:
    """A program that runs.

    Args:
        words: what follows its name on the command line.
        folder: an existing one, for what it prints.
        environment: its environment variables.
        program: called without arguments, as `semconv` is; `sys.argv` has the words.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        program: Callable[[], object] = command,
    ) -> None:
        self.folder = folder
        environment = dict(os.environ if environment is None else environment)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # Python 3.12, of forks beside threads
            self._process = get_context("fork").Process(target=_run, args=(list(words), folder, environment, program))
            self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; None as long as it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 150) -> Done:
        """What came of it. A process that takes longer is killed."""
        self._process.join(timeout)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        assert code is not None
        return Done(code, (self.folder / "stdout").read_text(), (self.folder / "stderr").read_text())


def _run(words: list[str], folder: Path, environment: dict[str, str], program: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(Path(__file__).parents[1])
    sys.argv = ["semconv", *words]
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    try:
        program()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
