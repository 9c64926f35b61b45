"""Indicators of the crop: the place of a view in its original image."""

import math

import torch
from torch import Tensor

from semconv.corruption import View
from semconv.indicators.indicator import Grid, Indicator, Information
from semconv.indicators.position import Coordinates


class CropFrame(Indicator):
    """Coordinates of each site in the original image, before cropping: x, y, the crop's scale and its stretch.

    Under random resized crops a position in the view is not a position in the photograph. x and y of the site's centre run from -1
    to 1 over the original, and from right to left if the view was flipped. Scale is the crop's share of the original's area, 0 to
    1. Stretch is the log of the crop's aspect ratio (w / h) over the view's, in units of log 4/3, the limit of random crops, and
    clipped to [-1, 1]: above 0 where the view makes things narrower than they are. A view without a frame counts as the whole
    image. The maps differ between images, and depend on the crop only, not on the content. Closed under shifts. Cost: almost none.
    """

    channels, per_image, low, high = 4, True, -1.0, 1.0
    conveys: Information = "position"

    def forward(self, view: View, grid: Grid) -> Tensor:
        place = Coordinates()(view, grid)
        frame = whole_frame(view.mask) if view.frame is None else view.frame.float()
        centre, half, stretch = (part[:, :, None, None] for part in frame.split([2, 2, 1], dim=1))
        scale = half.prod(1, keepdim=True).abs()
        squeezed = (stretch / math.log(4 / 3)).clamp(-1, 1)
        sides = (-1, -1, *place.shape[2:])
        return torch.cat([centre + half * place, scale.expand(sides), squeezed.expand(sides)], dim=1)


def whole_frame(mask: Tensor) -> Tensor:
    """The frame of views of whole images, one per mask: float32 `b 5`, see `View`."""
    frame = torch.zeros(len(mask), 5, device=mask.device)
    frame[:, 2:4] = 1
    return frame


def turn_frame(frame: Tensor, across: bool = True, down: bool = False) -> Tensor:
    """Flip a frame as its view was flipped: `b 5`."""
    centre, right, below, stretch = frame.split([2, 1, 1, 1], dim=1)
    return torch.cat([centre, -right if across else right, -below if down else below, stretch], dim=1)
