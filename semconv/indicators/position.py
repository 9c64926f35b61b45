"""Indicators of position: the same for all images, and extrapolated beyond the border."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.corruption import View
from semconv.indicators.indicator import Grid, Indicator, Information


class Coordinates(Indicator):
    """x and y of each site's centre, from -1 at the left and top edges of the image to 1 (CoordConv; Liu et al., 2018).

    Closed under shifts: away from borders, a kernel over it can express no more than a single tap. Cost: once for the batch.
    """

    channels, per_image, low, high = 2, False, -1.0, 1.0
    conveys: Information = "position"

    def forward(self, view: View, grid: Grid) -> Tensor:
        y = centres(grid.height, grid.pad[0], view.mask.device)
        x = centres(grid.width, grid.pad[1], view.mask.device)
        return _cross(x, y)


class Radius(Indicator):
    """Distance of each site's centre from the image centre, from 0 to 1 at the corners: photographers centre their subjects.

    A Euclidean distance in pixels, also for images that are not square; it exceeds 1 beyond the corners. Not closed under shifts.
    Cost: once for the batch.
    """

    channels, per_image, low, high = 1, False, 0.0, 1.0
    conveys: Information = "position"

    def forward(self, view: View, grid: Grid) -> Tensor:
        height, width = view.pixels.shape[2:]
        y = centres(grid.height, grid.pad[0], view.mask.device) * height
        x = centres(grid.width, grid.pad[1], view.mask.device) * width
        return _cross(x, y).square().sum(1, keepdim=True).sqrt() / math.hypot(height, width)


class Fourier(Indicator):
    """Fourier features of position: sines and cosines of x and y at 1/2, 1, 2, ... cycles per side, from -1 to 1.

    A frequency that a grid cannot represent, of half as many cycles as sites per side or more, is 0 on that grid: coarse stages get
    less information in the same channels, and no aliasing. Closed under shifts. Cost: once for the batch. Channels: 4 per
    frequency, sine of x, sine of y, cosine of x, cosine of y, lowest frequency first.

    Also known as: sin-cos position embedding (Vaswani et al., 2017), Fourier features (Tancik et al., 2020), input of StyleGAN3.

    Args:
        frequencies: number of frequencies.

    Raises:
        ValueError: the number is below 1.
    """

    per_image, low, high = False, -1.0, 1.0
    conveys: Information = "position"

    def __init__(self, frequencies: int = 4) -> None:
        super().__init__()
        if frequencies < 1:
            raise ValueError(f"frequencies is {frequencies}: give at least 1")
        self.frequencies, self.channels = frequencies, 4 * frequencies

    def extra_repr(self) -> str:
        return f"frequencies={self.frequencies}"

    def forward(self, view: View, grid: Grid) -> Tensor:
        y = centres(grid.height, grid.pad[0], view.mask.device)
        x = centres(grid.width, grid.pad[1], view.mask.device)
        waves = []
        for cycles in (2.0**number / 2 for number in range(self.frequencies)):
            for wave in (torch.sin, torch.cos):
                parts = [
                    wave(math.pi * cycles * place) if 2 * cycles < sites else torch.zeros_like(place)
                    for place, sites in ((x, grid.width), (y, grid.height))
                ]
                waves.append(_cross(*parts))
        return torch.cat(waves, dim=1)


class LearnedTable(Indicator):
    """Learned position embedding: a table of vectors, drawn from N(0, .02), trained, and interpolated to any grid.

    Interpolation is bilinear, antialiased where a grid is coarser than the table; beyond the border the outermost values are
    repeated. The values are unbounded; a control assumes the range -1 to 1. Not closed under shifts. Cost: once for the batch, in
    every forward.

    Also known as: absolute position embedding (ViT; Dosovitskiy et al., 2021).

    Args:
        width: length of a vector.
        size: rows and columns of the table.

    Raises:
        ValueError: the width or a side is below 1.
    """

    per_image, low, high = False, -1.0, 1.0
    conveys: Information = "position"

    def __init__(self, width: int = 8, size: tuple[int, int] = (8, 8)) -> None:
        super().__init__()
        if min(width, *size) < 1:
            raise ValueError(f"width is {width} and size {size[0]} x {size[1]}: give at least 1 each")
        self.channels = width
        self.table = nn.Parameter(torch.empty(width, *size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.table, std=0.02)

    def extra_repr(self) -> str:
        return f"width={self.channels}, size={tuple(self.table.shape[1:])}"

    def forward(self, view: View, grid: Grid) -> Tensor:
        size = (grid.height, grid.width)
        values = F.interpolate(self.table[None].float(), size, mode="bilinear", antialias=True, align_corners=False)
        return grid._replace(mode="replicate").extend(values)


class CellOffset(Indicator):
    """Offset of each site from the centre of its mask cell, right and down, from -1 to 1 at the cell's edges: the place of seams.

    The mean over the site's area, and so 0 where a site is one whole cell or more. It is periodic, and closed only under shifts by
    whole cells. Cost: once for the batch.
    """

    channels, per_image, low, high = 2, False, -1.0, 1.0
    conveys: Information = "position"

    def forward(self, view: View, grid: Grid) -> Tensor:
        rows, columns = view.mask.shape[1:]
        y = _offsets(grid.height, grid.pad[0], rows, view.mask.device)
        x = _offsets(grid.width, grid.pad[1], columns, view.mask.device)
        return _cross(x, y)


class BorderDistance(Indicator):
    """Distance of each site's centre from the image border: made explicit, where zero padding only implies it.

    The distance from the nearest side, from 0 at the border to 1 at half the shorter side: not closed under shifts. Or the
    distances from the left, right, top and bottom side, each from 0 to 1 at the opposite side: closed under shifts. Below 0 beyond
    the border. Cost: once for the batch.

    Args:
        each: give the distances from all four sides, as four channels.
    """

    per_image, low, high = False, 0.0, 1.0
    conveys: Information = "position"

    def __init__(self, each: bool = False) -> None:
        super().__init__()
        self.each, self.channels = each, 4 if each else 1

    def extra_repr(self) -> str:
        return f"each={self.each}"

    def forward(self, view: View, grid: Grid) -> Tensor:
        height, width = view.pixels.shape[2:]
        top = (1 + centres(grid.height, grid.pad[0], view.mask.device)) / 2
        left = (1 + centres(grid.width, grid.pad[1], view.mask.device)) / 2
        across, down = _cross(left, top).split(1, dim=1)
        if self.each:
            return torch.cat([across, 1 - across, down, 1 - down], dim=1)
        nearest = torch.minimum(torch.minimum(across, 1 - across) * width, torch.minimum(down, 1 - down) * height)
        return nearest / (min(height, width) / 2)


def centres(length: int, pad: int, device: torch.device) -> Tensor:
    """Centres of sites along one side: from -1 to 1 within the image, below and above on its padding; float32."""
    number = torch.arange(-pad, length + pad, device=device)
    return (2 * number + 1).float() / length - 1


def _cross(x: Tensor, y: Tensor) -> Tensor:
    """Two maps, of a number for each column and of one for each row: `1 2 h w`."""
    return torch.stack([x.expand(len(y), len(x)), y[:, None].expand(len(y), len(x))])[None]


def _offsets(length: int, pad: int, cells: int, device: torch.device) -> Tensor:
    """The mean offset from the centre of the cell over each site along one side, in half cells: float32."""
    edge = torch.arange(-pad, length + pad + 1, device=device) * cells % length
    # the integral of the offset 2 t - 1 over the part t of a cell, 0 over a whole one
    integral = (edge * (edge - length)).double() / length**2
    return (integral.diff() * (length / cells)).float()
