"""Progress on the terminal, or in the file that it is sent to."""

import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from semconv.cost import count_images

READ_SECONDS = 0.25  # between two looks at the loss, each of which waits for the device
LINE_SECONDS = 30.0  # between two lines in a file


class RunProgress(ProgressBar):
    """Progress of training, validation, test, evaluation of the features and prediction.

    A bar on a terminal; in a file, such as the log of a SLURM job, a line every 30 seconds, and one at the end of each stage.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: Progress | Lines | None = None
        self._enabled, self._read_at = True, 0.0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._begin("train", int(trainer.estimated_stepping_batches), trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._images += count_images(batch) * trainer.world_size
        now = time.monotonic()
        if self._shown is not None and (now - self._read_at > READ_SECONDS or trainer.global_step >= (self._total or 0)):
            self._read_at = now
            loss = outputs["loss"].item() * trainer.accumulate_grad_batches  # by which Lightning has divided it
            self._update(trainer.global_step, f"loss {loss:.4f}, {self._images / (now - self._start):,.0f} images/s")

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._end()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._begin("validation", _number(trainer.num_val_batches))

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._update(self._done + 1)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._end()

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._begin("test", _number(trainer.num_test_batches))

    def on_test_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._update(self._done + 1)

    def on_test_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._begin("evaluation", None)

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._end()

    def on_predict_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._begin("predict", _number(trainer.num_predict_batches))

    def on_predict_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._update(self._done + 1)

    def on_predict_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._end()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._end()

    def _begin(self, stage: str, total: int | None, done: int = 0) -> None:
        """Show a stage; of one whose length is not known, the time alone."""
        self._end()
        self._stage, self._total, self._first, self._done, self._about = stage, total, done, done, ""
        self._start, self._images = time.monotonic(), 0
        if not self._enabled:
            return
        console = Console(file=sys.stderr)
        if console.is_terminal:
            columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[about]}"))
            self._shown = Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=console, refresh_per_second=4)
            self._shown.add_task(stage, total=total, completed=done, about="")
        else:
            self._shown = Lines(self._line, LINE_SECONDS)
        self._shown.start()

    def _update(self, done: int, about: str = "") -> None:
        self._done, self._about = done, about
        if isinstance(self._shown, Progress):
            self._shown.update(TaskID(0), completed=done, about=about)

    def _end(self) -> None:
        shown, self._shown = self._shown, None
        if shown is not None:
            shown.stop()

    def _line(self) -> str:
        seconds, steps = time.monotonic() - self._start, self._done - self._first
        parts = [f"{self._done:,} of {self._total:,}"] if self._total else []
        parts += [self._about] if self._about else []
        if self._total and steps > 0 and self._done < self._total:
            parts.append(f"{_clock(seconds / steps * (self._total - self._done))} left")
        else:
            parts.append(_clock(seconds))
        return f"{self._stage}: {', '.join(parts)}"


class Lines:
    """A line every few seconds, from a thread of its own, so that work is seen to go on also where one step takes long.

    Args:
        describe: gives the line.
        seconds: between two lines.
    """

    def __init__(self, describe: Callable[[], str], seconds: float) -> None:
        self.describe, self.seconds = describe, seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Print from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Print a last line."""
        self._ended.set()
        self._thread.join()
        self._print()

    def _work(self) -> None:
        while not self._ended.wait(self.seconds):
            self._print()

    def _print(self) -> None:
        print(self.describe(), file=sys.stderr, flush=True)


def _number(batches: Any) -> int | None:
    """The number of batches of all loaders; None where a loader has no length."""
    total = sum(batches) if isinstance(batches, list) else batches
    return None if total == float("inf") else int(total)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
