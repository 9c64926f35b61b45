"""What an indicator is, and the sites that it speaks of."""

from abc import ABC
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from semconv.corruption import View
from semconv.indicators.areas import area_mean

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Information = Literal["mask", "position", "content", "oracle"]


class Grid(NamedTuple):
    """The sites of a feature map, and how far and in what way the map is continued beyond its border."""

    height: int
    width: int
    pad: tuple[int, int] = (0, 0)  # rows above and below, columns left and right
    mode: PaddingMode = "zeros"

    def extend(self, x: Tensor) -> Tensor:
        """Continue a map `b c height width` beyond its border: `b c height+2*pad width+2*pad`."""
        if not any(self.pad):
            return x
        return F.pad(x, self.sides) if self.mode == "zeros" else F.pad(x, self.sides, self.mode)

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """Padding on the left, right, top and bottom, in the order of `F.pad`."""
        return (self.pad[1], self.pad[1], self.pad[0], self.pad[0])


class Indicator(nn.Module, ABC):
    """One thing that can be told.

    A subclass overrides `forward`; or `observe`, where what it says is a mean of maps that are the same for every grid, so that
    they are made once per forward; or `observe` and `lay`.

    Attributes:
        channels: how many maps it makes.
        per_image: whether its maps differ between images; maps of position do not, and are made for a batch of one.
        conveys: what it tells of: the mask; position; content, what is seen in visible cells; or oracle, what no network could know
            of a hidden cell.
        low: smallest value on an image. The value 0 of a mask-derived indicator means that nothing is masked; that of one of
            content or of an oracle that there is nothing to say.
        high: largest value on an image.
    """

    channels: int
    per_image: bool
    conveys: Information
    low: float
    high: float

    def forward(self, view: View, grid: Grid) -> Tensor:
        """The maps on a grid: float32, `b channels h w` or, where they are the same for all images, `1 channels h w`.

        h and w count the grid's padding. A map of position goes on beyond the border as position does; any other map is continued
        in the way that the features are.
        """
        observed = self.observe(view)
        if observed is None:
            raise NotImplementedError(f"{type(self).__name__} says nothing: override forward or observe")
        return self.lay(observed, grid)

    def observe(self, view: View) -> Tensor | None:
        """What is the same for every grid: maps `b channels rows columns` of cells or pixels; None: nothing is."""
        return None

    def lay(self, observed: Tensor, grid: Grid) -> Tensor:
        """From what was observed to the maps on a grid: the mean over the area of each site."""
        return grid.extend(area_mean(observed, grid.height, grid.width))
