"""Convolutions and pools that see visible sites alone."""

from semconv.sparse.layers import average_pool, convolve, max_pool, through_map
from semconv.sparse.sites import VisibleCells, VisibleSites, pick

__all__ = ["VisibleCells", "VisibleSites", "average_pool", "convolve", "max_pool", "pick", "through_map"]
