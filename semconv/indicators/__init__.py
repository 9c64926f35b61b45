"""What a network is told: maps of the mask, of position and of what is seen, at whatever resolution a layer works.

An `Indicator` is one such map. `Indicators` joins several, and called with a view gives `Signals`, which evaluates them on the grid
of any layer, each once per forward.
"""

from semconv.indicators.content import SelfSimilarity, VisibleClusters, VisibleColour, VisibleEdges
from semconv.indicators.control import Control
from semconv.indicators.external import ExternalMap
from semconv.indicators.frame import CropFrame
from semconv.indicators.indicator import Grid, Indicator, Information, PaddingMode
from semconv.indicators.mask import Mask, MaskRatio, VisibleDirection, VisibleDistance, WindowFraction, masked_fraction
from semconv.indicators.position import BorderDistance, CellOffset, Coordinates, Fourier, LearnedTable, Radius
from semconv.indicators.signals import Indicators, Signals, Sites

__all__ = [
    "BorderDistance",
    "CellOffset",
    "Control",
    "Coordinates",
    "CropFrame",
    "ExternalMap",
    "Fourier",
    "Grid",
    "Indicator",
    "Indicators",
    "Information",
    "LearnedTable",
    "Mask",
    "MaskRatio",
    "PaddingMode",
    "Radius",
    "SelfSimilarity",
    "Signals",
    "Sites",
    "VisibleClusters",
    "VisibleColour",
    "VisibleDirection",
    "VisibleDistance",
    "VisibleEdges",
    "WindowFraction",
    "masked_fraction",
]
