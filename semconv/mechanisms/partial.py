"""A convolution of visible content, rescaled by the visible share of each window."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.configuration import require_choice
from semconv.convolution import Mechanism, SignalConv2d, input_grid, output_grid, require_signals, spread
from semconv.indicators import Grid, Indicators, Signals

Border = Literal["valid", "invalid"]
Update = Literal["hard", "soft", "none"]

# of one site: a window that sees less counts as empty
LEAST = 2.0**-10


class Partial(Mechanism):
    """Partial convolution (Liu et al., 2018), rescaled by the visible share: y = (N/n)^p conv(v x) + b + E m, 0 where n = 0.

    v is the visible share of each input site, N the number of sites in a window, and n the sum of v over the window. m are the
    signals other than the mask; E starts at zero. The first step differs from plain in every window with masked content. If nothing
    is masked and the border counts as valid, it is plain at every step.

    For inputs of mean zero and a visible share f, p = 1/2 keeps the standard deviation of the output; p = 0 multiplies it by
    sqrt(f); p = 1, which keeps the mean of a constant input, multiplies it by 1 / sqrt(f).

    Mask update: each partial convolution writes a new v for its output resolution, which the next partial convolution at that
    resolution reads, within this forward: `hard`, 1 where n > 0; `soft`, n / N; `none`, no change. Before the first update at a
    resolution, v is the unmasked share of each site. Nothing else changes v: no plain convolution and no skip connection, so that
    after a residual block a site counts as visible as its branch made it. Activation checkpointing would update v twice, because
    it repeats the forward: use `none` with it.

    The control Constant marks everything as masked: nothing is read. A window is then empty unless it reaches a border that counts
    as valid; the output is b + E m there, and 0 elsewhere.

    Also known as: normalised convolution (Knutsson & Westin, 1993), sparsity-invariant convolution (Uhrig et al., 2017). Liu et al.
    (2018) use p = 1, `hard` and `invalid`. With nothing masked, `invalid` is partial-convolution padding (Liu et al., 2018b).

    Args:
        convolution: the convolution to condition.
        indicators: the indicators to condition it on, the mask among them.
        power: p: 0, 1/2 or 1.
        border: sites beyond the border are `valid` (zero padding is read as visible zeros; other padding is as visible as the
            site that it repeats) or `invalid` (never read, whatever the padding).
        update: update of v: `hard`, `soft` or `none`.

    Raises:
        ValueError: the mask is not among the indicators, or an argument is none of its values.
    """

    def __init__(
        self,
        convolution: nn.Conv2d,
        indicators: Indicators,
        power: float = 1.0,
        border: Border = "valid",
        update: Update = "hard",
    ) -> None:
        super().__init__()
        require_signals(self, indicators, mask=True)
        if power not in (0, 0.5, 1):
            raise ValueError(f"power of Partial is {power}: it must be 0, 0.5 or 1")
        require_choice("border", border, Border)
        require_choice("update", update, Update)
        self.power, self.border, self.update = power, border, update
        self.silent_when_visible = border == "valid"
        others = indicators.num_others
        self.from_signals = SignalConv2d(*others, convolution.out_channels) if any(others) else None

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        grid = input_grid(convolution, x)
        visible = _visible(signals, grid)
        windows = self._windows(convolution, visible, grid, signals)
        y = self._convolve(convolution, visible.keep(x), grid)
        added = self._added(convolution, y, signals)
        if self.update != "none":
            left = windows.full if self.update == "hard" else windows.share
            _leave(signals, output_grid(y), left, whole=self.update == "hard")
        y = y * windows.weight.clamp(max=torch.finfo(y.dtype).max).to(y.dtype)
        # the weight is 0 where a window is empty, and the added part must be 0 too
        if added is None:
            return y
        added = spread(added.to(y.dtype), y) if len(added) == 1 else added.to(y.dtype)
        return torch.addcmul(y, added, windows.full.to(y.dtype))

    def _convolve(self, convolution: nn.Conv2d, x: Tensor, grid: Grid) -> Tensor:
        mode = "zeros" if self.border == "invalid" else grid.mode
        padding, x = (grid.pad, x) if mode == "zeros" else ((0, 0), grid.extend(x))
        return F.conv2d(x, convolution.weight, None, convolution.stride, padding, convolution.dilation, convolution.groups)

    def _added(self, convolution: nn.Conv2d, y: Tensor, signals: Signals) -> Tensor | None:
        """The term c: bias, and a linear map of the signals other than the mask."""
        bias = None if convolution.bias is None else convolution.bias.view(1, -1, 1, 1)
        if self.from_signals is None:
            return bias
        grid = output_grid(y)
        added: Tensor = self.from_signals(signals.others(grid))
        return added if bias is None else added + bias.to(added.dtype)

    def _windows(self, convolution: nn.Conv2d, visible: "_Visible", grid: Grid, signals: Signals) -> "_Windows":
        """The windows on v, computed once for all layers of equal geometry that read the same v."""
        shape = convolution.kernel_size, convolution.stride, convolution.dilation
        key = "partial windows", grid, visible.number, *shape, self.border, self.power
        if key not in signals.carried:
            signals.carried[key] = self._count(visible.share, grid, *shape)
        return signals.carried[key]

    def _count(
        self, visible: Tensor, grid: Grid, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
    ) -> "_Windows":
        if self.border == "valid" and grid.mode != "zeros":
            visible = grid.extend(visible)
        else:
            visible = F.pad(visible, grid.sides, value=float(self.border == "valid"))
        for dim in (2, 3):
            i = dim - 2
            visible = visible.unfold(dim, (kernel[i] - 1) * dilation[i] + 1, stride[i])[..., :: dilation[i]].sum(-1)
        size, full = kernel[0] * kernel[1], visible >= LEAST
        weight = torch.where(full, (size / visible) ** self.power, 0)
        return _Windows(weight, full.double(), torch.where(full, visible / size, 0))


class _Windows(NamedTuple):
    """Visible content of the windows of a convolution: all float64, `b 1 h w` on the grid of its output."""

    weight: Tensor  # (N/n)^p, 0 where n = 0
    full: Tensor  # 1 where n > 0, else 0
    share: Tensor  # n/N


class _Visible(NamedTuple):
    """The visible share of each site, v, at one depth of the network."""

    share: Tensor  # float64 b 1 h w, a type that autocast does not change
    whole: bool  # known to be 0 or 1 everywhere
    number: int  # of updates so far at this resolution

    def keep(self, x: Tensor) -> Tensor:
        """Weight each site of x by its visible share; hidden sites become 0, also if they hold NaN."""
        x = torch.where(self.share == 0, 0, x)  # masked_fill would leave the channels-last layout
        return x if self.whole else x * self.share.to(x.dtype)


def _visible(signals: Signals, grid: Grid) -> _Visible:
    """v on a grid without its padding, after the last update."""
    left = signals.carried.get(("partial", grid.height, grid.width))
    if left is not None:
        return left
    bare = Grid(grid.height, grid.width)
    return _Visible(1 - signals.masked(bare).double(), signals.masks_whole(bare), 0)


def _leave(signals: Signals, grid: Grid, share: Tensor, whole: bool) -> None:
    number = _visible(signals, grid).number + 1
    signals.carried["partial", grid.height, grid.width] = _Visible(share, whole, number)
