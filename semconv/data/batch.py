"""Batches, the input of a training or evaluation step."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Images, their labels, and their indices in the data set.

    Between the loader and the device the images are uint8, and may not be cropped and flipped yet;
    `ImageData.on_after_batch_transfer` crops, flips and normalises them.
    """

    images: Tensor  # b c h w, float32, normalised with the data's channel mean and deviation
    labels: Tensor  # b, int64, -1 where unlabelled
    # index in the data set, in which train and its hashed validation count together; it hides tuple.index, which is not used
    index: Tensor  # type: ignore[assignment]  # b, int64
    boxes: Tensor | None = None  # b 4, int64: top, left, height and width of a crop still to be applied
    flipped: Tensor | None = None  # b, bool: flips still to be applied
    frame: Tensor | None = None  # b 5, float32: the crop in the original image, see `View`; it includes crop and flip already
    external: Tensor | None = None  # b 1 h w: a map that comes with each image, see `View`; already cropped and flipped


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Scale uint8 images (b c h w) to 0..1, then to mean 0 and deviation 1 per channel: float32, on the same device."""
    centre, spread = _on_device(mean, std, images.device)
    return (images.float() / 255 - centre) / spread


def to_unit(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Undo the normalisation of images (b c h w), and clip them to 0..1: float32."""
    centre, spread = _on_device(mean, std, images.device)
    return (images.float() * spread + centre).clamp(0, 1)


@cache  # a copy at every step would wait for the device
def _on_device(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    return (
        torch.tensor(mean, device=device)[:, None, None],
        torch.tensor(std, device=device)[:, None, None],
    )
