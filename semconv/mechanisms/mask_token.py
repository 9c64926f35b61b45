"""A learned vector in place of masked features."""

from torch import Tensor, nn

from semconv.convolution import Mechanism, output_grid, require_signals
from semconv.indicators import Indicators, Signals
from semconv.mechanisms.overlay import Token


class MaskToken(Mechanism):
    """A learned vector in place of the output at masked sites (SimMIM; Xie et al., 2022): A = visible, c(u) = t + E m where masked.

    m are the signals other than the mask. A partly masked site mixes both by its masked share. t is drawn (normal, deviation .02,
    as MAE's token), E starts at zero. A token of zeros would give exact zeros, in whose place a layer norm of eps 1e-6 multiplies
    gradients by 1,000. The depth decides where the token enters: at the stem as in SimMIM, at a later stage as in A2MIM (Li et al.,
    2023).
    """

    silent_when_visible = True
    only_where_masked = True
    needs_whole_sites = True

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators) -> None:
        super().__init__()
        require_signals(self, indicators, mask=True)
        self.token = Token(convolution.out_channels, indicators, std=0.02)

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        y = convolution(x)
        return self.token(y, signals, output_grid(y))
