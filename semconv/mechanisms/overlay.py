"""Signals as vectors over the pixels."""

import torch
from torch import Tensor, nn

from semconv.convolution import Mechanism, SignalConv2d, convolve_extended, input_grid, require_signals, spread
from semconv.indicators import Grid, Indicators, Signals


class OverlayAdd(Mechanism):
    """A vector added to every pixel that a kernel reads: x~ = x + E m.

    E starts at zero, so that the first step computes what plain does. This equals channels with a tied kernel, U_d = W_d E; in a
    grouped convolution each group reads its own part of the vector.

    Also known as: additive position embedding, on pixels.
    """

    silent_when_visible = True

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators) -> None:
        super().__init__()
        require_signals(self, indicators)
        self.from_signals = SignalConv2d(indicators.num_per_image, indicators.num_shared, convolution.in_channels)
        self.follows = all(part.conveys == "mask" for part in indicators if part.per_image)

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        grid = input_grid(convolution, x)
        if self.follows and signals.truthful:
            return self._convolve_apart(convolution, x, signals, grid)
        overlay = self.from_signals(signals.at(grid))
        return convolve_extended(convolution, grid.extend(x) + _like(overlay, x))

    def _convolve_apart(self, convolution: nn.Conv2d, x: Tensor, signals: Signals, grid: Grid) -> Tensor:
        """The same output at less cost: maps shared by all images are convolved once, for a batch of one.

        It requires that padding continues the maps that differ between images as their indicators do.
        """
        bare = Grid(grid.height, grid.width)
        sites = signals.at(bare)
        if sites.per_image.shape[1]:
            x = x + _like(self.from_signals(sites._replace(shared=sites.shared[:, :0])), x)
        y = convolution(x)
        sites = signals.at(grid)
        if sites.shared.shape[1]:
            overlay = self.from_signals(sites._replace(per_image=sites.per_image[:, :0]))
            y = y + spread(convolve_extended(convolution, overlay, bias=False), y)
        return y


class OverlayReplace(Mechanism):
    """A learned vector in place of the masked pixels that a kernel reads: x~ = t + E m where masked, x elsewhere.

    m are the signals other than the mask. A partly masked site mixes both by its masked share. t and E start at zero: on a
    zero-filled image the first step is plain's; at deeper layers or with another fill it is not. With zero fill this equals
    channels with U_d = W_d t.

    Also known as: mask token on pixels (SimMIM on a convolutional stem).
    """

    silent_when_visible = True
    only_where_masked = True

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators) -> None:
        super().__init__()
        require_signals(self, indicators, mask=True)
        self.token = Token(convolution.in_channels, indicators)

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        grid = input_grid(convolution, x)
        if signals.truthful and (grid.mode == "zeros" or not self.token.from_signals):
            # padding then gives the same values beyond the border
            return convolution(self.token(x, signals, Grid(grid.height, grid.width)))
        return convolve_extended(convolution, self.token(grid.extend(x), signals, grid))


class Token(nn.Module):
    """A learned vector, plus a linear map of the signals other than the mask, in place of masked sites.

    Args:
        channels: length of the vector.
        indicators: the indicators of the network, the mask among them.
        std: deviation of the normal distribution that the vector is drawn from; 0 for a vector of zeros.
    """

    def __init__(self, channels: int, indicators: Indicators, std: float = 0.0) -> None:
        super().__init__()
        self.std = std
        self.vector = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.reset_parameters()
        others = indicators.num_others
        self.from_signals = SignalConv2d(*others, channels) if any(others) else None

    def reset_parameters(self) -> None:
        nn.init.normal_(self.vector, std=self.std)

    def forward(self, x: Tensor, signals: Signals, grid: Grid) -> Tensor:
        """Replace the masked sites of `b c h w` by the token."""
        masked = signals.masked(grid).to(x.dtype)
        # the mask itself says nothing more where it is 1
        added = self.from_signals(signals.others(grid)) if self.from_signals else 0.0
        token = _like(self.vector + added, x)
        return torch.lerp(x, spread(token, x) if len(token) == 1 else token, masked)


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype)
