"""What a network is told: maps of the mask, of position and of what is seen, at whatever resolution a layer works.

An `Indicator` is one such map. `Indicators` joins several, and called with a view gives `Signals`, which evaluates them on the grid
of any layer, each once per forward.
"""

from semconv.indicators.content import SelfSimilarity, VisibleClusters, VisibleColour, VisibleEdges
from semconv.indicators.external import ExternalMap
from semconv.indicators.frame import CropFrame
from semconv.indicators.indicator import Grid, Indicator, PaddingMode, Told
from semconv.indicators.mask import Mask, MaskRatio, VisibleDirection, VisibleDistance, WindowFraction, masked_fraction
from semconv.indicators.position import BorderDistance, CellOffset, Coordinates, Fourier, LearnedTable, Radius
from semconv.indicators.signals import Indicators, Signals, Sites, Twin

__all__ = [
    "BorderDistance",
    "CellOffset",
    "Coordinates",
    "CropFrame",
    "ExternalMap",
    "Fourier",
    "Grid",
    "Indicator",
    "Indicators",
    "LearnedTable",
    "Mask",
    "MaskRatio",
    "PaddingMode",
    "Radius",
    "SelfSimilarity",
    "Signals",
    "Sites",
    "Told",
    "Twin",
    "VisibleClusters",
    "VisibleColour",
    "VisibleDirection",
    "VisibleDistance",
    "VisibleEdges",
    "WindowFraction",
    "masked_fraction",
]
