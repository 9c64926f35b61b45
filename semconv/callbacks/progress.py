"""The progress line on the terminal."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from semconv.cost import count_images


class RunProgress(ProgressBar):
    """One line for the whole run: steps, loss, images per second, time left. It waits for the device only four times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Progress | None = None
        self._task, self._images = TaskID(0), 0
        self._read_at = self._start = 0.0
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if not self._enabled:
            return
        self._bar = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(file=sys.stderr),
            refresh_per_second=4,
        )
        self._start, self._images = time.monotonic(), 0
        total = int(trainer.estimated_stepping_batches)
        self._task = self._bar.add_task("train", total=total, completed=trainer.global_step, loss="-", rate=None)
        self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._bar is None:
            return
        self._images += count_images(batch) * trainer.world_size
        now = time.monotonic()
        if now - self._read_at > 0.25 or trainer.global_step >= self._bar.tasks[0].total:  # type: ignore[operator]
            rate, self._read_at = self._images / (now - self._start), now
            loss = outputs["loss"].item() * trainer.accumulate_grad_batches  # by which Lightning has divided it
            self._bar.update(self._task, completed=trainer.global_step, loss=f"{loss:.4f}", rate=rate)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.fields["rate"]
        return Text("- images/s" if rate is None else f"{rate:,.0f} images/s")
