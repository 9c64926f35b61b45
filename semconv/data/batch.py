"""What a training or evaluation step receives."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Images with what identifies them.

    On their way from the loader to the device the images are uint8, and may still have to be cropped and flipped;
    `ImageData.on_after_batch_transfer` does so and normalises them.
    """

    images: Tensor  # b c h w, float32, normalised with the data's channel mean and deviation
    labels: Tensor  # b, int64, -1 where unlabelled
    # place in the data set; train and its hashed validation count together; it hides tuple.index, which nobody needs
    index: Tensor  # type: ignore[assignment]  # b, int64
    boxes: Tensor | None = None  # b 4, int64: top, left, height and width of what is still to be cut out
    flipped: Tensor | None = None  # b, bool: what is still to be flipped
    frame: Tensor | None = None  # b 5, float32: where in the original image this is, see `View`; crop and flip are counted already
    external: Tensor | None = None  # b 1 h w: a map that comes with each image, see `View`; cropped and flipped already


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Scale uint8 images (b c h w) to 0..1, then to mean 0 and deviation 1 per channel: float32, on the same device."""
    centre, spread = _on_device(mean, std, images.device)
    return (images.float() / 255 - centre) / spread


def to_unit(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Normalised images (b c h w) on the scale of 0 to 1 again, cut to it: float32."""
    centre, spread = _on_device(mean, std, images.device)
    return (images.float() * spread + centre).clamp(0, 1)


@cache  # a copy per step would wait for the device
def _on_device(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    return (
        torch.tensor(mean, device=device)[:, None, None],
        torch.tensor(std, device=device)[:, None, None],
    )
