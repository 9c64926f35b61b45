"""Layers that see visible sites alone, at the cost of these.

A gathered map is `b c n 1`: the n visible sites of each image, as many in every image, and no others. What looks at sites one by
one, or at all of them, needs no change there: pointwise convolutions, norms of every kind and their statistics, global response
norm, squeeze-excite, global pools, dropout and drop path, sums and products of maps. Only what looks at neighbours has to know
where the sites are: `convolve`, `max_pool` and `average_pool` read gathered maps and give gathered maps.

In a network that keeps whole maps, `at_visible` runs any of the former on a map `b c h w`; of the latter, `convolve` is
`semconv.mechanisms.Sparse`, and pools stand between `VisibleSites.gather` and `.scatter`.
"""

import math
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F


class VisibleCells:
    """The visible mask cells of a batch, from which the visible sites of every map follow.

    Args:
        index: numbers of the visible cells of each image in reading order, int64 `b n`; None: all are visible.
        grid: rows and columns of cells.
    """

    def __init__(self, index: Tensor | None, grid: tuple[int, int]) -> None:
        self.index, self.grid = index, grid
        self._sites: dict[tuple[int, int], VisibleSites] = {}

    def sites(self, height: int, width: int) -> "VisibleSites":
        """The visible sites of a map, worked out once for each size.

        Raises:
            ValueError: a site lies in several cells, and so may be masked in part.
        """
        if (height, width) not in self._sites:
            self._sites[height, width] = VisibleSites(self, height, width)
        return self._sites[height, width]


class VisibleSites:
    """The visible sites of maps of one size.

    Args:
        cells: what is visible.
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
        self._windows: dict[Any, tuple[Tensor, Tensor]] = {}

    def at(self, height: int, width: int) -> "VisibleSites":
        """The visible sites of maps of another size."""
        return self.cells.sites(height, width)

    @property
    def hidden(self) -> Tensor | None:
        """Where sites are not visible: bool `b height width`; None: nowhere."""
        index = self.cells.index
        if index is None:
            return None
        cells = index.new_ones(len(index), math.prod(self.cells.grid), dtype=torch.bool).scatter(1, index, False)
        (rows, _), (p, q) = self.cells.grid, self.scale
        return repeat(cells, "b (gh gw) -> b (gh p) (gw q)", gh=rows, p=p, q=q)

    def only(self, x: Tensor, value: float = 0.0) -> Tensor:
        """A map `b c h w` with what stands at hidden sites replaced."""
        hidden = self.hidden
        return x if hidden is None else x.masked_fill(hidden[:, None], value)

    def gather(self, x: Tensor) -> Tensor:
        """The visible sites of a map `b c h w`: `b c n 1`."""
        if self.everywhere:
            return x
        rows = pick(rearrange(x, "b c h w -> (b h w) c"), self._placed.sites, self._placed.of_site)
        return rearrange(rows, "(b n) c -> b c n 1", b=len(x))

    def scatter(self, x: Tensor) -> Tensor:
        """A map `b c h w` of what stands at visible sites, `b c n 1`; 0 elsewhere."""
        if self.everywhere:
            return x
        rows = pick(rearrange(x, "b c n 1 -> (b n) c"), self._placed.of_site, self._placed.sites)
        return rearrange(rows, "(b h w) c -> b c h w", h=self.height, w=self.width)

    def windows(self, convolution: nn.Conv2d, after: "VisibleSites") -> tuple[Tensor, Tensor]:
        """What a zero-padded convolution to the sites `after` reads, as `pick` takes it: `(b n') k` and its inverse `(b n) k`.

        Args:
            convolution: its kernel, stride, padding and dilation count.
            after: the sites that it writes.
        """
        geometry = (convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation)
        if geometry not in self._windows:
            self._windows[geometry] = _windows(self._placed, after._placed, convolution)
        return self._windows[geometry]

    @property
    def _placed(self) -> "_Rows":
        if self._rows is None:
            assert self.cells.index is not None
            self._rows = _Rows(self.cells.index, self.cells.grid[1], self.scale, self.height, self.width)
        return self._rows


class _Rows:
    """Which row of a gathered map, `(b n) c`, stands for which row of the whole one, `(b h w) c`.

    Attributes:
        row: where on the map each row of the gathered one stands: int64 `b n`.
        column: likewise.
        sites: its number on the whole map: int64 `(b n)`.
        of_site: the other way round, the number after the last for a hidden site: int64 `(b h w)`.
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

    def at(self, row: Tensor, column: Tensor) -> Tensor:
        """Numbers of the rows that stand at places `b n k`; the one after the last where none does."""
        inside = (row >= 0) & (row < self.height) & (column >= 0) & (column < self.width)
        site = (self.image[..., None] * self.height + row) * self.width + column
        return torch.where(inside, self.of_site[torch.where(inside, site, 0)], len(self.sites))


