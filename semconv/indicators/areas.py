"""Overlap areas of sites, windows and cells, and means over them."""

import torch
from torch import Tensor
from torch.nn import functional as F


def overlap(sites: int, cells: int, device: torch.device) -> Tensor:
    """Overlap of each site with each cell along one side, in units of 1 / `cells` of a site: float64 `sites cells`."""
    # in these units overlaps are whole numbers, so that 0 and 1 are exact; autocast does not change float64
    site = torch.arange(sites, device=device)[:, None] * cells
    cell = torch.arange(cells, device=device)[None, :] * sites
    shared = torch.minimum(site + cells, cell + sites) - torch.maximum(site, cell)
    return shared.clamp(min=0).double()


def window_overlap(sites: int, cells: int, window: int, device: torch.device) -> Tensor:
    """Overlap of a window of `window` cells around each site's centre with each cell along one side: float64 `sites cells`.

    In units of 1 / (2 * sites) of a cell. The part of a window beyond the image is in no cell.
    """
    centre = (2 * torch.arange(sites, device=device)[:, None] + 1) * cells
    cell = torch.arange(cells, device=device)[None, :] * 2 * sites
    shared = torch.minimum(centre + window * sites, cell + 2 * sites) - torch.maximum(centre - window * sites, cell)
    return shared.clamp(min=0).double()


def area_mean(maps: Tensor, height: int, width: int) -> Tensor:
    """Resample maps to another grid of the same image, by the mean over each site's area: float32 `b k height width`.

    Args:
        maps: `b k rows columns`.
        height: rows of sites.
        width: columns of sites.
    """
    rows, columns = maps.shape[2:]
    if (rows, columns) == (height, width):
        return maps.float()
    if rows % height == 0 and columns % width == 0:
        return F.avg_pool2d(maps.float(), (rows // height, columns // width))
    if height % rows == 0 and width % columns == 0:
        return F.interpolate(maps.float(), (height, width), mode="nearest-exact")
    down, right = overlap(height, rows, maps.device), overlap(width, columns, maps.device)
    return (torch.einsum("ij,bkjl,ml->bkim", down, maps.double(), right) / (rows * columns)).float()


def window_sums(maps: Tensor, height: int, width: int, window: int) -> tuple[Tensor, Tensor]:
    """Sum maps of cells over a window around each site's centre: float64 `b k height width`; and the window's area, `height width`.

    The area is that inside the image. Both are in the units of `window_overlap`.

    Args:
        maps: float64 `b k gh gw`.
        height: rows of sites.
        width: columns of sites.
        window: side of the window in cells.
    """
    rows = window_overlap(height, maps.shape[2], window, maps.device)
    columns = window_overlap(width, maps.shape[3], window, maps.device)
    return torch.einsum("ij,bkjl,ml->bkim", rows, maps, columns), rows.sum(1)[:, None] * columns.sum(1)
