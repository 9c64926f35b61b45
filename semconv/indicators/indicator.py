"""The interface of indicators, and the grids on which they are evaluated."""

from abc import ABC
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from semconv.corruption import View
from semconv.indicators.areas import area_mean

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Information = Literal["mask", "position", "content", "oracle"]


class Grid(NamedTuple):
    """The sites of a feature map, with its padding."""

    height: int
    width: int
    pad: tuple[int, int] = (0, 0)  # rows above and below, columns left and right
    mode: PaddingMode = "zeros"

    def extend(self, x: Tensor) -> Tensor:
        """Pad a map `b c height width`: `b c height+2*pad width+2*pad`."""
        if not any(self.pad):
            return x
        return F.pad(x, self.sides) if self.mode == "zeros" else F.pad(x, self.sides, self.mode)

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """Padding on the left, right, top and bottom, in the order of `F.pad`."""
        return (self.pad[1], self.pad[1], self.pad[0], self.pad[0])


class Indicator(nn.Module, ABC):
    """An indicator: a map of side information.

    A subclass overrides `forward`; or `observe`, if its maps are means of maps that do not depend on the grid, which are then
    computed once per forward; or `observe` and `lay`.

    An indicator is closed under shifts if its shifted maps are linear combinations of its maps and a constant. A whole kernel over
    such maps can express no more than its centre tap can, except at borders.

    Attributes:
        channels: number of maps.
        per_image: whether the maps differ between images. Maps of position do not, and are computed for a batch of one.
        conveys: the kind of information: the mask; position; content, of visible cells; or oracle, of hidden cells, which no
            network could know.
        low: smallest value on an image. The value 0 means that nothing is masked, for an indicator of the mask; and that no
            information is available, for one of content or an oracle.
        high: largest value on an image.
        controls: names of the controls (classes of `semconv.controls`, in small letters) that a network conditioned on it has to
            beat: without any information, and with information of the same kind that is not true.
    """

    channels: int
    per_image: bool
    conveys: Information
    low: float
    high: float
    controls: tuple[str, ...] = ("zero", "shuffled")

    def forward(self, view: View, grid: Grid) -> Tensor:
        """Evaluate the maps on a grid: float32, `b channels h w`, or `1 channels h w` if they are the same for all images.

        h and w include the grid's padding. Maps of position are extrapolated beyond the border; all others are padded as the
        features are.
        """
        observed = self.observe(view)
        if observed is None:
            raise NotImplementedError(f"{type(self).__name__} has no maps: override forward or observe")
        return self.lay(observed, grid)

    def observe(self, view: View) -> Tensor | None:
        """Compute the part that is the same for every grid: maps `b channels rows columns` of cells or pixels; None: no part is."""
        return None

    def lay(self, observed: Tensor, grid: Grid) -> Tensor:
        """Turn the result of `observe` into the maps on a grid: by default the mean over each site's area."""
        return grid.extend(area_mean(observed, grid.height, grid.width))
