"""What a network is told: maps of the mask and of position, at whatever resolution a layer works.

An `Indicator` is one such map. `Indicators` joins several, and called with a view gives `Signals`, which evaluates them on the grid
of any layer, each once per forward.
"""

from semconv.indicators.indicator import Grid, Indicator, PaddingMode, Told
from semconv.indicators.mask import Mask, masked_fraction
from semconv.indicators.position import Coordinates
from semconv.indicators.signals import Indicators, Signals, Sites, Twin

__all__ = [
    "Coordinates",
    "Grid",
    "Indicator",
    "Indicators",
    "Mask",
    "PaddingMode",
    "Signals",
    "Sites",
    "Told",
    "Twin",
    "masked_fraction",
]
