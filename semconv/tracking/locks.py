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


def _received(handed: Any) -> int:
    return handed.detach()
