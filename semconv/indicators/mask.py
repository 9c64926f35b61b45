"""What can be told of the mask: all of it is 0 where nothing is masked."""

import torch
from torch import Tensor

from semconv.corruption import View
from semconv.indicators.areas import overlap, window_sums
from semconv.indicators.indicator import Grid, Indicator, Information


class Mask(Indicator):
    """How much of each site is masked, from 0 to 1: the mask itself wherever a site lies within one cell.

    Not closed under shifts, so that a kernel can tell by it which of its neighbours are masked. Costs next to nothing.
    """

    channels, per_image, low, high = 1, True, 0.0, 1.0
    conveys: Information = "mask"

    def forward(self, view: View, grid: Grid) -> Tensor:
        return grid.extend(masked_fraction(view.mask, grid.height, grid.width))


class WindowFraction(Indicator):
    """How much of a window round each site is masked, from 0 to 1: confidence in what is seen there, at one scale or more.

    Windows are counted in mask cells, round the centre of the site, and so cover the same part of the image at every stage; what
    lies beyond the image does not count. Not closed under shifts. Costs two small matrix products per window and grid.

    Also known as: validity (Uhrig et al., 2017; Liu et al., 2018), confidence map.

    Args:
        windows: sides of the windows in mask cells, one channel each.

    Raises:
        ValueError: a side is below 1 or listed twice, or there is none.
    """

    per_image, low, high = True, 0.0, 1.0
    conveys: Information = "mask"

    def __init__(self, windows: tuple[int, ...] = (3,)) -> None:
        super().__init__()
        self.windows, self.channels = check_windows(windows), len(windows)

    def extra_repr(self) -> str:
        return f"windows={self.windows}"

    def forward(self, view: View, grid: Grid) -> Tensor:
        mask, maps = view.mask[:, None].double(), []
        for window in self.windows:
            masked, area = window_sums(mask, grid.height, grid.width, window)
            maps.append(masked / area)
        return grid.extend(torch.cat(maps, dim=1).float())


class VisibleDistance(Indicator):
    """How far the nearest visible cell is, from 0 (here) to 1 (`reach` cells or more): how far there is to extrapolate.

    Exact Euclidean distance between the centres of cells, in cells whatever the image's size; a site of several cells says their
    mean. Not closed under shifts. Made once per forward on the grid of cells: a cell is compared with each of its row and each row.

    Args:
        reach: distance in cells that is told as 1, and beyond which all is one.

    Raises:
        ValueError: `reach` is not above 0.
    """

    channels, per_image, low, high = 1, True, 0.0, 1.0
    conveys: Information = "mask"

    def __init__(self, reach: float = 4.0) -> None:
        super().__init__()
        if reach <= 0:
            raise ValueError(f"reach is {reach}: give a number of cells above 0")
        self.reach = reach

    def extra_repr(self) -> str:
        return f"reach={self.reach}"

    def observe(self, view: View) -> Tensor:
        squared, _ = nearest_visible(view.mask)
        return (squared.sqrt() / self.reach).clamp(max=1)[:, None]


class VisibleDirection(Indicator):
    """Where the nearest visible cell is: the unit vector that points there, right and down, each from -1 to 1.

    0 0 in visible cells, and where several cells are nearest; a site of several cells says their mean. Not closed under shifts.
    Made once per forward, as `VisibleDistance`.
    """

    channels, per_image, low, high = 2, True, -1.0, 1.0
    conveys: Information = "mask"

    def observe(self, view: View) -> Tensor:
        return nearest_visible(view.mask)[1]


class MaskRatio(Indicator):
    """Which share of the image's cells is masked, from 0 to 1: one number per image, the same at every site.

    It changes between images only where the ratio does, in training with a range of ratios and in evaluation. Closed under shifts.
    Costs nothing. Also known as: noise level conditioning (in diffusion models).
    """

    channels, per_image, low, high = 1, True, 0.0, 1.0
    conveys: Information = "mask"

    def forward(self, view: View, grid: Grid) -> Tensor:
        ratio = view.mask.float().mean((1, 2))[:, None, None, None]
        return grid.extend(ratio.expand(-1, 1, grid.height, grid.width))


def masked_fraction(mask: Tensor, height: int, width: int) -> Tensor:
    """The share of each site's area that is masked, for sites of any size: float32 `b 1 height width`, from 0 to 1.

    Args:
        mask: bool `b gh gw`, True = masked.
        height: rows of sites over the same image.
        width: columns of sites.
    """
    if (height, width) == (mask.shape[1], mask.shape[2]):
        return mask.float()[:, None]
    rows = overlap(height, mask.shape[1], mask.device)
    columns = overlap(width, mask.shape[2], mask.device)
    masked = torch.einsum("ij,bjk,lk->bil", rows, mask.double(), columns)
    return (masked / mask[0].numel()).float()[:, None]


def nearest_visible(mask: Tensor) -> tuple[Tensor, Tensor]:
    """For each cell the squared distance to the nearest visible one, in cells, and the unit vector (right, down) that points there.

    Found along rows first and then across them, so that n cells take n (gh + gw) comparisons. All is in whole numbers, so that
    equally near cells are known as such.

    Args:
        mask: bool `b gh gw`, True = masked.

    Returns:
        float32 `b gh gw`, infinite where no cell is visible; and float32 `b 2 gh gw`, 0 where a cell is visible itself or several
        are nearest.
    """
    rows, columns = (torch.arange(length, device=mask.device, dtype=torch.float32) for length in mask.shape[1:])
    right, down = columns - columns[:, None], rows - rows[:, None]  # from a cell (first axis) to another (second)
    along = torch.where(mask[:, :, None], torch.inf, right.square())  # b, row, column from, column to
    nearest = along.amin(3)
    hit = along == nearest[..., None]
    number, aside = hit.sum(3), torch.where(hit, right, 0).sum(3)
    total = down.square()[:, :, None] + nearest[:, None]  # b, row from, row to, column
    squared = total.amin(2)
    hit = total == squared[:, :, None]
    alone = (torch.where(hit, number[:, None], 0).sum(2) == 1) & (squared > 0) & squared.isfinite()
    steps = (torch.where(hit, aside[:, None], 0).sum(2), torch.where(hit, down[:, :, None], 0).sum(2))
    length = torch.where(alone, squared, 1).sqrt()
    return squared, torch.stack([torch.where(alone, step / length, 0) for step in steps], dim=1)


def check_windows(windows: tuple[int, ...]) -> tuple[int, ...]:
    """The sides of windows, if they can be ones.

    Raises:
        ValueError: a side is below 1 or listed twice, or there is none.
    """
    if not windows or min(windows) < 1 or len(set(windows)) < len(windows):
        raise ValueError(f"windows are {list(windows)}: give different sides in mask cells, 1 or more each")
    return tuple(windows)
