"""Attention over the window of a convolution, in the kernel's place."""

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.convolution import Mechanism, SignalConv2d, input_grid
from semconv.indicators import Grid, Indicators, Signals


class LocalAttention(Mechanism):
    """Attention takes the kernel's place: y(u) = W * sum over d of a_d(u) v(u + d) + b, over the kernel's own window.

        a_d(u) = softmax over d of  q(u) k(u + d) / sqrt(head_dim) + bias(d) + g(m(u + d)) + log visible(u + d)

    in each head, with a bias per offset and a bias g of the signals m, linear and from zero. If the mask is told, a site that is
    masked is no key, and one that is masked in part counts by its visible share; a network that is not told sees all. Beyond a
    zero-padded border there is nothing to attend to; other padding modes continue the map. One key and value more, learned and the
    same everywhere, keep a window finite in which nothing is visible: it answers that value. With all q k at 0 this is the mean of
    what is visible, the partial convolution's content-free cousin.

    Queries are made of what stands at the centre of each window, at a stride of s of every s-th site; keys and values of all. In a
    dense convolution v and W are full matrices; a single head has no need of two. In a grouped one v is x itself and W has the
    convolution's groups: like the kernel it leaves it to the next layer to mix channels, and a depthwise one has a factor per
    channel. There is no kernel, and so the first step is not plain's.

    Computed in tiles of queries with all keys around them, as HaloNet does (Vaswani et al., 2021): equal to unfolding each window.

    Also known as: stand-alone self-attention (Ramachandran et al., 2019), neighbourhood attention (Hassani et al., 2023).

    Args:
        convolution: the convolution whose place it takes.
        indicators: what it is told; none: it attends by content and offset alone.
        heads: at most so many: fewer where they would not divide the channels, or leave one less than twice `head_dim`.
        head_dim: length of queries and keys, at most the input's channels.

    Raises:
        ValueError: heads or head_dim is below 1.
    """

    needs_kernel = False

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators, heads: int = 4, head_dim: int = 16) -> None:
        super().__init__()
        channels, width = convolution.in_channels, convolution.out_channels
        heads = count_heads(width, heads, head_dim)
        mixes = convolution.groups == 1 and heads > 1  # a second matrix after that of a single head would be one too many
        self.value = Projection(channels, width, bias=False) if mixes else nn.Identity()
        width = width if mixes else channels
        self.attend = WindowAttention(convolution, indicators, channels, width, heads, head_dim)
        self.project = Projection(width, convolution.out_channels, convolution.groups, convolution.bias is not None)

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        return self.project(self.attend(x, self.value, input_grid(convolution, x), signals))


