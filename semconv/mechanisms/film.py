"""Signals that scale and shift the output of a convolution."""

import torch
from torch import Tensor, nn

from semconv.convolution import Amplitude, Mechanism, SignalConv2d, output_grid, require_signals
from semconv.indicators import Indicators, Signals


class FiLM(Mechanism):
    """Scale and shift of the output by signals (FiLM; Perez et al., 2018): A(u) = 1 + gamma(u), c(u) = A(u) b + beta(u).

    gamma and beta are convolutions of the signals on the grid of the output, averaged over the window. Their weights start at zero,
    so that the first step computes what plain does. Because beta can absorb gamma b, this is the family A = 1 + gamma, c = b +
    beta. Without gamma, at `kernel_size` 1, it is appended values. Unlike purely additive mechanisms it can silence a feature at
    masked sites in one layer.

    x is not normalised first, as in SPADE: that would change the first step, and the network has its own norms. A norm behind the
    convolution removes a part of the modulation: a layer norm the part common to all channels, a batch norm the part common to all
    sites and images, a group norm the part that is constant over an image.

    Also known as: feature-wise linear modulation, there with one gamma and beta per image; SPADE (Park et al., 2019), there of a
    label map and after a norm.

    Args:
        convolution: the convolution to condition.
        indicators: the indicators to condition it on.
        kernel_size: side of the window of signals that gamma and beta read: an odd number. SPADE uses 3, and found 1 worse.
        average: divide the sums over the window by its number of taps.

    Raises:
        ValueError: `kernel_size` is even, or below 1.
    """

    silent_when_visible = True

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators, kernel_size: int = 3, average: bool = True) -> None:
        super().__init__()
        require_signals(self, indicators)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size of FiLM is {kernel_size}: give an odd number, so that the window has a centre")
        self.amplitude = Amplitude(1.0)
        self.pad = (kernel_size // 2, kernel_size // 2)
        counts = indicators.num_per_image, indicators.num_shared
        self.from_signals = SignalConv2d(*counts, 2 * convolution.out_channels, (kernel_size, kernel_size), average=average)

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        y = convolution(x)
        grid = output_grid(y)._replace(pad=self.pad, mode=convolution.padding_mode)
        added: Tensor = self.from_signals(signals.at(grid))
        gamma, beta = added.to(y.dtype).chunk(2, 1)
        return torch.addcmul(y + beta, y, self.amplitude(gamma))
