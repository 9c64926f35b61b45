"""Checkpoints at the end of each epoch, after a fixed time, and at a fixed number of steps."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from semconv.files import temporary, write_whole


def completes_step(trainer: Trainer, batch_idx: int) -> bool:
    """True after the last batch of a step: no checkpoint holds the gradients that earlier ones have accumulated."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


class Checkpoints(Checkpoint):
    """Saves `last.ckpt` at the end of each epoch, every few minutes and every few steps.

    Those at a number of steps are also kept, as `step-<steps>.ckpt`.

    Args:
        folder: folder of the checkpoints.
        every: steps between the checkpoints that are kept; None: none is kept.
        minutes: time between two checkpoints, at most; None: unlimited.
        check: called before each checkpoint by all processes; raises an exception where the weights are not worth saving.

    Raises:
        ValueError: every is below 1, or minutes is not above 0.
    """

    def __init__(
        self,
        folder: Path,
        every: int | None = None,
        minutes: float | None = None,
        check: Callable[[Trainer], None] = lambda trainer: None,
    ) -> None:
        if every is not None and every < 1:
            raise ValueError(f"checkpoint_every is {every}: give 1 or more steps, or null")
        if minutes is not None and not 0 < minutes < float("inf"):
            raise ValueError(f"checkpoint_minutes is {minutes}: give a number above 0, or null")
        self.folder, self.every, self.check = folder, every, check
        self.seconds = None if minutes is None else 60 * minutes
        self._kept_at, self._saved_at = 0, time.monotonic()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._saved_at = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        # the last step of an epoch is saved after validation, which a resumed run would skip otherwise
        if trainer.is_last_batch or not completes_step(trainer, batch_idx):
            return
        if self._is_due(trainer) or self._is_late(trainer):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now; all processes must call it."""
        self.check(trainer)
        last = self.folder / "last.ckpt"
        trainer.save_checkpoint(last)
        self._saved_at = time.monotonic()
        if self._is_due(trainer):
            self._kept_at = trainer.global_step
            if trainer.is_global_zero:
                _link(last, self.folder / f"step-{trainer.global_step:08d}.ckpt")

    def _is_late(self, trainer: Any) -> bool:
        """True if the last checkpoint is too old; the first process says so, where metrics are logged, and all save together."""
        if self.seconds is None or trainer.global_step % trainer.log_every_n_steps:
            return False
        return bool(trainer.strategy.broadcast(time.monotonic() > self._saved_at + self.seconds))

    def _is_due(self, trainer: Trainer) -> bool:
        return self.every is not None and trainer.global_step % self.every == 0 and trainer.global_step > self._kept_at


def _link(path: Path, name: Path) -> None:
    """Link a file to a second name, or copy it if the file system has no links."""
    aside = temporary(name)
    try:
        os.link(path, aside)
        aside.replace(name)
    except OSError:
        write_whole(name, lambda file: file.write(path.read_bytes()))
    finally:
        aside.unlink(missing_ok=True)
