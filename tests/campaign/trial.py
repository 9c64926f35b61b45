"""One attempt, and how a command is tried in this process."""

import contextlib
import io
import re
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

# what only someone who knows the code can read
INTERNALS = re.compile(
    r"Traceback|<class '|<function |<bound method|NoneType|object at 0x|has no attribute|omegaconf\.|argparse\.|Errno"
)


PATIENCE = 100  # seconds that a command may take


class Trial(NamedTuple):
    """What came of one attempt."""

    outcome: str  # in a word or two, as the table counts it
    fine: bool
    case: str  # what was tried
    said: str = ""  # what there was to read, where it is not fine


Trials = Callable[[Random, Path], Iterator[Trial]]  # endless, of a generator and an empty folder


def attempt(call: Callable[[], object], case: str) -> Trial:
    """Call what may refuse its input: by exit code 2 and one line on stderr, or by a `ValueError` of one line."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with _at_most(PATIENCE), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            call()
    except _Hung:
        return Trial("hangs", False, case, err.getvalue()[-1000:])
    except SystemExit as end:
        lines = [line for line in err.getvalue().splitlines() if line.startswith("semconv: error:")]
        if end.code in (0, None):
            return Trial("accepted", True, case)
        if end.code != 2 or len(lines) != 1:
            return Trial("not one line", False, case, f"exit code {end.code}: {err.getvalue()[-1000:]}")
        return _refusal(lines[0], case)
    except ValueError as error:
        ours = "semconv" in traceback.extract_tb(error.__traceback__)[-1].filename
        return _refusal(str(error), case) if ours else Trial("traceback", False, case, traceback.format_exc()[-1500:])
    except Exception:
        return Trial("traceback", False, case, traceback.format_exc()[-1500:])
    return Trial("accepted", True, case)


class _Hung(BaseException):
    """Raised in what takes too long."""


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _refusal(text: str, case: str) -> Trial:
    if INTERNALS.search(text) or "\n" in text.strip():
        return Trial("Python internals", False, case, text)
    return Trial("refused in one line", True, case, text)
