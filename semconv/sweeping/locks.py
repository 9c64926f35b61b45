"""Locks that the operating system releases with the last process that holds them, however it ends: no lock is ever stale."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import reduction
from pathlib import Path
from typing import Any


class Lock:
    """A file lock with one owner. Processes started by the owner can hold it together with the owner.

    Args:
        path: the file; created if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock; False if it is held and `wait` is False."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Release the lock; it is free once every process that received it has ended."""
        os.close(self.descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        # a process that multiprocessing starts gets the same open file, and with it the lock
        return _received, (reduction.DupFd(self.descriptor),)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock while the block lasts."""
    lock = Lock(path)
    try:
        lock.acquire()
        yield
    finally:
        lock.close()


class JournalLock:
    """The lock of Optuna's journal; it also removes an incomplete last line of a killed process.

    Args:
        journal: the journal's file.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self._lock: Lock | None = None

    def acquire(self) -> bool:
        self._lock = Lock(self.journal.with_suffix(".lock"))
        self._lock.acquire()
        _mend(self.journal)
        return True

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _mend(journal: Path) -> None:
    if not journal.exists():
        return
    with open(journal, "rb+") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end > 0:
            file.seek(max(end - 4096, 0))
            block = file.read(min(end, 4096))
            if (found := block.rfind(b"\n")) >= 0:
                end = max(end - 4096, 0) + found + 1
                break
            end = max(end - 4096, 0)
        if end < size:
            file.truncate(end)


def _received(handed: Any) -> int:
    return handed.detach()
