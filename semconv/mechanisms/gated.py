"""A second convolution that opens and closes what the first says."""

import torch
from torch import Tensor, nn

from semconv.convolution import Mechanism, SignalConv2d, convolve_with, output_grid, require_signals
from semconv.indicators import Indicators, Signals


class Gated(Mechanism):
    """A gate that sees pixels and signals weighs an answer that does: y = 2 sigmoid(conv[x, m]) * conv[x, m].

    Both convolutions read x and m, with weights of their own; split, so that the kernel keeps its fan-in:
    A(u) = 2 sigmoid(G x + H m + a), c(u) = A(u) (b + U m). G is as large as the convolution's kernel, so that `SemanticCNN` narrows
    its perceptrons to match parameters. U and H read the output's own grid, 3 x 3 sites of it: for a 3 x 3 kernel of stride 1 that
    is the concatenation to the letter, for a 7 x 7 depthwise one U and H would be twelve times the kernel itself. No activation
    follows the answer but the network's own.

    Yu et al. (2019) draw the gate's kernel around zero, so that gates begin near 1/2. Here G, H, a and U are zero at first and
    gates exactly 1/2; the factor 2, as good as a kernel twice as large, makes the first step plain's. When nothing is masked H m
    and U m are 0, but the gate still sees the pixels: it is then not plain.

    Also known as: gated convolution (DeepFill v2; Yu et al., 2019); gated linear unit (Dauphin et al., 2017).
    """

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators) -> None:
        super().__init__()
        require_signals(self, indicators)
        self.gate = _Gate(convolution)
        self.from_signals = SignalConv2d(indicators.num_per_image, indicators.num_shared, 2 * convolution.out_channels, (3, 3))

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        y = convolution(x)
        grid = output_grid(y)._replace(pad=(1, 1), mode=convolution.padding_mode)
        told: Tensor = self.from_signals(signals.at(grid), grid)
        answer, gate = told.chunk(2, 1)
        return (y + answer) * (2 * torch.sigmoid(self.gate(convolution, x) + gate))


class _Gate(nn.Module):
    """The kernel and bias of a gate, of the shape of its convolution's, from zero."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros_like(convolution.weight))
        self.bias = nn.Parameter(torch.zeros_like(convolution.weight[:, 0, 0, 0]))

    def forward(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        return convolve_with(convolution, x, self.weight, self.bias)
