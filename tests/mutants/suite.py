"""Tests of one copy of the project, in a process of their own."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

# imported before the first fork, so that no mutant waits for them; the package and its tests are not among them
WARM = (
    "einops",
    "hypothesis",
    "jsonargparse",
    "lightning.pytorch.cli",
    "omegaconf",
    "optuna",
    "pandas",
    "scipy.stats",
    "statsmodels.stats.anova",
    "statsmodels.stats.multitest",
    "timm",
    "torch",
    "torchmetrics",
    "torchvision",
    "wandb",
)
MEMORY = 16 * 2**30  # of addresses: a fault may ask for any amount


SEEN = "SEMCONV_TESTS_SEEN"  # names the file to which the lines that a test runs are written, by what it starts, too


class Event(NamedTuple):
    """What a process of tests reports."""

    kind: str  # of a test: started, failed, skipped, finished; of the process: ended, died, hung
    test: str
    seconds: float = 0.0


def copy_project(root: Path, tests: Path, folder: Path) -> None:
    """Copy what git knows or would add to `folder`, with the tests of another folder, and nothing that is ignored."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith("tests/") and (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    shutil.copytree(tests, folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))


def run_tests(
    project: Path,
    files: Sequence[str],
    order: Mapping[str, int] | None,
    *options: str,
    patience: Mapping[str, float] = MappingProxyType({}),
    seen: Path | None = None,
) -> Iterator[Event]:
    """Run tests of a copy of the project. The process ends, with all that it has started, when the caller stops listening.

    Args:
        project: the copy.
        files: files of tests, below it.
        order: the tests to run, and in which order; None: all.
        options: further ones of pytest's.
        patience: seconds that a test may take before it counts as hung, where they are not 300.
        seen: a folder for what probes write.

    Raises:
        RuntimeError: pytest ends with an error of its own.
    """
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    output = project.parent / f"output-{os.getpid()}.txt"
    process = context.Process(target=_serve, args=(project, [*files, *options], output, sender, order, seen))
    process.start()
    sender.close()
    test, failed = "", False
    try:
        while receiver.poll(patience.get(test, 300)):
            event = Event(*receiver.recv())
            test = event.test if event.kind == "started" else test
            failed |= event.kind == "failed"
            yield event
        yield Event("hung", test)
    except EOFError:
        process.join(10)
        code = process.exitcode or 0
        if code > 0 and code != pytest.ExitCode.NO_TESTS_COLLECTED and not failed:
            raise RuntimeError(f"pytest ended with {code}: {output.read_text(encoding='utf-8')[-2000:]}") from None
        yield Event("ended" if code >= 0 else "died", test)
    finally:
        process.join(2)
        if process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        receiver.close()


def _serve(
    project: Path, arguments: list[str], output: Path, sender: Connection, order: Mapping[str, int] | None, seen: Path | None
) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(project)
    compiled = str(project.parent / "compiled")
    os.environ.update(PYTHONPATH=str(project), PYTHONPYCACHEPREFIX=compiled)
    sys.pycache_prefix = compiled
    sys.path.insert(0, str(project))
    # this very package is one of the tests', and the copy has its own
    for name in [name for name in sys.modules if name.partition(".")[0] in ("semconv", "tests")]:
        del sys.modules[name]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    warm = "-Wignore:Module already imported:pytest.PytestAssertRewriteWarning"
    options = [warm, "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0", "--tb=no"]
    code = pytest.main([*arguments, *options], plugins=[_Reporter(sender, order, seen)])
    sender.close()
    os._exit(int(code))


class _Reporter:
    """Sends an event for whatever happens to a test.

    Args:
        sender: where to.
        order: as in `run_tests`.
        seen: likewise.
    """

    def __init__(self, sender: Connection, order: Mapping[str, int] | None, seen: Path | None) -> None:
        self.sender, self.order, self.seen = sender, order, seen
        self.number, self.begun = 0, 0.0
        self._see("collection")

    def _see(self, name: str) -> None:
        if self.seen:
            os.environ[SEEN] = str(self.seen / name)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.sender.send(("failed", report.nodeid))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        order = self.order
        if order is not None:
            items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._see(str(self.number))
        self.number += 1
        self.begun = time.monotonic()
        self.sender.send(("started", nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.sender.send(("failed" if report.failed else "skipped", report.nodeid))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.sender.send(("finished", nodeid, time.monotonic() - self.begun))
