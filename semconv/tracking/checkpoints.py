"""Checkpoints that are complete or absent."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from semconv.files import write_whole
from semconv.tracking.folder import is_whole


class WholeCheckpointIO(CheckpointIO):
    """Writes checkpoints atomically; reads only tensors and plain values.

    Code in a checkpoint never runs: `torch.load(weights_only=True)`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any | None = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: torch.save(checkpoint, file))

    def load_checkpoint(
        self,
        path: str | os.PathLike,
        map_location: Callable | str | None = lambda storage, location: storage,
        weights_only: bool | None = True,  # Lightning 2.5 does not pass it
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path), map_location)

    def remove_checkpoint(self, path: str | os.PathLike) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ValueError: it is missing or incomplete, or holds more than tensors and plain values.
    """
    if not is_whole(path):
        what = "is not a complete checkpoint" if path.exists() else "does not exist"
        raise ValueError(f"{path} {what}: give a file such as runs/<experiment>/<run>/checkpoints/last.ckpt")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} holds more than weights and plain values, and is not read: give a checkpoint that semconv wrote"
        ) from error
    if not isinstance(content, dict) or not {"state_dict", "global_step", "pytorch-lightning_version"} <= content.keys():
        raise ValueError(
            f"{path} is no checkpoint of a run: give one that semconv wrote; semconv.load_mae_checkpoint reads weights of MAE"
        )
    return content
