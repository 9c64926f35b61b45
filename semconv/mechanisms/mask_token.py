"""A learned vector in place of masked features."""

from torch import Tensor, nn

from semconv.convolution import Mechanism, output_grid, require_signals
from semconv.indicators import Indicators, Signals
from semconv.mechanisms.overlay import Token


class MaskToken(Mechanism):
    """A vector takes the place of what a convolution says at masked sites: A = visible, c(u) = t + E m where masked.

    m is what is told besides the mask; a site that is masked in part keeps its share of both. t is drawn (normal,
    deviation .02, as MAE's token is), E starts at zero. A token of zeros would be magnified by the norm that follows: a layer norm of
    exact zeros multiplies gradients by 1,000. With the depth that is told one chooses where the token enters: at the stem as
    in SimMIM (Xie et al., 2022), at a later stage as in A2MIM (Li et al., 2023).
    """

    silent_when_visible = True
    needs_whole_sites = True

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators) -> None:
        super().__init__()
        require_signals(self, indicators, mask=True)
        self.token = Token(convolution.out_channels, indicators, std=0.02)

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        y = convolution(x)
        return self.token(y, signals, output_grid(y))
