"""What is done to an image before an encoder sees it.

A corruption turns an image and its mask into a `View`, the only thing an encoder ever gets. A fill says what stands in the cells
that are hidden. Filling selects, it never multiplies: NaN times zero is NaN, and would leak.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from semconv.hashing import make_keys, normal, permutation
from semconv.masking import spread_mask


class View(NamedTuple):
    """What an encoder sees."""

    pixels: Tensor  # b c h w: the image with its corrupted cells replaced
    mask: Tensor  # bool b gh gw, True = masked: the cells that a network can be told of
    num_masked: int  # how many cells are masked, the same in every image: an int, so that no device has to be asked
    # b 5: what was cut out of the original image, over which x and y go from -1 to 1: the centre, half the width and half
    # the height (negative where flipped), and the log of how much more the width was squeezed than the height; None: all of it
    frame: Tensor | None = None
    # b 1 h w: a map that comes with each image: classes (uint8), or values from 0 to 1 (float32)
    external: Tensor | None = None

    def check(self) -> None:
        """Compare `num_masked` with the mask, where this costs nothing: on a CPU, outside of compiled code.

        Raises:
            ValueError: an image has another number of masked cells. Encoders that drop masked cells would read hidden ones.
        """
        if torch.compiler.is_compiling() or self.mask.device.type != "cpu":
            return
        counts = self.mask.flatten(1).sum(1)
        if not bool((counts == self.num_masked).all()):
            raise ValueError(
                f"num_masked is {self.num_masked}, but images of the batch have {int(counts.min())} to {int(counts.max())} masked cells: "
                "mask the same number in every image, as semconv.masking.RandomMasker does, and give that number"
            )


class Fill(ABC):
    """What stands in hidden cells."""

    @abstractmethod
    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> Tensor:
        """Replace the masked cells.

        Args:
            images: `b c h w`, normalised.
            mask: bool `b gh gw`, True = masked.
            num_masked: masked cells in every image.
            keys: int64 hash keys, one per image: `b`.

        Returns:
            `b c h w`, in which no masked pixel has left a trace.
        """


class ZeroFill(Fill):
    """Zero, which is the data's mean colour after normalisation."""

    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> Tensor:
        return images.masked_fill(spread_mask(mask, _size(images)), 0)


class CamouflageFill(Fill):
    """A visible cell of the same image, dealt at random without repeats until all have served.

    So no pixel's value says that it is masked. Who compares all cells of an image learns something from repeats, but not which of
    the equal ones is the original; where the masked cells are no whole multiple of the visible ones (at .5 and .75 they are), a
    cell that never repeats is a visible one.
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
    """How chosen cells are made unlike the target.

    Attributes:
        hides: whether nothing is left to be seen of the cells that its views call masked.
    """

    hides: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> View:
        """Corrupt the chosen cells; arguments as for `Fill`."""


class Hide(Corruption):
    """Nothing of the chosen cells is seen (MAE).

    Args:
        fill: what stands in their place; zero by default.
    """

    def __init__(self, fill: Fill | None = None) -> None:
        self.fill = fill or ZeroFill()

    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> View:
        return View(self.fill(images, mask, num_masked, keys), mask, num_masked)


class Noise(Corruption):
    """The chosen cells are seen through additive noise: a denoising autoencoder (Vincent et al., 2010).

    Args:
        std: standard deviation of the noise, in units of the normalised image.
    """

    hides = False

    def __init__(self, std: float = 1.0) -> None:
        if std < 0:
            raise ValueError(f"noise std is {std}: give a number of at least 0")
        self.std = std

    def __call__(self, images: Tensor, mask: Tensor, num_masked: int, keys: Tensor) -> View:
        noisy = images + self.std * _noise_like(images, keys)
        return View(torch.where(spread_mask(mask, _size(images)), noisy, images), mask, num_masked)


class Bert(Corruption):
    """Of the chosen cells most are hidden, some show another visible cell, the rest are left (BERT; Devlin et al., 2019).

    The view's mask holds the hidden cells alone: that the others were chosen is what a network is not told.

    Args:
        fill: what stands in the hidden cells; zero by default.
        hidden: share of the chosen cells that is hidden.
        other: share of the chosen cells that shows another cell of the image.
    """

    def __init__(self, fill: Fill | None = None, hidden: float = 0.8, other: float = 0.1) -> None:
        if hidden <= 0 or other < 0 or hidden + other > 1:
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
    """A random rank among the masked cells for each of them; visible cells rank after all of these: `b gh gw`."""
    n = mask[0].numel()
    order = permutation(make_keys(keys, "role"), n) + n * (~mask).flatten(1)
    return order.argsort(-1).argsort(-1).view(mask.shape)


def _deal_visible(mask: Tensor, num_masked: int, keys: Tensor) -> Tensor:
    """For each cell the number of the cell whose content it shows, itself unless masked: int64 `b n`."""
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
