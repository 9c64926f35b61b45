"""Maskers: the choice of the image cells that are masked.

A mask is bool, `b gh gw` on the grid of mask cells, True = masked. A masker only orders the cells, and the first `count` cells of
that order are masked: so the count is exact for every masker, and the same in every image.
"""

import math
from abc import ABC, abstractmethod
from functools import cache
from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Tensor

from semconv.configuration import require_choice
from semconv.hashing import make_keys, permutation, uniform

Side = Literal["left", "right", "top", "bottom", "random"]


class Masker(ABC):
    """A masker: masks `round(ratio * n)` of the n cells of an image.

    Args:
        ratio: masked share of the cells, or a range from which each training step draws one share for its whole batch;
            evaluation then uses the middle of the range.
    """

    def __init__(self, ratio: float | tuple[float, float] = 0.75) -> None:
        low, high = ratio if isinstance(ratio, tuple | list) else (ratio, ratio)
        if not 0 < low <= high < 1:
            raise ValueError(f"mask ratio is {ratio}: give a share, or a rising range of shares, between 0 and 1")
        self.low, self.high = low, high

    @abstractmethod
    def order(self, keys: Tensor, grid: tuple[int, int]) -> Tensor:
        """One number per cell, `b n` in reading order: the cells with the lowest numbers are masked first.

        Args:
            keys: int64 hash keys, one per image: `b`.
            grid: rows and columns of cells.
        """

    def __call__(self, keys: Tensor, grid: tuple[int, int], count: int) -> Tensor:
        """Mask `count` cells of each image: bool `b gh gw`, True = masked."""
        ranks = self.order(keys, grid).argsort(dim=-1, stable=True).argsort(dim=-1)
        return rearrange(ranks < count, "b (gh gw) -> b gh gw", gh=grid[0], gw=grid[1])

    def count(self, num_cells: int, place: float = 0.5) -> int:
        """The number of cells that are masked in every image.

        Args:
            num_cells: cells per image.
            place: in a range of ratios, from 0 (its low end) to 1; a training step draws it, evaluation takes the middle.

        Raises:
            ValueError: no cell, or every cell, would be masked.
        """
        self.check(num_cells)
        return round((self.low + place * (self.high - self.low)) * num_cells)

    def check(self, num_cells: int) -> None:
        """Refuse a ratio that masks no cell or every cell, also at an end of a range.

        Raises:
            ValueError: no cell, or every cell, would be masked.
        """
        for ratio in (self.low, self.high):
            count = round(ratio * num_cells)
            if not 0 < count < num_cells:
                raise ValueError(
                    f"mask ratio {ratio:g} hides {count} of {num_cells} cells: "
                    "at least one must be hidden and one visible; change the ratio or use smaller cells"
                )


class RandomMasker(Masker):
    """Cells drawn uniformly at random (MAE; He et al., 2022)."""

    def order(self, keys: Tensor, grid: tuple[int, int]) -> Tensor:
        return permutation(make_keys(keys, "cells"), math.prod(grid))


class BlockMasker(Masker):
    """Random rectangles that may overlap, drawn until they cover enough cells (BEiT; Bao et al., 2022, algorithm 1).

    The last rectangle is filled in reading order only as far as the count allows, so that the count is exact.

    Args:
        ratio: masked share of the cells, or a range that each training step draws from.
        min_block: smallest area of a rectangle, as a share of the image (BEiT: 16 of 196 cells).
        min_aspect: narrowest aspect ratio; the widest is its inverse (BEiT: .3).
    """

    NUM_BLOCKS = 32

    def __init__(self, ratio: float | tuple[float, float] = 0.4, min_block: float = 16 / 196, min_aspect: float = 0.3) -> None:
        super().__init__(ratio)
        if not 0 < min_block <= 1 or not 0 < min_aspect <= 1:
            raise ValueError(f"min_block {min_block} and min_aspect {min_aspect} must lie in (0, 1]")
        self.min_block, self.min_aspect = min_block, min_aspect

    def order(self, keys: Tensor, grid: tuple[int, int]) -> Tensor:
        n = math.prod(grid)
        covered = rearrange(self._rectangles(keys, grid), "b t gh gw -> b t (gh gw)")
        number = torch.arange(self.NUM_BLOCKS, device=keys.device)
        # the first rectangle that covers a cell; cells that no rectangle covers come last, in random order
        first = torch.where(covered, number[:, None], self.NUM_BLOCKS).amin(1)
        inside = torch.arange(n, device=keys.device)
        rest = permutation(make_keys(keys, "rest"), n)
        return first * n + torch.where(first < self.NUM_BLOCKS, inside, rest)

    def _rectangles(self, keys: Tensor, grid: tuple[int, int]) -> Tensor:
        draws = uniform(make_keys(keys, "blocks"), 4 * self.NUM_BLOCKS)
        area, aspect, top, left = rearrange(draws, "b (four t) -> four b t", four=4)
        smallest = self.min_block * math.prod(grid)
        largest = max(smallest, self.high * math.prod(grid))
        area = smallest + area * (largest - smallest)
        aspect = torch.exp((2 * aspect - 1) * math.log(1 / self.min_aspect))
        rows = _span(torch.sqrt(area * aspect), top, grid[0])
        columns = _span(torch.sqrt(area / aspect), left, grid[1])
        return rows[..., :, None] & columns[..., None, :]


