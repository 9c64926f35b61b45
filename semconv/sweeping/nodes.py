"""What a node of a cluster does for a trial: start or resume it, pass its files on, and end with it."""

import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from semconv.configuration import one_line
from semconv.files import append_text
from semconv.shipped import PACKAGE, look
from semconv.sweeping.jobs import Job
from semconv.sweeping.processes import Process, begin
from semconv.sweeping.storage import Storage
from semconv.version import __version__

POLL_SECONDS = 0.2
SEND_SECONDS = 10.0
RETRY_SECONDS = (1.0, 10.0, 60.0)  # between tries to send the last files
Departure = Callable[[int, None], object]
PASSED_ON = ("WANDB_", "OMP_NUM_THREADS")  # beginnings of the environment variables that a trial has from the sweep


class Errand(NamedTuple):
    """A trial on its way to a node.

    Args:
        job: the trial.
        place: the current folder of the sweep.
        storage: address of the trial's files; None: the node sees the folder of the sweep.
        files: the user's own configuration files and modules, by their path from the current folder, where no folder is shared.
        environment: variables of the sweep that are the trial's too.
        send_seconds: time between two looks for new files.
        version: of semconv.
    """

    job: Job
    place: str
    storage: str | None
    files: Mapping[str, bytes]
    environment: Mapping[str, str]
    send_seconds: float
    version: str = __version__


def errand(job: Job, storage: str | None) -> Errand:
    """Pack what a node needs for a trial.

    Raises:
        ValueError: no folder is shared, and a configuration file lies outside of the current one.
    """
    environment = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    return Errand(job, os.getcwd(), storage, {} if storage is None else _own_files(job.words()), environment, SEND_SECONDS)


def leave_nothing(number: int, frame: object) -> None:
    """End this process without a result, so that its cluster starts the trial on another node."""
    os.kill(os.getpid(), signal.SIGKILL)


LEAVES: Mapping[int, Departure] = {signal.SIGTERM: leave_nothing}


def work(errand: Errand, leaves: Mapping[int, Departure] = LEAVES) -> int:
    """Run a trial, from its last checkpoint where it has one, and give its exit code.

    The driver's SIGINT asks the trial to save and end.

    Args:
        errand: the trial.
        leaves: signals that say that the node leaves, and what to do once the trial has saved; the first that came in their order.

    Raises:
        ValueError: the node has another version of semconv, or sees neither the folder of the sweep nor the storage.
    """
    node, job = platform.node(), errand.job
    if errand.version != __version__:
        raise ValueError(f"{node} has semconv {__version__}, and the sweep {errand.version}: install one version everywhere")
    os.environ.update(errand.environment)
    if errand.storage is None:
        if not Path(errand.place, job.folder, "sweep.yaml").is_file():
            raise ValueError(
                f"{node} does not see {Path(errand.place, job.folder)}: give an --output that it sees, or with Ray --storage"
            )
        with _inside(errand.place):
            return _attend(job, None, 0, leaves)
    with TemporaryDirectory(prefix="semconv-") as scratch:
        place, folder = Path(scratch, "files"), Path(scratch, "sweep")
        for name, content in errand.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        place.mkdir(exist_ok=True)
        (folder / "trials").mkdir(parents=True)
        storage = Storage(errand.storage, folder)
        storage.take()
        storage.fetch()
        with _inside(place):
            return _attend(job._replace(folder=folder), storage, errand.send_seconds, leaves)


def _attend(job: Job, storage: Storage | None, send_seconds: float, leaves: Mapping[int, Departure]) -> int:
    """Start the trial, and wait for its end."""
    received: list[int] = []
    numbers = (signal.SIGINT, *leaves)
    before = {number: signal.signal(number, lambda signum, _: received.append(signum)) for number in numbers}
    process, told, sent_at = begin(job, None), False, time.monotonic()
    try:
        while (code := process.poll()) is None:
            if received and not told:
                process.terminate()
                told = True
            if storage is not None and time.monotonic() > sent_at + send_seconds:
                _send(job, storage, process)
                sent_at = time.monotonic()
            time.sleep(POLL_SECONDS)
        if storage is not None:
            _send_last(job, storage)
        if told and signal.SIGINT not in received:
            number = next(filter(received.__contains__, leaves))
            leaves[number](number, None)
        return code
    finally:
        process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _send(job: Job, storage: Storage, process: Process) -> None:
    """Send files while the trial runs; a storage that does not answer now may do so later."""
    try:
        if storage.is_ours:
            storage.send(*_places(job))
        else:
            process.kill()  # this node was taken for dead, and another one has the trial
    except Exception as error:
        append_text(job.log, f"the storage does not answer: {one_line(error, 200)}\n")


def _send_last(job: Job, storage: Storage) -> None:
    """Send the last files; try again a few times where the storage does not answer."""
    for wait in (*RETRY_SECONDS, None):
        try:
            if storage.is_ours:
                storage.send(*_places(job))
            return
        except Exception:
            if wait is None:
                raise
            time.sleep(wait)


def _places(job: Job) -> list[Path]:
    """Files and folders of the trial that are sent."""
    return [path for path in (job.found and job.found.path, job.log) if path and path.exists()]


def _own_files(words: list[str]) -> dict[str, bytes]:
    """The configuration files that a command may name, and the modules and packages in the current folder."""
    values = [text for word in words for text in (word, word.partition("=")[2]) if text]  # a name may have = in it
    named = [part.strip() for text in values for part in text.split(",")]
    # in the short form an experiment comes after base, and --data has names of its own
    parts = ["base", *named, *(f"data/{part}" for part in named if ".." not in Path(part).parts)]
    found = {part: path for part in parts if (path := look(part, "experiments")) and path.suffix in (".yaml", ".yml", ".json")}
    # a name that is found elsewhere is that of a file of semconv, which nodes have
    files = {path for part, path in found.items() if not path.is_absolute() or path == Path(part)}
    if outside := [path for path in files if path.is_absolute() or ".." in path.parts]:
        raise ValueError(f"{outside[0]} lies outside of the current folder, and nodes that share no folder do not see it: move it")
    here = Path()
    packages = [path.parent for path in here.glob("*/__init__.py") if path.parent.resolve() != PACKAGE]
    files |= {*here.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))}
    return {path.as_posix(): path.read_bytes() for path in files}


@contextmanager
def _inside(place: str | Path) -> Iterator[None]:
    """Work in a folder whose modules can be imported, after all others."""
    with chdir(place):
        sys.path.append(str(place))
        try:
            yield
        finally:
            sys.path.remove(str(place))
