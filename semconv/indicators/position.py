"""What can be told of position."""

import torch
from torch import Tensor

from semconv.corruption import View
from semconv.indicators.indicator import Grid, Indicator, Told


class Coordinates(Indicator):
    """x and y of each site's centre, from -1 at the left and top edges of the image to 1 (CoordConv; Liu et al., 2018)."""

    channels, per_image, low, high = 2, False, -1.0, 1.0
    tells: Told = "position"

    def forward(self, view: View, grid: Grid) -> Tensor:
        y = _centres(grid.height, grid.pad[0], view.mask.device)
        x = _centres(grid.width, grid.pad[1], view.mask.device)
        return torch.stack([x.expand(len(y), len(x)), y[:, None].expand(len(y), len(x))])[None]


def _centres(length: int, pad: int, device: torch.device) -> Tensor:
    """Centres of sites along one side, from -1 to 1 within the image and beyond on its padding: float32."""
    number = torch.arange(-pad, length + pad, device=device)
    return (2 * number + 1).float() / length - 1
