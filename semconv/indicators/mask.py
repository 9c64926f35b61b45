"""What can be told of the mask."""

import torch
from torch import Tensor

from semconv.corruption import View
from semconv.indicators.indicator import Grid, Indicator, Told


class Mask(Indicator):
    """How much of each site is masked, from 0 to 1: the mask itself wherever a site lies within one cell."""

    channels, per_image, low, high = 1, True, 0.0, 1.0
    tells: Told = "mask"

    def forward(self, view: View, grid: Grid) -> Tensor:
        return grid.extend(masked_fraction(view.mask, grid.height, grid.width))


def masked_fraction(mask: Tensor, height: int, width: int) -> Tensor:
    """The share of each site's area that is masked, for sites of any size: float32 `b 1 height width`, from 0 to 1.

    Args:
        mask: bool `b gh gw`, True = masked.
        height: rows of sites over the same image.
        width: columns of sites.
    """
    rows = _overlap(height, mask.shape[1], mask.device)
    columns = _overlap(width, mask.shape[2], mask.device)
    masked = torch.einsum("ij,bjk,lk->bil", rows, mask.double(), columns)
    return (masked / mask[0].numel()).float()[:, None]


def _overlap(sites: int, cells: int, device: torch.device) -> Tensor:
    """How much of each site lies in each cell along one side, in parts of which a site has `cells`: float64 `sites cells`."""
    # these parts are whole numbers, so that 0 and 1 come out exactly; and autocast leaves float64 alone
    site = torch.arange(sites, device=device)[:, None] * cells
    cell = torch.arange(cells, device=device)[None, :] * sites
    shared = torch.minimum(site + cells, cell + sites) - torch.maximum(site, cell)
    return shared.clamp(min=0).double()
