"""The files of a trial in a place that all machines reach, such as s3://bucket/folder, where they share no folder."""

import re
import secrets
import shutil
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from semconv.configuration import one_line
from semconv.files import TEMPORARY, write_whole
from semconv.tracking.secrets import redact

OWNER = "owner"  # file that names the process whose files these are
SHOWN = re.compile(r".*\.(jsonl|json|yaml|log)")  # files that a sweep reads while a trial runs
ASIDE = ".part"


class Storage:
    """A place for the files of one trial, and the folder of this machine that they are copied from and into.

    Files appear in both under their own names once they are complete.

    Args:
        address: any place that fsspec knows.
        folder: a sweep's folder on this machine.

    Raises:
        ValueError: fsspec does not know the place, lacks a package for it or does not reach it, or other machines cannot see it.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self._given = redact(address)
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(address)
        except Exception as error:  # each kind of storage has errors of its own
            raise ValueError(f"--storage {self._given}: {one_line(error, 200)}") from error
        if not address.strip() or "memory" in self._files.protocol:
            raise ValueError(f"--storage {self._given!r} is no place that all machines reach: give a folder, or s3://bucket/folder")
        self.folder = folder
        self._mark = secrets.token_hex(8)
        self._sent: dict[Path, tuple[float, ...]] = {}
        self._fetched: dict[str, str] = {}

    @property
    def address(self) -> str:
        """The whole address, on every machine."""
        return str(self._files.unstrip_protocol(self._root))

    @property
    def has_checkpoint(self) -> bool:
        """True once a trial can go on from its files."""
        self._files.invalidate_cache()
        return any(str(path).endswith(".ckpt") for path in self._files.find(self._root))

    def prove(self) -> None:
        """Write a small file, read it, and remove it.

        Raises:
            ValueError: that does not work.
        """
        name, content = f"proof-{self._mark}", self._mark.encode()
        try:
            self._write(name, BytesIO(content))
            read = self._files.cat_file(f"{self._root}/{name}")
            self._files.rm(f"{self._root}/{name}")
        except Exception as error:  # each kind of storage has errors of its own
            reason = one_line(error, 200) or type(error).__name__
            raise ValueError(f"--storage {self._given} cannot be written: {reason}: give another") from error
        if read != content:
            raise ValueError(f"--storage {self._given} does not give back what was written: give another")

    def take(self) -> None:
        """Make this process the one that the trial's files are written by; the one before it loses them."""
        self._write(OWNER, BytesIO(self._mark.encode()))

    @property
    def is_ours(self) -> bool:
        """False once another process has taken the trial's files."""
        return self._files.cat_file(f"{self._root}/{OWNER}") == self._mark.encode()

    def fetch(self, everything: bool = True) -> None:
        """Copy files that are new or have changed into the folder.

        Args:
            everything: also checkpoints and pictures.
        """
        self._files.invalidate_cache()
        for path, about in self._files.find(self._root, detail=True).items():
            name, known = str(path)[len(self._root) :].lstrip("/"), str(about)
            if name == OWNER or name.endswith(ASIDE) or self._fetched.get(name) == known:
                continue
            if everything or SHOWN.fullmatch(name):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                with self._files.open(path, "rb") as source:
                    write_whole(self.folder / name, partial(shutil.copyfileobj, source))
                self._fetched[name], self._sent[self.folder / name] = known, _state(self.folder / name)

    def send(self, *places: Path) -> None:
        """Copy files that are new or have changed from the folder.

        Checkpoints come last, and are those from before the others were read: they hold no step that the records lack.

        Args:
            places: files and folders below the folder.
        """
        inner = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*")))]
        changed = {path: state for path in inner if (state := _state(path)) and self._sent.get(path) != state}
        checkpoints = [path for path in changed if path.suffix == ".ckpt"]
        with ExitStack() as stack:
            pinned = {path: stack.enter_context(open(path, "rb")) for path in checkpoints}
            for path in sorted(changed, key=lambda path: path in pinned):
                with open(path, "rb") as opened:
                    self._write(path.relative_to(self.folder).as_posix(), pinned.get(path, opened))
                self._sent[path] = changed[path]

    def _write(self, name: str, source: BinaryIO) -> None:
        path = f"{self._root}/{name}"
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        with self._files.open(f"{path}{ASIDE}", "wb") as file:
            shutil.copyfileobj(source, file)
        self._files.mv(f"{path}{ASIDE}", path)


def _state(path: Path) -> tuple[float, ...]:
    """What changes with a file's content; empty for what is not sent."""
    if not path.is_file() or path.name == "run.lock" or TEMPORARY.fullmatch(path.name):
        return ()
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
