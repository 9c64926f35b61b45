"""A convolution of what is visible."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.convolution import Mechanism, SignalConv2d, input_grid, output_grid, require_signals, spread
from semconv.indicators import Grid, Indicators, Signals

Border = Literal["valid", "invalid"]
Update = Literal["hard", "soft", "none"]

# of one site: a window that sees less counts as empty, so that N / n is finite in half precision
LEAST = 2.0**-10


class Partial(Mechanism):
    """Only what is visible is read, and the answer made up for how little that is: y = (N/n)^p conv(v x) + b + E m, 0 where n = 0.

    v is the visible share of each site of the input, N the number of sites in a window and n the sum of v over it. m is what is
    told besides the mask; E starts at zero. The first step differs from plain wherever a window holds something masked. When
    nothing is masked and the border counts as valid it is plain at every step.

    For inputs of mean zero p = 1/2 keeps the deviation of the answer, whatever share f is visible; p = 0 lowers it by sqrt(f), and
    p = 1, which keeps the mean of a constant input, raises it by 1 / sqrt(f).

    Mask update: what a told convolution leaves at a resolution is v for the next told one that reads there, in this forward alone:
    `hard`, 1 where n > 0; `soft`, n / N; `none`: v stays the share of each site that is not masked, as it also is wherever no told
    convolution has left anything at a resolution. Nothing else moves v: not an untold convolution, and not a skip connection, so
    that behind it a site is as visible as its branch has made it. To recompute layers in the backward pass (activation
    checkpointing) would move v twice: use `none` there.

    The Constant control says that all is masked: nothing is read. A window is then empty unless it reaches a border that counts as
    valid; the answer is b + E m there, and 0 elsewhere.

    Also known as: normalised convolution (Knutsson & Westin, 1993), sparsity-invariant convolution (Uhrig et al., 2017), partial
    convolution (Liu et al., 2018: p = 1, hard, invalid). With nothing masked `invalid` is partial-convolution padding (Liu et al.,
    2018b).

    Args:
        convolution: the convolution that is told.
        indicators: what it is told, the mask among it.
        power: p, one of 0, 1/2 and 1.
        border: sites beyond the border count as valid (zeros of zero padding are read as such; what other padding repeats is as
            visible as its source), or as invalid: they are not read, whatever the padding.
        update: how v moves.

    Raises:
        ValueError: the mask is not told, or `power` is another number.
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
        if self.power:
            y = y * windows.weight.to(y.dtype)
        # where a window is empty y is 0 already, and what is added must be
        if added is None:
            return y
        added = spread(added.to(y.dtype), y) if len(added) == 1 else added.to(y.dtype)
        return torch.addcmul(y, added, windows.full.to(y.dtype))

    def _convolve(self, convolution: nn.Conv2d, x: Tensor, grid: Grid) -> Tensor:
        mode = "zeros" if self.border == "invalid" else grid.mode
        padding, x = (grid.pad, x) if mode == "zeros" else ((0, 0), grid.extend(x))
        return F.conv2d(x, convolution.weight, None, convolution.stride, padding, convolution.dilation, convolution.groups)

    def _added(self, convolution: nn.Conv2d, y: Tensor, signals: Signals) -> Tensor | None:
        """What stands in c: bias and what is told besides the mask."""
        bias = None if convolution.bias is None else convolution.bias.view(1, -1, 1, 1)
        if self.from_signals is None:
            return bias
        grid = output_grid(y)
        told: Tensor = self.from_signals(signals.others(grid), grid)
        return told if bias is None else told + bias.to(told.dtype)

    def _windows(self, convolution: nn.Conv2d, visible: "_Visible", grid: Grid, signals: Signals) -> "_Windows":
        """Shared by all layers of one geometry that read one state of v."""
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
        weight = (size / visible.clamp(min=LEAST)) ** self.power
        return _Windows(weight, full.double(), torch.where(full, visible / size, 0))


class _Windows(NamedTuple):
    """What the windows of a convolution see: all float64, `b 1 h w` on the grid of its output."""

    weight: Tensor  # (N/n)^p
    full: Tensor  # 1 where n > 0, else 0
    share: Tensor  # n/N


class _Visible(NamedTuple):
    """How much of each site is visible at one depth of the network."""

    share: Tensor  # float64 b 1 h w, which autocast leaves alone
    whole: bool  # certainly 0 or 1 everywhere
    number: int  # counts the changes at this resolution

    def keep(self, x: Tensor) -> Tensor:
        """The visible share of each site of x; what is not visible leaves no trace, NaN included."""
        x = torch.where(self.share == 0, 0, x)  # masked_fill would leave the channels-last layout
        return x if self.whole else x * self.share.to(x.dtype)


def _visible(signals: Signals, grid: Grid) -> _Visible:
    """v on a grid without its padding, as the last told convolution has left it."""
    left = signals.carried.get(("partial", grid.height, grid.width))
    if left is not None:
        return left
    bare = Grid(grid.height, grid.width)
    return _Visible(1 - signals.masked(bare).double(), signals.masks_whole(bare), 0)


def _leave(signals: Signals, grid: Grid, share: Tensor, whole: bool) -> None:
    number = _visible(signals, grid).number + 1
    signals.carried["partial", grid.height, grid.width] = _Visible(share, whole, number)
