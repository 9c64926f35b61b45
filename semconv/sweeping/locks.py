"""Optuna's journal, and its lock."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from semconv.configuration import one_line
from semconv.files import naming
from semconv.tracking.locks import Lock


class Journal(JournalFileBackend):
    """Optuna's journal; errors name its file."""

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal), lock_obj=JournalLock(journal))  # type: ignore[arg-type]
        self.journal = journal

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        try:
            yield from super().read_logs(log_number_from)
        except ValueError as error:
            raise ValueError(f"{self.journal} is damaged ({one_line(error, 80)}): restore it, or give another --output") from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with naming(self.journal):
            super().append_logs(logs)


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
