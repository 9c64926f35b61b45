"""The terminal output of a sweep: one line per trial, live while it runs, permanent when it has ended."""

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from semconv.sweeping.ledger import Ending
from semconv.sweeping.points import NO_SETTING, OF_STUDY
from semconv.sweeping.trials import Trial
from semconv.tracking.secrets import redact

COLOURS = {"finished": "green", "stopped": "yellow", "diverged": "yellow", "failed": "red"}
LONGEST = 60  # characters of a trial's parameters


class Display:
    """Shows the progress of a sweep.

    Args:
        console: console to write to.
        total: maximal number of trials; None if unknown.
        elsewhere: places, from 1, of the trials whose runs others have finished.
    """

    def __init__(self, console: Console, total: int | None, elsewhere: Collection[int] = ()) -> None:
        self.console, self.total, self.elsewhere = console, total, elsewhere
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self._first = self._last = 0  # places of the trials that were started since
        self._began = time.monotonic()

    def __enter__(self) -> "Display":
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def started(self, trial: Trial) -> None:
        """Take note of a trial that has started, and print it if lines cannot be live."""
        self._first = self._first or _place(trial)
        self._last = max(self._last, _place(trial))
        if not self.console.is_terminal:
            self._print(self._line(trial, "started", ""))

    def update(self, trials: Sequence[Trial]) -> None:
        """Show the running trials."""
        if self.console.is_terminal:
            lines = [self._line(trial, "stopping" if trial.stopping else "running", progress(trial)) for trial in trials]
            self.live.update(Text("\n").join(lines), refresh=True)

    def ended(self, trial: Trial, ending: Ending | str, value: float | None, reason: str) -> None:
        """Print the permanent line of a trial that has ended."""
        measured = f"{trial.sweep.metric} {value:.4f}" if value is not None else ""
        self._print(self._line(trial, ending, ", ".join(filter(None, (measured, reason, self._left())))))

    def note(self, text: str) -> None:
        """Print a line that is not of a trial."""
        self._print(Text(text))

    def _line(self, trial: Trial, state: str, what: str) -> Text:
        of = f"/{self.total}" if self.total else ""
        seconds = time.monotonic() - trial.started
        line = Text(f"{_place(trial):>4}{of}  ")
        line.append(f"{state:<12}", COLOURS.get(state, ""))
        longest = LONGEST if self.console.is_terminal else None  # a log has room
        line.append(f"{seconds:>6.0f} s  {described(trial.sweep.varied(trial.claim.parameters), longest)}  {what}")
        return line

    def _left(self) -> str:
        """The time until the last trial starts, at the rate at which this process and others have taken trials so far."""
        taken = self._trials(self._first, self._last)
        ahead = self._trials(self._last, self.total or 0)
        if not taken or not ahead:
            return ""
        seconds = (time.monotonic() - self._began) / taken * ahead
        return f"{timedelta(seconds=round(seconds))} left"

    def _trials(self, after: int, to: int) -> int:
        """The number of places behind one and up to another, without those whose runs are finished elsewhere."""
        return sum(place not in self.elsewhere for place in range(after + 1, to + 1))

    def _print(self, line: Text) -> None:
        self.console.print(line, soft_wrap=True)


def described(parameters: Mapping[str, Any], longest: int | None = LONGEST) -> str:
    """Abbreviate parameters: the last part of each key, files without folder and suffix.

    Args:
        parameters: values by key.
        longest: characters that are kept; None: all.
    """
    words = [_bare(value) if name == "config" else f"{_last(name)}={_number(value)}" for name, value in redact(parameters).items()]
    text = " ".join(words)
    return text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"


def progress(trial: Trial) -> str:
    """The progress of a run: its last step, and the newest value of the sweep's metric or of the loss."""
    newest = trial.history.look().newest
    if not newest:
        return "starting"
    shown = [key for key in (trial.sweep.metric, "train/loss") if key and isinstance(newest.get(key), int | float)]
    return f"step {newest.get('step')}" + (f", {shown[0]} {newest[shown[0]]:.4f}" if shown else "")


def _place(trial: Trial) -> int:
    """The number of a trial, from 1; one that is tried again keeps it."""
    return int(trial.claim.run.rpartition("-")[2]) + 1


def _bare(files: Any) -> str:
    paths = [PurePosixPath(name) for name in str(files).split(",")]
    if paths[-1].parts[-3:-2] == (OF_STUDY,):
        return " ".join(name for name in (paths[-1].parent.name, paths[-1].name.removesuffix(".yaml")) if name != NO_SETTING)
    return "+".join(path.name.removesuffix(".yaml") for path in paths)


def _last(key: str) -> str:
    return "seed" if key == "seed_everything" else key.rpartition(".")[2]


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
