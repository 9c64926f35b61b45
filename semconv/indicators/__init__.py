"""Indicators: maps of side information, on which a network is conditioned.

An `Indicator` is a map of the mask, of position or of visible content, at the resolution of any layer. `Indicators` joins several;
called with a view it gives `Signals`, the indicators evaluated on the grid of any layer, each grid once per forward.
"""

from semconv.indicators.content import SelfSimilarity, SemanticMap, VisibleClusters, VisibleColour, VisibleEdges
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
    "SemanticMap",
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
