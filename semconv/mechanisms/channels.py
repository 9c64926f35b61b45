"""Signals as additional input channels."""

from torch import Tensor, nn

from semconv.convolution import Mechanism, SignalConv2d, input_grid, require_signals
from semconv.indicators import Indicators, Signals


class Channels(Mechanism):
    """Signals as additional input channels: c(u) = b + 1/N sum over d of U_d m(u + d).

    N is the number of taps of the kernel; the factor 1/N gives c the step size of a bias (`SignalConv2d`). This equals a
    convolution of the concatenation of x and m by the concatenation of W and U / N, except that W keeps its fan-in, and U starts at
    zero, so that the first step computes what plain does. Signals are evaluated on the padded grid, because zero-padded coordinates
    would be an artefact at the border. In a grouped convolution every group sees every signal.

    Also known as: mask channel (DeepFill, LaMa); CoordConv (Liu et al., 2018), if the signal is position. Both concatenate:
    `average=False`.

    Args:
        convolution: the convolution to condition.
        indicators: the indicators to condition it on.
        average: divide the sum over the window by its number of taps.
    """

    silent_when_visible = True

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators, average: bool = True) -> None:
        super().__init__()
        require_signals(self, indicators)
        self.from_signals = SignalConv2d(
            indicators.num_per_image,
            indicators.num_shared,
            convolution.out_channels,
            convolution.kernel_size,
            convolution.stride,
            convolution.dilation,
            average,
        )

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        grid = input_grid(convolution, x)
        return convolution(x) + self.from_signals(signals.at(grid))
