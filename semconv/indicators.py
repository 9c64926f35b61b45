"""What a network is told: maps of the mask and of position, at whatever resolution a layer works.

An `Indicator` is one such map. `Indicators` joins several, and called with a view gives `Signals`, which evaluates them on the grid
of any layer, each once per forward.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.corruption import View
from semconv.sparse import VisibleCells, VisibleSites

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Told = Literal["mask", "position"]


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
        sides = (self.pad[1], self.pad[1], self.pad[0], self.pad[0])
        return F.pad(x, sides) if self.mode == "zeros" else F.pad(x, sides, self.mode)


class Indicator(nn.Module, ABC):
    """One thing that can be told.

    Attributes:
        channels: how many maps it makes.
        per_image: whether its maps differ between images; maps of position do not, and are made for a batch of one.
        tells: what it tells of.
        low: smallest value on an image. The value 0 of a mask-derived indicator means that nothing is masked.
        high: largest value on an image.
    """

    channels: int
    per_image: bool
    tells: Told
    low: float
    high: float

    @abstractmethod
    def forward(self, view: View, grid: Grid) -> Tensor:
        """The maps on a grid: float32, `b channels h w` or, where they are the same for all images, `1 channels h w`.

        h and w count the grid's padding. A map of position goes on beyond the border as position does; a map of the mask is
        continued in the way that the features are.
        """


class Mask(Indicator):
    """How much of each site is masked, from 0 to 1: the mask itself wherever a site lies within one cell."""

    channels, per_image, low, high = 1, True, 0.0, 1.0
    tells: Told = "mask"

    def forward(self, view: View, grid: Grid) -> Tensor:
        return grid.extend(masked_fraction(view.mask, grid.height, grid.width))


class Coordinates(Indicator):
    """x and y of each site's centre, from -1 at the left and top edges of the image to 1 (CoordConv; Liu et al., 2018)."""

    channels, per_image, low, high = 2, False, -1.0, 1.0
    tells: Told = "position"

    def forward(self, view: View, grid: Grid) -> Tensor:
        y = _centres(grid.height, grid.pad[0], view.mask.device)
        x = _centres(grid.width, grid.pad[1], view.mask.device)
        return torch.stack([x.expand(len(y), len(x)), y[:, None].expand(len(y), len(x))])[None]


class Twin(Protocol):
    """What is told in place of an indicator's maps, see `semconv.twins`."""

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor: ...

    def num_masked(self, view: View) -> int: ...


_MASK = Mask()


class Sites(NamedTuple):
    """Maps of all indicators on one grid."""

    per_image: Tensor  # b k1 h w: what differs between images, the mask first; k1 may be 0
    shared: Tensor  # 1 k2 h w: what does not; k2 may be 0
    source: nn.Module | None = None  # what makes `shared` of the grid alone; None where that cannot be relied on


class Indicators(nn.Module):
    """Several indicators as one; called with a view it gives `Signals`.

    Args:
        parts: the indicators. The mask is put first, and those that differ between images before those that do not.

    Attributes:
        twin: what is told in place of the truth; None: the truth.

    Raises:
        ValueError: an indicator is listed twice.
    """

    def __init__(self, parts: Sequence[Indicator] = ()) -> None:
        super().__init__()
        self.twin: Twin | None = None
        names = [type(part).__name__ for part in parts]
        if len(set(names)) < len(names) and len({repr(part) for part in parts}) < len(parts):
            raise ValueError(f"indicators are {', '.join(names)}: list each one once")
        self.parts = nn.ModuleList(sorted(parts, key=lambda part: (not isinstance(part, Mask), not part.per_image)))

    @property
    def tells(self) -> frozenset[Told]:
        return frozenset(part.tells for part in self)

    @property
    def tell_mask(self) -> bool:
        """Whether the mask itself is among them."""
        return any(isinstance(part, Mask) for part in self)

    @property
    def num_per_image(self) -> int:
        return sum(part.channels for part in self if part.per_image)

    @property
    def num_shared(self) -> int:
        return sum(part.channels for part in self if not part.per_image)

    @property
    def learn_shared(self) -> bool:
        """Whether what does not differ between images is learned."""
        return any(not part.per_image and any(True for _ in part.parameters()) for part in self)

    def __iter__(self):
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def forward(self, view: View) -> "Signals":
        return Signals(self, view)


class Signals:
    """The indicators of one view, on any grid, each grid computed once."""

    def __init__(self, indicators: Indicators, view: View) -> None:
        self._indicators, self._view, self._twin = indicators, view, indicators.twin
        self._mask = next((part for part in indicators if isinstance(part, Mask)), _MASK)
        self._sites: dict[Grid, Sites] = {}
        self._masked: dict[Grid, Tensor] = {}
        self._cells: VisibleCells | None = None

    def at(self, grid: Grid) -> Sites:
        """All maps on a grid."""
        if grid not in self._sites:
            per_image, shared = self._join(grid, per_image=True), self._join(grid, per_image=False)
            changes = self._twin is not None or self._indicators.learn_shared
            self._sites[grid] = Sites(per_image, shared, None if changes else self._indicators)
        return self._sites[grid]

    def masked(self, grid: Grid) -> Tensor:
        """How much of each site is masked, whether or not an indicator says so: float32 `b 1 h w`, from 0 to 1."""
        if grid not in self._masked:
            self._masked[grid] = self._maps(self._mask, grid)
        return self._masked[grid]

    def visible(self, grid: Grid) -> VisibleSites:
        """The sites of a grid, its padding left out, that are told to be visible.

        Raises:
            ValueError: a site lies in several cells, and so may be masked in part.
        """
        if self._cells is None:
            self._cells = self._visible_cells()
        return self._cells.sites(grid.height, grid.width)

    def _visible_cells(self) -> VisibleCells:
        rows, columns = self._view.mask.shape[1:]
        count = self._view.num_masked if self._twin is None else self._twin.num_masked(self._view)
        if count == 0:
            return VisibleCells(None, (rows, columns))
        # those that are masked least, as noise leaves none wholly visible
        order = self.masked(Grid(rows, columns)).flatten(1).argsort(dim=1, stable=True)
        return VisibleCells(order[:, : rows * columns - count], (rows, columns))

    def _maps(self, part: Indicator, grid: Grid) -> Tensor:
        return part(self._view, grid) if self._twin is None else self._twin(part, self._view, grid)

    def _join(self, grid: Grid, per_image: bool) -> Tensor:
        maps = [self._maps(part, grid) for part in self._indicators if part.per_image == per_image]
        if maps:
            return torch.cat(maps, dim=1)
        batch = len(self._view.mask) if per_image else 1
        return self._view.mask.new_zeros(batch, 0, grid.height + 2 * grid.pad[0], grid.width + 2 * grid.pad[1], dtype=torch.float32)


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


def _centres(length: int, pad: int, device: torch.device) -> Tensor:
    """Centres of sites along one side, from -1 to 1 within the image and beyond on its padding: float32."""
    number = torch.arange(-pad, length + pad, device=device)
    return (2 * number + 1).float() / length - 1
