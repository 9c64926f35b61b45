"""Files that are complete or absent, whose writers may be killed, or find the disk full. Imports no torch."""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)\.tmp")
_swept: set[Path] = set()  # folders


def user_path(path: Path | str) -> Path:
    """A path as a user writes it: ~ is the home folder, and ~NAME that of a user, also where no shell has replaced it.

    Raises:
        ValueError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # of pathlib
        raise ValueError(f"{path}: there is no home folder {Path(path).parts[0]}: correct it, or give ./{path}") from error


def as_word(path: Path) -> str:
    """A path as a word of a command that is printed, where one that begins with a dash would be an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Let errors of the operating system say which file they are of.

    Raises:
        OSError: of the block, with the file's name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise _named(error, path) from error


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file atomically: under a temporary name, which becomes its own once the content is on the disk.

    Remains of killed writers are removed from the folder.

    Args:
        path: the file; its previous content stays until then.
        write: writes the content into the open file.

    Raises:
        OSError: the file cannot be written; it names the file.
    """
    remove_remains(path.parent)
    aside = temporary(path)
    try:
        with naming(path), open(aside, "wb") as file:
            mark(file.fileno())
            writer = _Writer(file)
            try:
                write(cast(BinaryIO, writer))
                file.flush()
            except Exception as error:
                if writer.failure is None:
                    raise
                raise _named(writer.failure, path) from error  # torch's writer hides the reason
            os.fsync(file.fileno())
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_whole(path, lambda file: file.write(text.encode()))


def append_text(path: Path, text: str) -> None:
    """Add text to the end of a file.

    Raises:
        OSError: it cannot be written; it names the file.
    """
    if path.exists() and not path.is_file():  # a FIFO would wait for a reader
        raise OSError(errno.EINVAL, "it is no file", str(path))
    with naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(text)


def temporary(path: Path) -> Path:
    """The name under which this process writes a file or folder until it is complete."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def mark(descriptor: int) -> None:
    """Mark an open file or folder under a temporary name as being written, until it is closed."""
    with suppress(OSError):  # a file system without locks: then the process id alone tells
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_remains(folder: Path) -> None:
    """Remove what killed writers have left in a folder, once in a process.

    A writer is dead if this machine has no such process, and nobody holds the lock that `mark` takes.

    Args:
        folder: a folder, which need not exist.
    """
    place = folder.absolute()
    if place in _swept:
        return
    _swept.add(place)
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            found = TEMPORARY.fullmatch(entry.name)
            if found and not _lives(int(found["pid"])) and _is_free(entry.path):
                with suppress(OSError):  # another process was faster
                    shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


class _Writer:
    """An open file that remembers why it could not be written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def flush(self) -> None:
        self.file.flush()


def _named(error: OSError, path: Path | str) -> OSError:
    number = error.errno or errno.EIO
    return OSError(number, error.strerror or os.strerror(number), str(path))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _is_free(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
