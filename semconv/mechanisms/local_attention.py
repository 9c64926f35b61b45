"""Local attention in place of a convolution kernel."""

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.convolution import Mechanism, SignalConv2d, input_grid
from semconv.indicators import Grid, Indicators, Signals


class LocalAttention(Mechanism):
    """Local attention over the window of a kernel, in its place (Ramachandran et al., 2019), with masked sites excluded.

        y(u) = W * sum over d of a_d(u) v(u + d) + b
        a_d(u) = softmax over d of  q(u) k(u + d) / sqrt(head_dim) + bias(d) + g(m(u + d)) + log visible(u + d)

    per head, with a learned bias per offset and a bias g linear in the signals m, from zero. If the mask is among the indicators, a
    masked site is no key, and a partly masked one is weighted by its visible share; otherwise all sites are keys. There are no keys
    beyond a zero-padded border; other padding modes continue the map. One extra key and value, learned and the same everywhere,
    define the output of a window with nothing visible: it is that value. If all q k are 0, this is the mean of the visible sites,
    as a partial convolution without content.

    Queries come from the site at the centre of each window (at stride s, from every s-th site), keys and values from all sites. In
    a dense convolution v and W are full matrices; a single head needs only one of them. In a grouped convolution v is x itself and
    W has the convolution's groups: like the kernel, it leaves the mixing of channels to the next layer, and a depthwise one has one
    factor per channel. There is no kernel, so the first step is not plain's.

    The computation is in tiles of queries with all keys around them (HaloNet; Vaswani et al., 2021), and equals unfolded windows.

    Also known as: stand-alone self-attention, neighbourhood attention (Hassani et al., 2023).

    Args:
        convolution: the convolution to replace.
        indicators: the indicators to condition it on; none: attention by content and offset only.
        heads: maximal number of heads: the largest number up to it that divides the channels and leaves each head at least twice
            `head_dim` of them, else 1.
        head_dim: length of queries and keys, at most the number of input channels.

    Raises:
        ValueError: heads or head_dim is below 1.
    """

    needs_kernel = False

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators, heads: int = 4, head_dim: int = 16) -> None:
        super().__init__()
        channels, width = convolution.in_channels, convolution.out_channels
        # in groups, values are channels of the input
        heads = count_heads(width if convolution.groups == 1 else math.gcd(channels, width), heads, head_dim)
        mixes = convolution.groups == 1 and heads > 1  # for a single head, W alone can express both matrices
        self.value = Projection(channels, width, bias=False) if mixes else nn.Identity()
        width = width if mixes else channels
        self.attend = WindowAttention(convolution, indicators, channels, width, heads, head_dim)
        self.project = Projection(width, convolution.out_channels, convolution.groups, convolution.bias is not None)

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        return self.project(self.attend(x, self.value, input_grid(convolution, x), signals))


class Projection(nn.Module):
    """A grouped 1 x 1 convolution whose initial weights keep the variance of the input.

    Args:
        channels: channels of the input.
        width: channels of the output.
        groups: as in a convolution.
        bias: add a bias.
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
    """The number of heads for `width` channels: the most up to `heads` that divide them into at least twice `head_dim` each."""
    if heads < 1 or head_dim < 1:
        raise ValueError(f"heads is {heads} and head_dim is {head_dim}: give 1 or more of each")
    return max(n for n in range(1, heads + 1) if n == 1 or (width % n == 0 and width >= 2 * n * head_dim))


class WindowAttention(nn.Module):
    """The attention of `LocalAttention`: weights over the values of each window.

    Args:
        convolution: the convolution whose windows are used.
        indicators: the indicators to condition it on.
        channels: channels of the input.
        width: channels of the values, divided among the heads.
        heads: number of heads.
        head_dim: length of queries and keys, as in `LocalAttention`.
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
            value: maps x to the values, at every site.
            grid: the grid of x with its padding.
            signals: the signals of this batch.
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
        """Gather keys or values by tile and head, the null one first: `b h w (n d)` to `b tiles n keys d`."""
        x = torch.cat([null.to(x.dtype).expand(len(x), 1, -1), x.flatten(1, 2)], dim=1)
        sources = F.pad(sources, (1, 0))
        index = sources[:, None] * self.heads + torch.arange(self.heads, device=x.device)[:, None]
        rows = rearrange(x, "b l (n d) -> b (l n) d", n=self.heads)
        return rows.index_select(1, index.flatten()).unflatten(1, index.shape)

    def _select(self, x: Tensor, grid: Grid, signals: Signals) -> Tensor:
        """Replace masked sites by 0, by selection: a weight of 0 would let NaN pass."""
        return x.masked_fill(signals.masked(Grid(grid.height, grid.width)) >= 1, 0) if self.include_mask else x

    def centres(self, x: Tensor, grid: Grid) -> Tensor:
        """The values at the centre of each window: `b h' w' c`."""
        pads = grid.pad
        if any(pad > min(side.margins) for side, pad in zip(self.sides, pads, strict=True)):  # some centres lie beyond the border
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
        """The terms of the logits that depend on the key alone, -inf for a site that is no key: `b tiles n 1 keys`."""
        dtype = torch.promote_types(self.offset_bias.dtype, torch.float32)
        visible = grid.extend(torch.ones(1, 1, grid.height, grid.width, dtype=dtype, device=places.device))
        if self.include_mask:
            visible = visible * (1 - signals.masked(grid).to(dtype))
        # selection avoids the logarithm of 0, whose gradient is not finite
        logits = torch.where(visible > 0, visible, 1).log().masked_fill(visible <= 0, -math.inf)
        if self.from_signals is not None:
            logits = logits + self.from_signals(signals.at(grid))
        tiles = logits.flatten(2).index_select(2, places.flatten()).unflatten(2, places.shape)
        return F.pad(rearrange(tiles, "b n t l -> b t n 1 l"), (1, 0))