class GridMasker(Masker):
    """Visible cells on a regular grid: at ratio .75 one cell of every 2 x 2, at .5 a checkerboard (MAE, sec. 4.1).

    Bayer's dither matrix, shifted at random per image, orders the cells, so that other ratios are spread evenly too.
    """

    def order(self, keys: Tensor, grid: tuple[int, int]) -> Tensor:
        bits = (max(grid) - 1).bit_length()
        shift = (uniform(make_keys(keys, "shift"), 2) * 2**bits).long()
        row = torch.arange(grid[0], device=keys.device) + shift[:, :1]
        column = torch.arange(grid[1], device=keys.device) + shift[:, 1:]
        return -rearrange(_bayer(row[:, :, None], column[:, None, :], bits), "b gh gw -> b (gh gw)")


class RasterMasker(Masker):
    """The end of the image in reading order, as hidden from an autoregressive model; a range of ratios gives random lengths."""

    def order(self, keys: Tensor, grid: tuple[int, int]) -> Tensor:
        return -_same_for_all(torch.arange(math.prod(grid), device=keys.device), keys)


class CentreMasker(Masker):
    """The cells nearest the centre: a rectangle of the image's aspect ratio."""

    def __init__(self, ratio: float | tuple[float, float] = 0.25) -> None:
        super().__init__(ratio)

    def order(self, keys: Tensor, grid: tuple[int, int]) -> Tensor:
        return _same_for_all(_rings(grid, keys.device), keys)


class HalfMasker(Masker):
    """The cells of one side of the image.

    Args:
        ratio: masked share of the cells, or a range that each training step draws from.
        side: the masked side; `random` draws one per image.
    """

    def __init__(self, ratio: float | tuple[float, float] = 0.5, side: Side = "random") -> None:
        super().__init__(ratio)
        require_choice("side", side, Side)
        self.side = side

    def order(self, keys: Tensor, grid: tuple[int, int]) -> Tensor:
        row, column = torch.meshgrid(*(torch.arange(length, device=keys.device) for length in grid), indexing="ij")
        sides = {"left": column, "right": -column, "top": row, "bottom": -row}
        if self.side != "random":
            return _same_for_all(sides[self.side].flatten(), keys)
        orders = torch.stack([side.flatten() for side in sides.values()])
        return orders[(uniform(make_keys(keys, "side"), 1)[:, 0] * 4).long()]


MASKERS: tuple[type[Masker], ...] = (RandomMasker, BlockMasker, GridMasker, RasterMasker, CentreMasker, HalfMasker)


def spread_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Expand a mask from cells to pixels: bool `b gh gw` to bool `b 1 h w`.

    Raises:
        ValueError: a side of the image is not a multiple of the grid's.
    """
    height, width = mask.shape[1:]
    if size[0] % height or size[1] % width:
        raise ValueError(f"an image of {size[0]} x {size[1]} pixels cannot carry {height} x {width} equal cells")
    return repeat(mask, "b gh gw -> b 1 (gh p) (gw q)", p=size[0] // height, q=size[1] // width)


def _span(length: Tensor, place: Tensor, limit: int) -> Tensor:
    """Intervals of the given lengths, placed at random inside `limit`: bool `b t limit`."""
    length = length.round().clamp(1, limit)
    start = (place * (limit - length + 1)).floor()
    position = torch.arange(limit, device=length.device)
    return (position >= start[..., None]) & (position < (start + length)[..., None])


def _bayer(row: Tensor, column: Tensor, bits: int) -> Tensor:
    """Bayer's matrix of side 2**bits (Bayer, 1973), repeated: integers below 4**bits."""
    value = torch.zeros_like(row + column)
    for bit in range(bits):
        r, c = (row >> bit) & 1, (column >> bit) & 1
        value = (value << 2) | ((r ^ c) << 1) | r
    return value


@cache  # a copy at every step would wait for the device
def _rings(grid: tuple[int, int], device: torch.device) -> Tensor:
    """The rank of each cell by its distance from the centre: `n`."""
    row, column = (_offsets(length) for length in grid)
    row, column = row[:, None], column[None, :]
    # the Euclidean term orders the cells of one ring: the middle of its sides before its corners
    distance = torch.maximum(row.abs(), column.abs()) + (row**2 + column**2) * (0.1 / max(grid))
    # computed on the CPU, because not every device has float64
    return distance.flatten().argsort(stable=True).argsort().to(device)


def _offsets(length: int) -> Tensor:
    """Signed distance of each cell's centre from the middle, as a share of the side, float64."""
    return (torch.arange(length, dtype=torch.float64) + 0.5) / length - 0.5


def _same_for_all(order: Tensor, keys: Tensor) -> Tensor:
    return repeat(order, "n -> b n", b=keys.shape[0])
