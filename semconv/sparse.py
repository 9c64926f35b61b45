"""Layers that see visible sites alone, at the cost of these.

A gathered map is `b c n 1`: the n visible sites of each image, as many in every image, and no others. What looks at sites one by
one, or at all of them, needs no change there: pointwise convolutions, norms of every kind and their statistics, global response
norm, squeeze-excite, global pools, dropout and drop path, sums and products of maps. Only what looks at neighbours has to know
where the sites are: `convolve`, `max_pool` and `average_pool` read gathered maps and give gathered maps.

In a network that keeps whole maps, `at_visible` runs any of the former on a map `b c h w`; of the latter, `convolve` is
`semconv.mechanisms.Sparse`, and pools stand between `VisibleSites.gather` and `.scatter`.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

_CHUNK = 2**19  # numbers that are multiplied at once, so that they stay in the cache


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
        self._indices: dict[Any, Tensor] = {}

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

    @property
    def standing(self) -> Tensor | None:
        """Where they are; None: everywhere."""
        hidden = self.hidden
        return None if hidden is None else ~hidden

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

    def reads(self, convolution: nn.Conv2d, after: "VisibleSites") -> Tensor:
        """The row that each tap of a zero-padded convolution reads at each of the sites `after`; the one after the last for none.

        Args:
            convolution: its kernel, stride, padding and dilation count.
            after: the sites that it writes.

        Returns:
            int64 `(b n') k`.
        """
        return self._once("reads", convolution, lambda: _reads(self._placed, after._placed, convolution))

    def readers(self, convolution: nn.Conv2d, after: "VisibleSites") -> Tensor:
        """The other way round: the entries of `reads` that name each row of the gathered map, as `pick` takes them: `(b n) k'`."""
        return self._once("readers", convolution, lambda: _readers(self._placed, after._placed, convolution))

    def corners(self, convolution: nn.Conv2d, after: "VisibleSites") -> Tensor:
        """The number on the padded map, `(b h w)`, of what the first tap reads at each of the sites `after`: int64 `(b n')`."""
        return self._once("corners", convolution, lambda: _corners(self._placed, after._placed, convolution))

    def _once(self, kind: str, convolution: nn.Conv2d, make: Callable[[], Tensor]) -> Tensor:
        key = (kind, convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation)
        if key not in self._indices:
            self._indices[key] = make()
        return self._indices[key]

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


def _corners(before: _Rows, after: _Rows, convolution: nn.Conv2d) -> Tensor:
    (down, right), (above, left) = convolution.stride, _padding(convolution)
    height, width = before.height + 2 * above, before.width + 2 * left
    return ((before.image * height + after.row * down) * width + after.column * right).flatten()


def _taps(convolution: nn.Conv2d, width: int, device: torch.device) -> Tensor:
    """How much further on a padded map of some width each tap reads than the first: int64 `k`."""
    sides = zip(convolution.kernel_size, convolution.dilation, strict=True)
    row, column = (torch.arange(side, device=device) * step for side, step in sides)
    return (row[:, None] * width + column).flatten()


def _reads(before: _Rows, after: _Rows, convolution: nn.Conv2d) -> Tensor:
    above, left = _padding(convolution)
    number = before.of_site.view(len(before.image), before.height, before.width)
    padded = F.pad(number, (left, left, above, above), value=len(before.sites))
    taps = _taps(convolution, padded.shape[2], number.device)
    return padded.flatten()[_corners(before, after, convolution)[:, None] + taps]


def _readers(before: _Rows, after: _Rows, convolution: nn.Conv2d) -> Tensor:
    (down, right), (above, left), (rows, columns) = convolution.stride, _padding(convolution), convolution.kernel_size
    device = before.row.device
    # of a strided kernel a site is read by those taps alone that its place leaves over
    count = (-(-rows // down), -(-columns // right))
    row, column = (before.row + above)[..., None], (before.column + left)[..., None]
    tap_row = row % down + down * repeat(torch.arange(count[0], device=device), "i -> (i j)", j=count[1])
    tap_column = column % right + right * repeat(torch.arange(count[1], device=device), "j -> (i j)", i=count[0])
    reader = after.at(
        (row - tap_row * convolution.dilation[0]).div(down, rounding_mode="floor"),
        (column - tap_column * convolution.dilation[1]).div(right, rounding_mode="floor"),
    )
    is_read = (tap_row < rows) & (tap_column < columns) & (reader < len(after.sites))
    entry = (reader * rows + tap_row) * columns + tap_column
    return torch.where(is_read, entry, len(after.sites) * rows * columns).flatten(0, 1)


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
    if sites.everywhere or not _is_simple(convolution):
        return through_map(convolution, sites.scatter(x), sites)
    after = sites.at(*_output_size(convolution, sites))
    if convolution.groups > 1:
        return after.gather(_depthwise(convolution, sites.scatter(x), sites, after)), after
    rows = rearrange(x, "b c n 1 -> (b n) c")
    if after is not sites or convolution.kernel_size != (1, 1):
        rows = rearrange(pick(rows, sites.reads(convolution, after), sites.readers(convolution, after)), "m k c -> m (k c)")
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


def _is_simple(convolution: nn.Conv2d) -> bool:
    """Whether a convolution can be had without the whole map, or its gradient can."""
    # padding by zeros is what no row stands for, and windows of few channels are slow to pick
    if type(convolution) is not nn.Conv2d or convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
        return False
    if max(convolution.stride) > 1 and max(convolution.dilation) > 1:
        return False
    channels = convolution.in_channels
    # elsewhere than on a CPU the gradient of a depthwise kernel is not slow
    depthwise = convolution.groups == channels == convolution.out_channels and convolution.weight.device.type == "cpu"
    return channels >= 8 and (convolution.groups == 1 or depthwise)


def _depthwise(convolution: nn.Conv2d, x: Tensor, before: VisibleSites, after: VisibleSites) -> Tensor:
    weight, bias = convolution.weight, convolution.bias
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    corners = before.corners(convolution, after)
    taps = _taps(convolution, before.width + 2 * _padding(convolution)[1], x.device)
    settings = (convolution.stride, _padding(convolution), convolution.dilation)
    return _Depthwise.apply(x, weight, bias, corners, taps, after._placed.sites, settings)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of a map, of whose answers those at some sites alone are used.

    Its kernel's gradient is summed over these sites: the whole map's takes a CPU forty times as long as the convolution.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        corners: Tensor,
        taps: Tensor,
        sites: Tensor,
        settings: tuple[tuple[int, ...], ...],
    ) -> Tensor:
        ctx.save_for_backward(x, weight, corners, taps, sites)
        ctx.settings, ctx.has_bias = settings, bias is not None
        stride, padding, dilation = settings
        return F.conv2d(x, weight, bias, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, corners, taps, sites = ctx.saved_tensors
        by_input, _, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, *ctx.settings, False, [0, 0], len(weight), [True, False, False]
        )
        above, left = ctx.settings[1]
        rows = F.pad(rearrange(x, "b c h w -> b h w c"), (0, 0, left, left, above, above)).flatten(0, 2)
        gradients = rearrange(gradient, "b c h w -> (b h w) c").index_select(0, sites)
        precise = torch.promote_types(weight.dtype, torch.float32)
        by_weight = weight.new_zeros(len(taps), len(weight), dtype=precise)
        size = max(1, _CHUNK // (len(taps) * len(weight)))
        for corner, part in zip(corners.split(size), gradients.split(size), strict=True):
            window = rows.index_select(0, (corner[:, None] + taps).flatten()).view(len(corner), len(taps), -1)
            by_weight = by_weight + (window * part[:, None]).sum(0, dtype=precise)
        by_bias = gradients.sum(0) if ctx.has_bias else None
        return by_input, by_weight.T.reshape(weight.shape).to(weight.dtype), by_bias, None, None, None, None


def _output_size(convolution: nn.Conv2d, sites: VisibleSites) -> tuple[int, int]:
    height, width = (
        (side + 2 * pad - step * (kernel - 1) - 1) // stride + 1
        for side, pad, step, kernel, stride in zip(
            (sites.height, sites.width),
            _padding(convolution),
            convolution.dilation,
            convolution.kernel_size,
            convolution.stride,
            strict=True,
        )
    )
    return height, width


def _padding(convolution: nn.Conv2d) -> tuple[int, ...]:
    assert isinstance(convolution.padding, tuple)
    return convolution.padding
