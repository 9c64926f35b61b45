"""The visible sites of maps, and maps gathered to them.

A gathered map is `b c n 1`: only the n visible sites of each image, the same number in every image.
"""

import math

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F


class VisibleCells:
    """The visible mask cells of a batch, from which the visible sites of every map follow.

    Args:
        index: indices of the visible cells of each image in reading order, int64 `b n`; None: all cells are visible.
        grid: rows and columns of cells.
    """

    def __init__(self, index: Tensor | None, grid: tuple[int, int]) -> None:
        self.index, self.grid = index, grid
        self._sites: dict[tuple[int, int], VisibleSites] = {}

    def sites(self, height: int, width: int) -> "VisibleSites":
        """The visible sites of a map, computed once for each size.

        Raises:
            ValueError: a site lies in several cells, and so may be partly masked.
        """
        if (height, width) not in self._sites:
            self._sites[height, width] = VisibleSites(self, height, width)
        return self._sites[height, width]


class VisibleSites:
    """The visible sites of maps of one size.

    Args:
        cells: the visible cells.
        height: rows of sites.
        width: columns of sites.

    Attributes:
        everywhere: whether nothing is masked; a gathered map is then the map itself.
        num_visible: visible sites of each image.
    """

    def __init__(self, cells: VisibleCells, height: int, width: int) -> None:
        rows, columns = cells.grid
        if height % rows or width % columns:
            raise ValueError(
                f"{height} x {width} sites on {rows} x {columns} mask cells are masked in part: "
                "sparse, token and partial at depth need a cell that is a multiple of the stride"
            )
        self.cells, self.height, self.width = cells, height, width
        self.scale = (height // rows, width // columns)
        self.everywhere = cells.index is None
        self.num_visible = (rows * columns if cells.index is None else cells.index.shape[1]) * math.prod(self.scale)
        self._rows: _Rows | None = None

    def at(self, height: int, width: int) -> "VisibleSites":
        """The visible sites of maps of another size."""
        return self.cells.sites(height, width)

    @property
    def hidden(self) -> Tensor | None:
        """True at hidden sites: bool `b height width`; None: no site is hidden."""
        index = self.cells.index
        if index is None:
            return None
        cells = index.new_ones(len(index), math.prod(self.cells.grid), dtype=torch.bool).scatter(1, index, False)
        (rows, _), (p, q) = self.cells.grid, self.scale
        return repeat(cells, "b (gh gw) -> b (gh p) (gw q)", gh=rows, p=p, q=q)

    @property
    def valid(self) -> Tensor | None:
        """True at visible sites: bool `b height width`; None: all sites are visible."""
        hidden = self.hidden
        return None if hidden is None else ~hidden

    def only(self, x: Tensor, value: float = 0.0) -> Tensor:
        """Replace the hidden sites of a map `b c h w` by a value."""
        hidden = self.hidden
        return x if hidden is None else x.masked_fill(hidden[:, None], value)

    def gather(self, x: Tensor) -> Tensor:
        """Gather the visible sites of a map `b c h w`: `b c n 1`."""
        if self.everywhere:
            return x
        rows = rearrange(x, "b c h w -> (b h w) c").index_select(0, self._placed.sites)
        return rearrange(rows, "(b n) c -> b c n 1", b=len(x))

    def scatter(self, x: Tensor) -> Tensor:
        """Scatter the visible sites `b c n 1` into a map `b c h w`; 0 elsewhere."""
        if self.everywhere:
            return x
        rows = pick(rearrange(x, "b c n 1 -> (b n) c"), self._placed.of_site)
        return rearrange(rows, "(b h w) c -> b c h w", h=self.height, w=self.width)

    def reads(self, convolution: nn.Conv2d, after: "VisibleSites") -> Tensor:
        """The row that each tap of a zero-padded convolution reads at each output site; the index after the last for no row.

        Args:
            convolution: only its kernel size, stride, padding and dilation matter.
            after: the output sites.

        Returns:
            int64 `(b n') k`.
        """
        return _reads(self._placed, after._placed, convolution)

    @property
    def _placed(self) -> "_Rows":
        if self._rows is None:
            assert self.cells.index is not None
            self._rows = _Rows(self.cells.index, self.cells.grid[1], self.scale, self.height, self.width)
        return self._rows


class _Rows:
    """The correspondence of rows of a gathered map, `(b n) c`, and of the whole map, `(b h w) c`.

    Attributes:
        row: the map row of each gathered site: int64 `b n`.
        column: the map column of each gathered site: int64 `b n`.
        sites: its index on the whole map: int64 `(b n)`.
        of_site: the inverse of `sites`, with the index after the last for a hidden site: int64 `(b h w)`.
    """

    def __init__(self, index: Tensor, columns: int, scale: tuple[int, int], height: int, width: int) -> None:
        self.height, self.width = height, width
        down, right = (torch.arange(side, device=index.device) for side in scale)
        row, column = (index // columns * scale[0])[..., None, None], (index % columns * scale[1])[..., None, None]
        self.row = repeat(row + down[:, None], "b n p 1 -> b (n p q)", q=scale[1])
        self.column = repeat(column + right, "b n 1 q -> b (n p q)", p=scale[0])
        self.image = torch.arange(len(index), device=index.device)[:, None]
        self.sites = ((self.image * height + self.row) * width + self.column).flatten()
        nowhere = self.sites.new_full((len(index) * height * width,), len(self.sites))
        self.of_site = nowhere.scatter(0, self.sites, torch.arange(len(self.sites), device=index.device))


def _reads(before: _Rows, after: _Rows, convolution: nn.Conv2d) -> Tensor:
    (down, right), (above, left) = convolution.stride, padding_of(convolution)
    row_of = before.of_site.view(len(before.image), before.height, before.width)
    padded = F.pad(row_of, (left, left, above, above), value=len(before.sites))
    _, height, width = padded.shape
    first = ((before.image * height + after.row * down) * width + after.column * right).flatten()
    sides = zip(convolution.kernel_size, convolution.dilation, strict=True)
    row, column = (torch.arange(side, device=first.device) * step for side, step in sides)
    return padded.flatten()[first[:, None] + (row[:, None] * width + column).flatten()]


def pick(rows: Tensor, index: Tensor) -> Tensor:
    """Pick rows by index; the index after the last picks zeros, and takes no gradient.

    Args:
        rows: `n c`.
        index: int64 of any shape, from 0 to n.

    Returns:
        `*index c`.
    """
    return F.embedding(index, torch.cat([rows, rows.new_zeros(1, rows.shape[1])]), padding_idx=len(rows))


def padding_of(convolution: nn.Conv2d) -> tuple[int, ...]:
    """The padding of a convolution: rows above and below, columns left and right."""
    assert isinstance(convolution.padding, tuple)
    return convolution.padding
