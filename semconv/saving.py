"""Checkpoints that are whole or not there."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from semconv.tracking.files import write_whole
from semconv.tracking.folder import is_whole


class WholeCheckpointIO(CheckpointIO):
    """Writes checkpoints aside, sees them onto the disk and then names them; reads tensors and plain values alone.

    Nothing in a checkpoint is ever run: `torch.load(weights_only=True)`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any | None = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: torch.save(checkpoint, file))

    def load_checkpoint(
        self,
        path: str | os.PathLike,
        map_location: Callable | str | None = lambda storage, location: storage,
        weights_only: bool | None = True,  # Lightning 2.5 does not give it
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path), map_location)

    def remove_checkpoint(self, path: str | os.PathLike) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoints(Checkpoint):
    """Saves `last.ckpt` at each epoch's end and every so many steps, and keeps a copy of the latter as `step-<steps>.ckpt`.

    Args:
        folder: where to.
        every: steps between the checkpoints that are kept; None keeps `last.ckpt` alone.

    Raises:
        ValueError: every is below 1.
    """

    def __init__(self, folder: Path, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"checkpoint_every is {every}: give 1 or more steps, or null")
        self.folder, self.every = folder, every
        self._kept_at = 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        # an epoch's last step is saved when its validation is done, which would else be left out after a resume
        if self._is_due(trainer) and not trainer.is_last_batch:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now; called by all processes."""
        last = self.folder / "last.ckpt"
        trainer.save_checkpoint(last)
        if self._is_due(trainer):
            self._kept_at = trainer.global_step
            if trainer.is_global_zero:
                _link(last, self.folder / f"step-{trainer.global_step:08d}.ckpt")

    def _is_due(self, trainer: Trainer) -> bool:
        return self.every is not None and trainer.global_step % self.every == 0 and trainer.global_step > self._kept_at


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint's content.

    Raises:
        ValueError: there is none, it is not whole, or it holds more than tensors and plain values.
    """
    if not is_whole(path):
        what = "is no whole checkpoint" if path.exists() else "does not exist"
        raise ValueError(f"{path} {what}: give a file such as runs/<experiment>/<run>/checkpoints/last.ckpt")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} holds more than weights and plain values, and is not read: take one that semconv wrote"
        ) from error


def _link(path: Path, name: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except OSError:
        write_whole(name, lambda file: file.write(path.read_bytes()))
