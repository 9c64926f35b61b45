"""Checkpoints at the end of each epoch, and at a fixed number of steps."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from semconv.tracking.files import write_whole


class Checkpoints(Checkpoint):
    """Saves `last.ckpt` at the end of each epoch and every few steps; the latter are also kept, as `step-<steps>.ckpt`.

    Args:
        folder: folder of the checkpoints.
        every: steps between the checkpoints that are kept; None: only `last.ckpt`, at the end of each epoch.

    Raises:
        ValueError: every is below 1.
    """

    def __init__(self, folder: Path, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"checkpoint_every is {every}: give 1 or more steps, or null")
        self.folder, self.every = folder, every
        self._kept_at = 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        # the last step of an epoch is saved after validation, which a resumed run would skip otherwise
        if self._is_due(trainer) and not trainer.is_last_batch:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now; all processes must call it."""
        last = self.folder / "last.ckpt"
        trainer.save_checkpoint(last)
        if self._is_due(trainer):
            self._kept_at = trainer.global_step
            if trainer.is_global_zero:
                _link(last, self.folder / f"step-{trainer.global_step:08d}.ckpt")

    def _is_due(self, trainer: Trainer) -> bool:
        return self.every is not None and trainer.global_step % self.every == 0 and trainer.global_step > self._kept_at


def _link(path: Path, name: Path) -> None:
    """Link a file to a second name, or copy it if the file system has no links."""
    name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except OSError:
        write_whole(name, lambda file: file.write(path.read_bytes()))
