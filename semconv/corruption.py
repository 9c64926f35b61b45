"""Corruptions of an image, applied before an encoder sees it.

A corruption turns an image and its mask into a `View`, the only input of an encoder. A fill gives the content of hidden cells. It
selects values and never multiplies by 0: NaN times zero is NaN, and would leak hidden pixels.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from semconv.configuration import require
from semconv.hashing import make_keys, normal, permutation
from semconv.masking import spread_mask


class View(NamedTuple):
    """The input of an encoder: the corrupted image and its mask."""

    pixels: Tensor  # b c h w: the image with its corrupted cells replaced
    mask: Tensor  # bool b gh gw, True = masked: the mask that a network can be conditioned on
    num_masked: int  # masked cells, the same number in every image: an int, so that reading it does not wait for the device
    # b 5: the crop in the original image, on which x and y run from -1 to 1: centre x and y, half the width (negative if flipped),
    # half the height, and the log of the crop's aspect ratio (w / h) over the view's; None: the whole image
    frame: Tensor | None = None
    # b 1 h w: a map that comes with each image: classes (uint8), or values from 0 to 1 (float32)
    external: Tensor | None = None

    def check(self) -> None:
        """Compare `num_masked` with the mask, where this costs nothing: on a CPU, outside of compiled code.

        Raises:
            ValueError: the mask is not bool, or an image has another number of masked cells. Encoders that drop masked cells would
                read hidden ones.
        """
        if self.mask.dtype != torch.bool:  # ~ of a mask of bytes is not its opposite
            raise ValueError(f"the mask is {self.mask.dtype}: give mask.bool(), True where masked")
        if torch.compiler.is_compiling() or self.mask.device.type != "cpu":
            return
        counts = self.mask.flatten(1).sum(1)
        if not bool((counts == self.num_masked).all()):
            raise ValueError(
                f"num_masked is {self.num_masked}, but images of the batch have {int(counts.min())} to {int(counts.max())} masked "
                "cells: "
                "mask the same number in every image, as semconv.masking.RandomMasker does, and give that number"
            )


class Fill(ABC):
    """The content of hidden cells."""

    @abstractmethod
    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> Tensor:
        """Replace the masked cells.

        Args:
            images: `b c h w`, normalised.
            mask: bool `b gh gw`, True = masked.
            num_masked: masked cells in every image.
            keys: int64 hash keys, one per image: `b`.

        Returns:
            `b c h w`, which does not depend on any masked pixel.
        """


class ZeroFill(Fill):
    """Zero, the mean colour of the data after normalisation."""

    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> Tensor:
        return images.masked_fill(spread_mask(mask, _size(images)), 0)


class CamouflageFill(Fill):
    """Copies of visible cells of the same image, in random order; each cell is used once before any is used again.

    So no pixel value shows that it is masked. A network that compares all cells of an image can find the copies, but not which of
    two equal cells is the original. If the number of masked cells is not a multiple of the number of visible ones (at ratios .5
    and .75 it is), a cell without a copy must be visible.
    """

    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> Tensor:
        return _replace(images, mask, _deal_visible(mask, num_masked, keys))


class MeanFill(Fill):
    """The mean colour of the image's visible pixels."""

    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> Tensor:
        hidden = spread_mask(mask, _size(images))
        total = images.masked_fill(hidden, 0).sum((2, 3), keepdim=True, dtype=torch.float32)
        mean = total / (~hidden).sum((2, 3), keepdim=True)
        return torch.where(hidden, mean.to(images.dtype), images)


class NoiseFill(Fill):
    """Noise of mean 0 and variance 1, independent for every pixel and channel."""

    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> Tensor:
        return torch.where(spread_mask(mask, _size(images)), _noise_like(images, keys), images)


class Corruption(ABC):
    """A corruption: makes the chosen cells differ from the target.

    Attributes:
        hides: whether the cells that are masked in its views keep nothing of their content.
        hides_chosen: whether all chosen cells are masked in its views, so that none of them keeps anything.
    """

    hides: ClassVar[bool] = True
    hides_chosen: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> View:
        """Corrupt the chosen cells; arguments as for `Fill`."""


