"""A convolution of visible sites only."""

from torch import Tensor, nn

from semconv.convolution import Mechanism, input_grid, output_grid, require_signals
from semconv.indicators import Indicators, Mask, Signals


class Sparse(Mechanism):
    """Submanifold sparse convolution (SparK; Tian et al., 2023): x~ = x where visible, 0 elsewhere; hidden sites have no output.

    A = visible(u), and c is masked too. So the mask neither shrinks nor grows with depth: a site is visible if its own area is. The
    mechanism has no weights, and equals plain where nothing is masked.

    At every convolution of `SemanticCNN` (depth `all`) it makes the whole network sparse: norms and their statistics, residuals and
    MLPs are computed at visible sites only, and hidden sites have no features. At a subset of the convolutions it masks again at
    each of these, and the layers between see all sites. The mask cell must be a multiple of the stride, so that sites lie within
    cells.

    Also known as: submanifold sparse convolution (Graham et al., 2018); the sparse convolution of FCMAE (Woo et al., 2023); masked
    convolution (MCMAE; Gao et al., 2022), if only some layers are sparse.

    Args:
        convolution: the convolution to condition.
        indicators: the mask, and no other indicator.

    Raises:
        ValueError: the mask is not listed, or another indicator is, which would have no effect.
    """

    silent_when_visible = True
    only_where_masked = True
    needs_whole_sites = True

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators) -> None:
        super().__init__()
        require_signals(self, indicators, mask=True)
        others = [type(part).__name__ for part in indicators if not isinstance(part, Mask)]
        if others:
            raise ValueError(
                f"Sparse uses the mask only, and {', '.join(others)} would have no effect: list semconv.indicators.Mask only"
            )

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        y = convolution(signals.visible(input_grid(convolution, x)).only(x))
        return signals.visible(output_grid(y)).only(y)
