"""A second convolution that gates the output of the first."""

import torch
from torch import Tensor, nn

from semconv.convolution import Amplitude, Mechanism, SignalConv2d, convolve_with, output_grid, require_signals
from semconv.indicators import Indicators, Signals


class Gated(Mechanism):
    """Gated convolution of pixels and signals (Yu et al., 2019): y = 2 sigmoid(conv[x, m]) * conv[x, m].

    Each of the two convolutions has its own weights for x and m. They are split, so that the kernel keeps its fan-in: A(u) = 2
    sigmoid(G x + H m + a), c(u) = A(u) (b + U m), where H m and U m are averaged over the window. G has the size of the
    convolution's kernel, so `SemanticCNN` narrows its MLPs to match parameters. U and H read 3 x 3 sites of the output's grid: for
    a 3 x 3 kernel of stride 1 this is the concatenation, but for the factor 1/9; for a 7 x 7 depthwise kernel, full-size U and H
    would be twelve times the kernel itself. The output has no activation but the network's own.

    Yu et al. draw the gate's kernel around zero, so that gates start near 1/2. Here G, H, a and U start at zero and the gates at
    exactly 1/2; the factor 2, equivalent to a kernel twice as large, makes the first step plain's. If nothing is masked, H m and
    U m are 0, but the gate still sees the pixels: the convolution is then not plain.

    Also known as: gated convolution (DeepFill v2); gated linear unit (Dauphin et al., 2017).

    Args:
        convolution: the convolution to condition.
        indicators: the indicators to condition it on.
        average: divide the sums of signals over the window by its number of taps.
    """

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators, average: bool = True) -> None:
        super().__init__()
        require_signals(self, indicators)
        self.gate = _Gate(convolution)
        self.amplitude = Amplitude()
        self.from_signals = SignalConv2d(
            indicators.num_per_image, indicators.num_shared, 2 * convolution.out_channels, (3, 3), average=average
        )

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        y = convolution(x)
        grid = output_grid(y)._replace(pad=(1, 1), mode=convolution.padding_mode)
        added: Tensor = self.from_signals(signals.at(grid))
        answer, gate = added.chunk(2, 1)
        return (y + answer) * self.amplitude(2 * torch.sigmoid(self.gate(convolution, x) + gate))


class _Gate(nn.Module):
    """The kernel and bias of a gate, of the shape of its convolution's, from zero."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros_like(convolution.weight))
        self.bias = nn.Parameter(torch.zeros_like(convolution.weight[:, 0, 0, 0]))

    def forward(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        return convolve_with(convolution, x, self.weight, self.bias)
