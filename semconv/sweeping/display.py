"""The terminal output of a sweep: one line per trial, live while it runs, permanent when it has ended."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from semconv.sweeping.ledger import Ending
from semconv.sweeping.trials import Trial

COLOURS = {"finished": "green", "stopped": "yellow", "diverged": "yellow", "failed": "red"}
LONGEST = 60  # characters of a trial's parameters


class Display:
    """Shows the progress of a sweep.

    Args:
        console: console to write to.
        total: maximal number of trials; None if unknown.
    """

    def __init__(self, console: Console, total: int | None) -> None:
        self.console, self.total = console, total
        self.live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Display":
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def started(self, trial: Trial) -> None:
        """Print that a trial has started, if lines cannot be live."""
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
        self._print(self._line(trial, ending, " ".join(filter(None, (measured, reason)))))

    def note(self, text: str) -> None:
        """Print a line that is not of a trial."""
        self._print(Text(text))

    def _line(self, trial: Trial, state: str, what: str) -> Text:
        of = f"/{self.total}" if self.total else ""
        seconds = time.monotonic() - trial.started
        place = int(trial.claim.run.rpartition("-")[2]) + 1  # a retried trial keeps the number of its first try
        line = Text(f"{place:>4}{of}  ")
        line.append(f"{state:<12}", COLOURS.get(state, ""))
        longest = LONGEST if self.console.is_terminal else None  # a log has room
        line.append(f"{seconds:>6.0f} s  {described(trial.sweep.varied(trial.claim.parameters), longest)}  {what}")
        return line

    def _print(self, line: Text) -> None:
        self.console.print(line, soft_wrap=True)


def described(parameters: Mapping[str, Any], longest: int | None = LONGEST) -> str:
    """Abbreviate parameters: the last part of each key, files without folder and suffix.

    Args:
        parameters: values by key.
        longest: characters that are kept; None: all.
    """
    words = [_bare(value) if name == "config" else f"{_last(name)}={_number(value)}" for name, value in parameters.items()]
    text = " ".join(words)
    return text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"


def progress(trial: Trial) -> str:
    """The progress of a run: its last step, and the newest value of the sweep's metric or of the loss."""
    newest = trial.history.look().newest
    if not newest:
        return "starting"
    shown = [key for key in (trial.sweep.metric, "train/loss") if key and isinstance(newest.get(key), int | float)]
    return f"step {newest.get('step')}" + (f", {shown[0]} {newest[shown[0]]:.4f}" if shown else "")


def _bare(files: Any) -> str:
    names = [name.rpartition("/")[2].removesuffix(".yaml") for name in str(files).split(",")]
    return "+".join(name for name in names if not names[-1].startswith(f"{name}@"))  # a point of a study: cnn_plain@0.016


def _last(key: str) -> str:
    return "seed" if key == "seed_everything" else key.rpartition(".")[2]


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