class Hide(Corruption):
    """Removal of the chosen cells: none of their content is visible (MAE; He et al., 2022).

    Args:
        fill: the content in their place; zero by default.
    """

    def __init__(self, fill: Fill | None = None) -> None:
        self.fill = fill or ZeroFill()

    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> View:
        return View(self.fill(images, mask, num_masked, keys), mask, num_masked)


class Noise(Corruption):
    """Additive noise on the chosen cells, as for a denoising autoencoder (Vincent et al., 2010).

    Args:
        std: standard deviation of the noise, in units of the normalised image.
    """

    hides = hides_chosen = False

    def __init__(self, std: float = 1.0) -> None:
        require("noise std", std, 0)
        self.std = std

    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> View:
        noisy = images + self.std * _noise_like(images, keys)
        return View(torch.where(spread_mask(mask, _size(images)), noisy, images), mask, num_masked)


class Bert(Corruption):
    """Of the chosen cells most hidden, some replaced by another visible cell, the rest unchanged (BERT; Devlin et al., 2019).

    The view's mask holds only the hidden cells: a network cannot know that the other cells were chosen.

    Args:
        fill: the content of hidden cells; zero by default.
        hidden: hidden share of the chosen cells.
        other: share of the chosen cells that shows another cell of the image.
    """

    hides_chosen = False

    def __init__(self, fill: Fill | None = None, hidden: float = 0.8, other: float = 0.1) -> None:
        if not (hidden > 0 and other >= 0 and hidden + other <= 1):  # nor NaN
            raise ValueError(f"hidden {hidden} and other {other} must be shares that add up to at most 1, hidden above 0")
        self.fill = fill or ZeroFill()
        self.hidden, self.other = hidden, other

    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> View:
        num_hidden = max(1, round(self.hidden * num_masked))
        num_other = min(round(self.other * num_masked), num_masked - num_hidden)
        role = _rank_masked(mask, keys)
        hidden = mask & (role < num_hidden)
        other = mask & (role >= num_hidden) & (role < num_hidden + num_other)
        swapped = _replace(images, other, _deal_visible(mask, num_masked, keys))
        return View(self.fill(swapped, hidden, num_hidden, keys), hidden, num_hidden)


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def _noise_like(images: Tensor, keys: Tensor) -> Tensor:
    noise = normal(make_keys(keys, "noise"), images[0].numel())
    return noise.view(images.shape).to(images.dtype)


def _rank_masked(mask: Tensor, keys: Tensor) -> Tensor:
    """The random rank of each masked cell among the masked ones; visible cells rank after them: `b gh gw`."""
    n = mask[0].numel()
    order = permutation(make_keys(keys, "role"), n) + n * (~mask).flatten(1)
    return order.argsort(-1).argsort(-1).view(mask.shape)


def _deal_visible(mask: Tensor, num_masked: int, keys: Tensor) -> Tensor:
    """For each cell, the index of the cell whose content it shows, its own unless masked: int64 `b n`."""
    n = mask[0].numel()
    shuffled = permutation(make_keys(keys, "deal"), n) + n * mask.flatten(1)
    visible, masked = shuffled.argsort(-1).split([n - num_masked, num_masked], dim=-1)
    dealt = visible[:, torch.arange(num_masked, device=mask.device) % (n - num_masked)]
    source = torch.arange(n, device=mask.device).expand(mask.shape[0], n)
    return source.scatter(1, masked, dealt)


def _replace(images: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Show the content of cell `source` (int64 `b n`) in each masked cell."""
    rows, columns = mask.shape[1:]
    cells = rearrange(images, "b c (gh p) (gw q) -> b (gh gw) (c p q)", gh=rows, gw=columns)
    moved = cells.gather(1, source[..., None].expand_as(cells))
    cells = torch.where(mask.flatten(1)[..., None], moved, cells)
    return rearrange(cells, "b (gh gw) (c p q) -> b c (gh p) (gw q)", gh=rows, c=images.shape[1], p=images.shape[2] // rows)
