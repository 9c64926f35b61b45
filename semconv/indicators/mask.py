"""Indicators of the mask: all are 0 where nothing is masked."""

import torch
from torch import Tensor

from semconv.corruption import View
from semconv.indicators.areas import overlap, window_sums
from semconv.indicators.indicator import Grid, Indicator, Information


class Mask(Indicator):
    """Masked share of each site, from 0 to 1: the mask itself where a site lies within one cell.

    Not closed under shifts: a kernel over it can tell which neighbours are masked. Cost: almost none.
    """

    channels, per_image, low, high = 1, True, 0.0, 1.0
    conveys: Information = "mask"

    def forward(self, view: View, grid: Grid) -> Tensor:
        return grid.extend(masked_fraction(view.mask, grid.height, grid.width))


class WindowFraction(Indicator):
    """Masked share of a window around each site, from 0 to 1, at one scale or several: the reliability of the surroundings.

    Windows are measured in mask cells and centred on the site, and so cover the same part of the image at every stage; their part
    beyond the image does not count. Not closed under shifts. Cost: two small matrix products per window and grid.

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
    """Distance to the nearest visible cell, from 0 (in a visible cell) to 1 (`reach` cells or more): how far to extrapolate.

    The exact Euclidean distance between the centres of cells, in cells, whatever the image's size; a site of several cells has
    their mean. Not closed under shifts. Cost: once per forward on the grid of cells, gh + gw comparisons for each cell.

    Args:
        reach: distance, in cells, with the value 1; larger distances are clipped.

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
    """Direction of the nearest visible cell: a unit vector, right and down, each from -1 to 1.

    (0, 0) in visible cells, and where several cells are equally near; a site of several cells has their mean. Not closed under
    shifts. Cost: as `VisibleDistance`.
    """

    channels, per_image, low, high = 2, True, -1.0, 1.0
    conveys: Information = "mask"

    def observe(self, view: View) -> Tensor:
        return nearest_visible(view.mask)[1]


class MaskRatio(Indicator):
    """Mask ratio of the image, from 0 to 1: one number per image, the same at every site.

    It varies only if the ratio does: in training with a range of ratios, and in evaluation at several ratios. All images of a batch
    have one ratio, so that shuffled signals are the true ones, and are no control of it. Closed under shifts. Cost: almost none.
    Also known as: conditioning on the noise level (in diffusion models).
    """

    channels, per_image, low, high = 1, True, 0.0, 1.0
    conveys: Information = "mask"
    controls = ("zero",)

    def forward(self, view: View, grid: Grid) -> Tensor:
        ratio = view.mask.float().mean((1, 2))[:, None, None, None]
        return grid.extend(ratio.expand(-1, 1, grid.height, grid.width))


def masked_fraction(mask: Tensor, height: int, width: int) -> Tensor:
    """The masked share of each site's area, for sites of any size: float32 `b 1 height width`, from 0 to 1.

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
    """For each cell, the squared distance to the nearest visible cell, in cells, and the unit vector (right, down) to it.

    The search goes first along rows and then across them, so that n cells take n (gh + gw) comparisons. It uses whole numbers, so
    that equal distances compare as equal.

    Args:
        mask: bool `b gh gw`, True = masked.

    Returns:
        float32 `b gh gw`, infinite if no cell is visible; and float32 `b 2 gh gw`, 0 where the cell itself is visible or several
        cells are equally near.
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
    """Check the sides of windows, and return them as a tuple.

    Raises:
        ValueError: a side is below 1 or listed twice, or there is none.
    """
    if not windows or min(windows) < 1 or len(set(windows)) < len(windows):
        raise ValueError(f"windows are {list(windows)}: give different sides in mask cells, 1 or more each")
    return tuple(windows)
