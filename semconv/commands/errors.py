"""Errors for the user: one line on the terminal, and exit code 2."""

import errno
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from semconv.tracking.secrets import redact

CHECKS = {"connectors", "accelerators"}  # modules of Lightning that check the options of a trainer
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
PACKAGE = Path(__file__).parents[1]


def fail(message: str) -> NoReturn:
    """Print one line and exit with code 2."""
    print("semconv: error: " + redact(" ".join(message.split())), file=sys.stderr)
    sys.exit(2)


@contextmanager
def in_one_line(debug: bool = False) -> Iterator[None]:
    """Print an error for the user on one line and exit with code 2; other errors keep their traceback.

    Args:
        debug: show the traceback of both kinds.
    """
    try:
        yield
    except Exception as error:
        if (said := user_message(error)) is None:
            raise
        if debug:
            print(redact(traceback.format_exc()), file=sys.stderr)
        fail(said)


def user_message(error: Exception) -> str | None:
    """The message for the user of an error, or of the cause that jsonargparse has wrapped; None for others."""
    return next((message for cause in causes(error) if (message := own_message(cause))), None)


def causes(error: BaseException) -> list[BaseException]:
    """The chain of an error and its causes, the first cause last."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def own_message(error: BaseException) -> str | None:
    """The message of an error that this package, Lightning or the operating system raised for the user; None for any other."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and (error.filename or error.errno in DISK):
        return f"{error.filename or 'the output'}: {error.strerror}: free disk space, give access, or choose another folder"
    if "in DataLoader worker process" in text:  # raised again from a worker, with its traceback as text
        frames = re.findall(r'File "([^"]+)", line', text)
        text = text.strip().splitlines()[-1].partition(": ")[2]
    else:
        frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = isinstance(error, ValueError) and frames and Path(frames[-1]).is_relative_to(PACKAGE)
    return text if own or _is_lightnings(error, frames) else None


def _is_lightnings(error: BaseException, frames: Sequence[str]) -> bool:
    """True where Lightning refuses an option, misses a package or, in EarlyStopping, a metric."""
    parts = Path(frames[-1]).parts if frames else ()
    refused = type(error).__name__ in ("MisconfigurationException", "ModuleNotFoundError")
    refused = refused or (isinstance(error, ValueError | TypeError) and not CHECKS.isdisjoint(parts))
    return "lightning" in parts and (refused or parts[-1] == "early_stopping.py")
