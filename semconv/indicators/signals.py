"""Several indicators as one, evaluated on the grid of any layer, each grid once per forward."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from semconv.corruption import View
from semconv.indicators.control import Control
from semconv.indicators.indicator import Grid, Indicator, Information
from semconv.indicators.mask import Mask
from semconv.sparse import VisibleCells, VisibleSites

_MASK = Mask()


class Sites(NamedTuple):
    """Maps of all indicators on one grid."""

    per_image: Tensor  # b k1 h w: what differs between images; k1 may be 0
    shared: Tensor  # 1 k2 h w: what does not; k2 may be 0


class Indicators(nn.Module):
    """Several indicators as one; called with a view it gives `Signals`.

    Args:
        parts: the indicators. The mask is put first, and those that differ between images before those that do not.

    Attributes:
        control: replaces the true signals; None: the true signals.

    Raises:
        ValueError: an indicator is listed twice.
    """

    def __init__(self, parts: Sequence[Indicator] = ()) -> None:
        super().__init__()
        self.control: Control | None = None
        names = [type(part).__name__ for part in parts]
        if len(set(names)) < len(names) and len({repr(part) for part in parts}) < len(parts):
            raise ValueError(
                f"indicators are {', '.join(names)}: list each one once; a class of your own shows its arguments by extra_repr"
            )
        self.parts = nn.ModuleList(sorted(parts, key=lambda part: (not isinstance(part, Mask), not part.per_image)))

    @property
    def conveys(self) -> frozenset[Information]:
        return frozenset(part.conveys for part in self)

    @property
    def include_mask(self) -> bool:
        """True if the mask itself is among them."""
        return any(isinstance(part, Mask) for part in self)

    @property
    def num_per_image(self) -> int:
        return sum(part.channels for part in self if part.per_image)

    @property
    def num_shared(self) -> int:
        return sum(part.channels for part in self if not part.per_image)

    @property
    def num_others(self) -> tuple[int, int]:
        """Channels of `Signals.others`: of those that differ between images, and of those that do not."""
        return self.num_per_image - self.include_mask, self.num_shared

    def __iter__(self):
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def forward(self, view: View) -> "Signals":
        """The signals of a view.

        Raises:
            ValueError: see `View.check`.
        """
        view.check()
        return Signals(self, view)


class Signals:
    """The indicators of one view, on any grid, each grid computed once.

    Attributes:
        carried: what mechanisms pass on to later layers of this forward, under keys of their own. No module keeps it.
    """

    def __init__(self, indicators: Indicators, view: View) -> None:
        self._indicators, self._view, self._control = indicators, view, indicators.control
        self._mask = next((part for part in indicators if isinstance(part, Mask)), _MASK)
        self._sites: dict[Grid, Sites] = {}
        self._masked: dict[Grid, Tensor] = {}
        self._observed: dict[Indicator, Tensor | None] = {}
        self.carried: dict[Hashable, Any] = {}
        self._cells: VisibleCells | None = None

    def at(self, grid: Grid) -> Sites:
        """All maps on a grid."""
        if grid not in self._sites:
            per_image, shared = self._join(grid, per_image=True), self._join(grid, per_image=False)
            self._sites[grid] = Sites(per_image, shared)
        return self._sites[grid]

    def others(self, grid: Grid) -> Sites:
        """All maps on a grid but that of the mask itself."""
        sites = self.at(grid)
        return sites._replace(per_image=sites.per_image[:, int(self._indicators.include_mask) :])  # the mask was put first

    def masked(self, grid: Grid) -> Tensor:
        """Masked share of each site, with or without a mask indicator: float32 `b 1 h w`, from 0 to 1."""
        if grid not in self._masked:
            self._masked[grid] = self._maps(self._mask, grid)
        return self._masked[grid]

    @property
    def truthful(self) -> bool:
        """True if the signals are the true ones, and not a control's."""
        return self._control is None

    def masks_whole(self, grid: Grid) -> bool:
        """True if the sides of a grid alone make certain that each site of a grid is masked wholly or not at all."""
        rows, columns = self._view.mask.shape[1:]
        return self.truthful and grid.height % rows == 0 and grid.width % columns == 0

    def visible(self, grid: Grid) -> VisibleSites:
        """The sites of a grid, without its padding, that the signals call visible.

        Raises:
            ValueError: a site lies in several cells, and so may be masked in part.
        """
        if self._cells is None:
            self._cells = self._visible_cells()
        return self._cells.sites(grid.height, grid.width)

    def _visible_cells(self) -> VisibleCells:
        rows, columns = self._view.mask.shape[1:]
        count = self._view.num_masked if self._control is None else self._control.num_masked(self._view)
        if count == 0:
            return VisibleCells(None, (rows, columns))
        # those that are masked least, as noise leaves none wholly visible
        order = self.masked(Grid(rows, columns)).flatten(1).argsort(dim=1, stable=True)
        return VisibleCells(order[:, : rows * columns - count], (rows, columns))

    def _maps(self, part: Indicator, grid: Grid) -> Tensor:
        if self._control is not None:
            return self._control(part, self._view, grid)
        if part not in self._observed:
            self._observed[part] = part.observe(self._view)
        observed = self._observed[part]
        return part(self._view, grid) if observed is None else part.lay(observed, grid)

    def _join(self, grid: Grid, per_image: bool) -> Tensor:
        maps = [self._maps(part, grid) for part in self._indicators if part.per_image == per_image]
        if maps:
            return torch.cat(maps, dim=1)
        batch = len(self._view.mask) if per_image else 1
        return self._view.mask.new_zeros(batch, 0, grid.height + 2 * grid.pad[0], grid.width + 2 * grid.pad[1], dtype=torch.float32)
