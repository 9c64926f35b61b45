"""Sparse layers: convolutions and pools of visible sites only."""

from semconv.sparse.layers import average_pool, convolve, max_pool, through_map
from semconv.sparse.sites import VisibleCells, VisibleSites

__all__ = ["VisibleCells", "VisibleSites", "average_pool", "convolve", "max_pool", "through_map"]
