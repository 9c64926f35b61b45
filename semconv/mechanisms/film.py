"""Signals that scale and shift what a convolution says."""

import torch
from torch import Tensor, nn

from semconv.convolution import Mechanism, SignalConv2d, output_grid, require_signals
from semconv.indicators import Indicators, Signals


class FiLM(Mechanism):
    """Each output is scaled and shifted by what is told near its site: A(u) = 1 + gamma(u), c(u) = A(u) b + beta(u).

    gamma and beta are convolutions of the signals on the output's own grid, with weights from zero, so that the first step computes
    what plain does. beta can take up gamma's share of b: this is the family of A = 1 + gamma, c = b + beta. Without gamma it is
    appended values at `kernel_size` 1. Unlike everything that only adds, it can silence a feature where something is masked, in
    one layer.

    x is not normalised here, as SPADE does before it modulates: that would change the first step, and a network has norms of its
    own. One that follows washes part of this away: a layer norm what gamma and beta have in common over channels, a batch norm
    what they have in common over all sites and images, a group norm what is the same all over an image.

    Also known as: feature-wise linear modulation (Perez et al., 2018), there one gamma and beta per image; SPADE (Park et al.,
    2019), spatially adaptive, there of a label map and behind a norm.

    Args:
        convolution: the convolution that is told.
        indicators: what it is told.
        kernel_size: side of the window of signals that gamma and beta read: an odd number. 3 as in SPADE, where 1 did worse.

    Raises:
        ValueError: `kernel_size` is not odd.
    """

    silent_when_visible = True

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators, kernel_size: int = 3) -> None:
        super().__init__()
        require_signals(self, indicators)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size of FiLM is {kernel_size}: give an odd number, so that the window has a centre")
        self.pad = (kernel_size // 2, kernel_size // 2)
        counts = indicators.num_per_image, indicators.num_shared
        self.from_signals = SignalConv2d(*counts, 2 * convolution.out_channels, (kernel_size, kernel_size))

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        y = convolution(x)
        grid = output_grid(y)._replace(pad=self.pad, mode=convolution.padding_mode)
        told: Tensor = self.from_signals(signals.at(grid), grid)
        gamma, beta = told.to(y.dtype).chunk(2, 1)
        return torch.addcmul(y + beta, y, gamma)
