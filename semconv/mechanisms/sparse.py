"""A convolution that sees visible sites alone."""

from torch import Tensor, nn

from semconv.convolution import Mechanism, input_grid, output_grid, require_signals
from semconv.indicators import Indicators, Mask, Signals


class Sparse(Mechanism):
    """A submanifold sparse convolution: x~ = x where visible and 0 elsewhere, A = visible(u), and c is masked too.

    So the mask neither fades nor grows with depth: a site is visible if its own area is. It holds no weight, and where nothing is
    masked it is plain.

    At every convolution of `SemanticCNN` (depth `all`) it makes the whole network sparse: norms and their statistics, residuals and
    MLPs are computed at visible sites alone, and hidden sites have no features. At some convolutions, it masks again at these,
    and the layers between see all sites. Sites must lie within mask cells: the cell must be a multiple of the stride.

    Also known as: submanifold sparse convolution (Graham et al., 2018), sparse masked modelling (SparK; Tian et al., 2023), sparse
    convolution of FCMAE (Woo et al., 2023), masked convolution (MCMAE; Gao et al., 2022) where some layers alone are told.

    Args:
        convolution: the convolution that is told.
        indicators: what it is told: the mask alone.

    Raises:
        ValueError: the mask is not listed, or another indicator is, which would go unheard.
    """

    silent_when_visible = True
    needs_whole_sites = True

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators) -> None:
        super().__init__()
        require_signals(self, indicators, mask=True)
        others = [type(part).__name__ for part in indicators if not isinstance(part, Mask)]
        if others:
            raise ValueError(
                f"Sparse tells the mask alone, and {', '.join(others)} would go unheard: list semconv.indicators.Mask only"
            )

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        y = convolution(signals.visible(input_grid(convolution, x)).only(x))
        return signals.visible(output_grid(y)).only(y)