def _windows(before: _Rows, after: _Rows, convolution: nn.Conv2d) -> tuple[Tensor, Tensor]:
    (down, right), (above, left) = convolution.stride, convolution.padding  # type: ignore[misc]
    sides = zip(convolution.kernel_size, convolution.dilation, strict=True)
    tap_row, tap_column = (torch.arange(side, device=before.row.device) * step for side, step in sides)
    tap_row, tap_column = repeat(tap_row, "i -> (i j)", j=len(tap_column)), repeat(tap_column, "j -> (i j)", i=len(tap_row))
    read = before.at((after.row * down - above)[..., None] + tap_row, (after.column * right - left)[..., None] + tap_column)
    # the other way round: the site that reads this one with this tap
    row, column = (before.row + above)[..., None] - tap_row, (before.column + left)[..., None] - tap_column
    reader = after.at(row // down, column // right)
    is_read = (row % down == 0) & (column % right == 0) & (reader < len(after.sites))
    entry = reader * len(tap_row) + torch.arange(len(tap_row), device=reader.device)
    return read.flatten(0, 1), torch.where(is_read, entry, read.numel()).flatten(0, 1)


def convolve(convolution: nn.Conv2d, x: Tensor, sites: VisibleSites) -> tuple[Tensor, VisibleSites]:
    """A submanifold sparse convolution (Graham et al., 2018): it reads visible sites alone, and answers at visible sites alone.

    An output site is visible if its own area is; hidden sites count as 0.

    Args:
        convolution: any, strided, grouped or dilated.
        x: gathered map `b c n 1`.
        sites: where it stands.

    Returns:
        Gathered map `b c' n' 1`, and where it stands.

    Raises:
        ValueError: an output site is masked in part.
    """
    if sites.everywhere or not _is_product(convolution):
        return through_map(convolution, sites.scatter(x), sites)
    after = sites.at(*_output_size(convolution, sites))
    rows = rearrange(x, "b c n 1 -> (b n) c")
    if after is not sites or convolution.kernel_size != (1, 1):
        rows = rearrange(pick(rows, *sites.windows(convolution, after)), "m k c -> m (k c)")
    y = F.linear(rows, rearrange(convolution.weight, "o c i j -> o (i j c)"), convolution.bias)
    return rearrange(y, "(b n) c -> b c n 1", b=len(x)), after


def max_pool(pool: nn.MaxPool2d, x: Tensor, sites: VisibleSites) -> tuple[Tensor, VisibleSites]:
    """The largest of the visible sites of each window; arguments and result as for `convolve`."""
    return through_map(pool, sites.only(sites.scatter(x), -math.inf), sites)


def average_pool(pool: nn.AvgPool2d, x: Tensor, sites: VisibleSites) -> tuple[Tensor, VisibleSites]:
    """The mean over the visible sites of each window; arguments and result as for `convolve`.

    Padding counts where it does for the pool itself, so that nothing changes where nothing is masked.
    """
    y, after = through_map(pool, sites.scatter(x), sites)
    hidden = sites.hidden
    if hidden is None:
        return y, after
    return y / (1 - after.gather(pool(hidden[:, None].to(y.dtype)))), after


def through_map(spatial: nn.Module, x: Tensor, sites: VisibleSites) -> tuple[Tensor, VisibleSites]:
    """What a layer that looks at neighbours makes of a whole map `b c h w`; of its answers the visible ones, gathered."""
    y = spatial(x)
    after = sites.at(y.shape[2], y.shape[3])
    return after.gather(y), after


def at_visible(module: nn.Module, x: Tensor, sites: VisibleSites) -> Tensor:
    """What a layer that does not look at neighbours makes of the visible sites alone: `b c h w` to `b c' h w`, 0 elsewhere.

    For norms (batch statistics and running ones are those of visible sites), global response norm, squeeze-excite. Before a pool
    over all sites gather alone: `pool(sites.gather(x))`.

    Args:
        module: the layer.
        x: map `b c h w`; what stands at hidden sites leaves no trace.
        sites: its visible sites.
    """
    return sites.scatter(module(sites.gather(x)))


def pick(rows: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    """Rows by number, and zeros for the number after the last; its gradient picks too, where indexing would add one by one.

    Args:
        rows: `n c`.
        index: int64 of any shape, from 0 to n.
        inverse: numbers of the entries of `index` that name each row, int64 `n` or `n k`; `index.numel()` for none.

    Returns:
        `*index c`.
    """
    return _Pick.apply(rows, index, inverse)


class _Pick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return _with_zero(rows).index_select(0, index.flatten()).view(*index.shape, rows.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        entries = _with_zero(gradient.flatten(0, -2)).index_select(0, inverse.flatten())
        return (entries.view(*inverse.shape, -1).sum(1) if inverse.ndim == 2 else entries), None, None


def _with_zero(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])])


def _is_product(convolution: nn.Conv2d) -> bool:
    """Whether a convolution is cheaper as one product with what its windows hold than on the whole map."""
    # padding by zeros is what no row stands for; windows of few channels are slow to pick, and groups slow to multiply
    zeros = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    return type(convolution) is nn.Conv2d and zeros and convolution.groups == 1 and convolution.in_channels >= 8


def _output_size(convolution: nn.Conv2d, sites: VisibleSites) -> tuple[int, int]:
    height, width = (
        (side + 2 * int(pad) - step * (kernel - 1) - 1) // stride + 1
        for side, pad, step, kernel, stride in zip(
            (sites.height, sites.width),
            convolution.padding,
            convolution.dilation,
            convolution.kernel_size,
            convolution.stride,
            strict=True,
        )
    )
    return height, width