class Projection(nn.Module):
    """A matrix at every site, in groups, drawn so that its output varies as much as its input.

    Args:
        channels: of the input.
        width: of the output.
        groups: as in a convolution.
        bias: whether one is added.
    """

    def __init__(self, channels: int, width: int, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(width, channels // groups, 1, 1))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, groups=self.groups)


def count_heads(width: int, heads: int, head_dim: int) -> int:
    """How many heads share `width` channels: the most up to `heads` that divide them into parts of at least twice `head_dim`."""
    if heads < 1 or head_dim < 1:
        raise ValueError(f"heads is {heads} and head_dim is {head_dim}: give 1 or more of each")
    return max(n for n in range(1, heads + 1) if n == 1 or (width % n == 0 and width >= 2 * n * head_dim))


class WindowAttention(nn.Module):
    """What `LocalAttention` says of the values in each window.

    Args:
        convolution: whose windows.
        indicators: what it is told.
        channels: of the input.
        width: channels of the values, dealt out to the heads.
        heads: as in `LocalAttention`.
        head_dim: likewise.
    """

    def __init__(
        self, convolution: nn.Conv2d, indicators: Indicators, channels: int, width: int, heads: int, head_dim: int
    ) -> None:
        super().__init__()
        numbers = zip(convolution.kernel_size, convolution.stride, convolution.dilation, strict=True)
        self.sides, self.heads = [Side(*each) for each in numbers], heads
        self.head_dim = min(head_dim, channels)
        self.query = nn.Linear(channels, self.heads * self.head_dim)
        self.key = nn.Linear(channels, self.heads * self.head_dim, bias=False)
        self.offset_bias = nn.Parameter(torch.zeros(self.heads, *convolution.kernel_size))
        self.null_key = nn.Parameter(torch.zeros(self.heads, self.head_dim))
        self.null_value = nn.Parameter(torch.zeros(width))
        self.include_mask = indicators.include_mask
        self.from_signals = SignalConv2d(indicators.num_per_image, indicators.num_shared, self.heads) if len(indicators) else None

    def forward(self, x: Tensor, value: nn.Module, grid: Grid, signals: Signals) -> Tensor:
        """The weighted mean of the values `b width h' w'` at every output site.

        Args:
            x: the input, `b channels h w`.
            value: makes the values of it, at every site.
            grid: the grid of x with its padding.
            signals: what can be told.
        """
        lengths = zip(self.sides, (grid.height, grid.width), grid.pad, strict=True)
        rows, columns = (side.cut(length, pad, grid.mode == "zeros") for side, length, pad in lengths)
        places = _places(rows, columns, x.device)
        queries = self.query(self.centres(x, grid)) * self.head_dim**-0.5
        if rows.spare or columns.spare:
            queries = F.pad(queries, (0, 0, 0, columns.spare, 0, rows.spare))
        queries = rearrange(
            queries,
            "b (i y) (j x) (n d) -> b (i j) n (y x) d",
            y=rows.tile,
            x=columns.tile,
            n=self.heads,
        )
        seen = self._select(x, grid, signals)
        sources = _sources(grid, x.device)[places]
        keys = self._lay(self.key(seen.movedim(1, 3)), self.null_key.flatten(), sources)
        values = self._lay(value(seen).movedim(1, 3), self.null_value, sources)
        logits = queries @ keys.transpose(3, 4)
        logits += self._offset_logits(rows, columns)  # in place: these are by far the largest tensors
        logits += self._key_logits(grid, signals, places)
        weights = logits.softmax(-1)
        answer = rearrange(
            weights.to(values.dtype) @ values,
            "b (i j) n (y x) d -> b (i y) (j x) (n d)",
            i=rows.tiles,
            y=rows.tile,
            x=columns.tile,
        )
        return answer[:, : rows.outputs, : columns.outputs].movedim(3, 1)

    def _lay(self, x: Tensor, null: Tensor, sources: Tensor) -> Tensor:
        """Keys or values of each tile and head, the null one first: `b h w (n d)` to `b tiles n keys d`."""
        x = torch.cat([null.to(x.dtype).expand(len(x), 1, -1), x.flatten(1, 2)], dim=1)
        sources = F.pad(sources, (1, 0))
        index = sources[:, None] * self.heads + torch.arange(self.heads, device=x.device)[:, None]
        rows = rearrange(x, "b l (n d) -> b (l n) d", n=self.heads)
        return rows.index_select(1, index.flatten()).unflatten(1, index.shape)

    def _select(self, x: Tensor, grid: Grid, signals: Signals) -> Tensor:
        """Without what is masked: what stands there is chosen away, as a weight of 0 would let NaN pass."""
        return x.masked_fill(signals.masked(Grid(grid.height, grid.width)) >= 1, 0) if self.include_mask else x

    def centres(self, x: Tensor, grid: Grid) -> Tensor:
        """What stands at the centre of each window: `b h' w' c`."""
        pads = grid.pad
        if any(pad > min(side.margins) for side, pad in zip(self.sides, pads, strict=True)):  # some stand beyond the border
            x, pads = grid.extend(x), (0, 0)
        rows, columns = (side.centres(pad) for side, pad in zip(self.sides, pads, strict=True))
        return x[:, :, rows, columns].movedim(1, 3)

    def _offset_logits(self, rows: "Cut", columns: "Cut") -> Tensor:
        """The bias of each offset between a tile's queries and keys, -inf outside of the window: `n queries keys`."""
        down, right = (cut.offsets(self.offset_bias.device) for cut in (rows, columns))
        logits = torch.einsum(
            "nij,yai,xbj->nyxab", self.offset_bias, down.to(self.offset_bias.dtype), right.to(self.offset_bias.dtype)
        )
        inside = down.any(2)[:, None, :, None] & right.any(2)[:, None, :]
        logits = rearrange(logits.masked_fill(~inside, -math.inf), "n y x a b -> n (y x) (a b)")
        return F.pad(logits, (1, 0))  # the null key is in every window

    def _key_logits(self, grid: Grid, signals: Signals, places: Tensor) -> Tensor:
        """What is said of each key wherever it is seen from, -inf where there is nothing to see: `b tiles n 1 keys`."""
        dtype = torch.promote_types(self.offset_bias.dtype, torch.float32)
        visible = grid.extend(torch.ones(1, 1, grid.height, grid.width, dtype=dtype, device=places.device))
        if self.include_mask:
            visible = visible * (1 - signals.masked(grid).to(dtype))
        # the logarithm of 0 is chosen away: its gradient is not finite
        logits = torch.where(visible > 0, visible, 1).log().masked_fill(visible <= 0, -math.inf)
        if self.from_signals is not None:
            logits = logits + self.from_signals(signals.at(grid), grid)
        tiles = logits.flatten(2).index_select(2, places.flatten()).unflatten(2, places.shape)
        return F.pad(rearrange(tiles, "b n t l -> b t n 1 l"), (1, 0))


class Side(NamedTuple):
    """Rows or columns of a window."""

    kernel: int
    stride: int
    dilation: int

    @property
    def margins(self) -> tuple[int, int]:
        """How far the window reaches before and behind its centre."""
        before = (self.kernel - 1) * self.dilation // 2
        return before, (self.kernel - 1) * self.dilation - before

    def centres(self, pad: int) -> slice:
        """Where the centres of all windows stand on a side of which `pad` sites at each end are left away."""
        before, behind = self.margins
        return slice(before - pad, pad - behind or None, self.stride)

    def cut(self, length: int, pad: int, blank: bool) -> "Cut":
        """Cut a side of `length` sites into tiles; `blank` if there is nothing beyond its border."""
        reach = (self.kernel - 1) * self.dilation + 1
        outputs = (length + 2 * pad - reach) // self.stride + 1
        # tiles whose keys are two windows across cost least, in pairs of queries and keys and in copies of keys
        whole = length <= 2 * reach
        count = 1 if whole else -(-outputs // max(2, -(-reach // (2 * self.stride))))
        tile = -(-outputs // count)
        if whole and blank:  # the keys are the sites there are
            return Cut(self, outputs, tile, 1, 0, length, pad, length + 2 * pad)
        return Cut(self, outputs, tile, count, -pad, (tile - 1) * self.stride + reach, pad, length + 2 * pad)


class Cut(NamedTuple):
    """A side of a map, cut into tiles of queries with the keys that their windows reach."""

    side: Side
    outputs: int  # queries in all
    tile: int  # queries of one tile
    tiles: int  # how many
    first: int  # where the keys of the first tile begin, the first site of the map being 0
    keys: int  # of a tile
    pad: int  # how far the map is continued on either side
    length: int  # of the side, padded

    @property
    def spare(self) -> int:
        """Queries of the last tile that are too many."""
        return self.tile * self.tiles - self.outputs

    def places(self, device: torch.device) -> Tensor:
        """Where the keys of each tile stand on the padded side: `tiles keys`."""
        tile = torch.arange(self.tiles, device=device)[:, None] * self.tile * self.side.stride
        # what the last tile reads beyond the end is of no query that counts
        return (tile + torch.arange(self.keys, device=device) + self.first + self.pad).clamp(max=self.length - 1)

    def offsets(self, device: torch.device) -> Tensor:
        """Which kernel element a key is to a query, if any: bool `tile keys kernel`."""
        query = torch.arange(self.tile, device=device)[:, None, None] * self.side.stride - self.pad
        key = torch.arange(self.keys, device=device)[:, None] + self.first
        return key - query == torch.arange(self.side.kernel, device=device) * self.side.dilation


def _places(rows: Cut, columns: Cut, device: torch.device) -> Tensor:
    """Where the keys of each tile stand on the padded map, its sites counted row by row: `tiles keys`."""
    down, right = rows.places(device), columns.places(device)
    return rearrange(down[:, None, :, None] * columns.length + right[:, None], "i j y x -> (i j) (y x)")


def _sources(grid: Grid, device: torch.device) -> Tensor:
    """Which site of a map each place of its padded grid repeats, counted from 1; 0: none."""
    number = torch.arange(1, grid.height * grid.width + 1, dtype=torch.float64, device=device)
    return grid.extend(number.view(1, 1, grid.height, grid.width)).flatten().long()
