"""Where in the original image a crop was taken."""

import math

import torch
from torch import Tensor

from semconv.corruption import View
from semconv.indicators.indicator import Grid, Indicator, Information
from semconv.indicators.position import Coordinates


class CropFrame(Indicator):
    """Where each site's centre was in the image that the view was cut out of: x and y there, the crop's scale, and its stretch.

    Under random resized crops a place in the view is not a place in the photograph. x and y go from -1 to 1 over the original, and
    from right to left where the view was flipped; scale is the share of the original's area that is seen, 0 to 1; stretch is the
    logarithm of how much wider the view makes things look than they are, in units of log 4/3, the most a random crop stretches,
    from -1 to 1 (a crop that was wide and has been squeezed is above 0). A view that does not say is taken to show all of its
    original. Differs between images, and depends on how they were cut out alone, not on what they show. Closed under shifts. Costs
    next to nothing.
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
    """The frame of views that show all of their originals, as many as there are masks: float32 `b 5`, see `View`."""
    frame = torch.zeros(len(mask), 5, device=mask.device)
    frame[:, 2:4] = 1
    return frame


def turn_frame(frame: Tensor, across: bool = True, down: bool = False) -> Tensor:
    """The frame of a view that has been flipped: `b 5`."""
    centre, right, below, stretch = frame.split([2, 1, 1, 1], dim=1)
    return torch.cat([centre, -right if across else right, -below if down else below, stretch], dim=1)