class Side(NamedTuple):
    """The rows, or the columns, of a window."""

    kernel: int
    stride: int
    dilation: int

    @property
    def margins(self) -> tuple[int, int]:
        """The reach of the window before and behind its centre, in sites."""
        before = (self.kernel - 1) * self.dilation // 2
        return before, (self.kernel - 1) * self.dilation - before

    def centres(self, pad: int) -> slice:
        """The positions of all window centres along a side without its `pad` sites of padding at each end."""
        before, behind = self.margins
        return slice(before - pad, pad - behind or None, self.stride)

    def cut(self, length: int, pad: int, blank: bool) -> "Cut":
        """Cut a side of `length` sites into tiles; `blank` if there are no keys beyond its border."""
        reach = (self.kernel - 1) * self.dilation + 1
        outputs = (length + 2 * pad - reach) // self.stride + 1
        # tiles whose keys are two windows across cost least, in pairs of queries and keys and in copies of keys
        whole = length <= 2 * reach
        count = 1 if whole else -(-outputs // max(2, -(-reach // (2 * self.stride))))
        tile = -(-outputs // count)
        if whole and blank:  # the keys are the sites of the map
            return Cut(self, outputs, tile, 1, 0, length, pad, length + 2 * pad)
        return Cut(self, outputs, tile, count, -pad, (tile - 1) * self.stride + reach, pad, length + 2 * pad)


class Cut(NamedTuple):
    """A side of a map, cut into tiles of queries with the keys that their windows contain."""

    side: Side
    outputs: int  # number of queries
    tile: int  # queries per tile
    tiles: int  # number of tiles
    first: int  # position of the first key of the first tile; the first site of the map has position 0
    keys: int  # keys per tile
    pad: int  # padding at each end
    length: int  # of the side with its padding

    @property
    def spare(self) -> int:
        """Surplus queries of the last tile."""
        return self.tile * self.tiles - self.outputs

    def places(self, device: torch.device) -> Tensor:
        """The positions of each tile's keys on the padded side: `tiles keys`."""
        tile = torch.arange(self.tiles, device=device)[:, None] * self.tile * self.side.stride
        # only surplus queries of the last tile read beyond the end
        return (tile + torch.arange(self.keys, device=device) + self.first + self.pad).clamp(max=self.length - 1)

    def offsets(self, device: torch.device) -> Tensor:
        """The kernel element that each key is for each query, if any: bool `tile keys kernel`."""
        query = torch.arange(self.tile, device=device)[:, None, None] * self.side.stride - self.pad
        key = torch.arange(self.keys, device=device)[:, None] + self.first
        return key - query == torch.arange(self.side.kernel, device=device) * self.side.dilation


def _places(rows: Cut, columns: Cut, device: torch.device) -> Tensor:
    """The positions of each tile's keys on the padded map, counted row by row: `tiles keys`."""
    down, right = rows.places(device), columns.places(device)
    return rearrange(down[:, None, :, None] * columns.length + right[:, None], "i j y x -> (i j) (y x)")


def _sources(grid: Grid, device: torch.device) -> Tensor:
    """The site of a map that each position of its padded grid repeats, counted from 1; 0: none."""
    number = torch.arange(1, grid.height * grid.width + 1, dtype=torch.float64, device=device)
    return grid.extend(number.view(1, 1, grid.height, grid.width)).flatten().long()
