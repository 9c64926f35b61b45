"""Spatial layers on visible sites only, at the cost of these sites.

Layers that treat each site alone, or all sites at once, work on a gathered map unchanged: pointwise convolutions, norms of every
kind and their statistics, squeeze-excite, global pools, dropout and drop path, sums and products of maps. Only spatial layers need
the positions of the sites: `convolve`, `max_pool` and `average_pool` take gathered maps and return gathered maps.

In a network with whole maps, `semconv.mechanisms.Sparse` is equivalent to `convolve`, and every other layer to one between
`VisibleSites.gather` and `.scatter`.
"""

import math

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.sparse.sites import VisibleSites, padding_of, pick


def convolve(convolution: nn.Conv2d, x: Tensor, sites: VisibleSites) -> tuple[Tensor, VisibleSites]:
    """Submanifold sparse convolution (Graham et al., 2018): its inputs and its outputs are visible sites only.

    An output site is visible if its own area is; hidden sites count as 0.

    Args:
        convolution: any convolution: strided, grouped or dilated too.
        x: gathered map `b c n 1`.
        sites: its sites.

    Returns:
        Gathered map `b c' n' 1`, and its sites.

    Raises:
        ValueError: an output site is partly masked.
    """
    if sites.everywhere or not _reads_rows(convolution):
        return through_map(convolution, sites.scatter(x), sites)
    after = sites.at(*_output_size(convolution, sites))
    rows = rearrange(x, "b c n 1 -> (b n) c")
    if after is not sites or convolution.kernel_size != (1, 1):
        rows = rearrange(pick(rows, sites.reads(convolution, after)), "m k c -> m (k c)")
    y = F.linear(rows, rearrange(convolution.weight, "o c i j -> o (i j c)"), convolution.bias)
    return rearrange(y, "(b n) c -> b c n 1", b=len(x)), after


def max_pool(pool: nn.MaxPool2d, x: Tensor, sites: VisibleSites) -> tuple[Tensor, VisibleSites]:
    """Maximum over the visible sites of each window; arguments and result as for `convolve`."""
    return through_map(pool, sites.only(sites.scatter(x), -math.inf), sites)


def average_pool(pool: nn.AvgPool2d, x: Tensor, sites: VisibleSites) -> tuple[Tensor, VisibleSites]:
    """Mean over the visible sites of each window; arguments and result as for `convolve`.

    Padding counts as it does in the pool itself, so that the result is the pool's where nothing is masked.
    """
    y, after = through_map(pool, sites.scatter(x), sites)
    hidden = sites.hidden
    if hidden is None:
        return y, after
    return y / (1 - after.gather(pool(hidden[:, None].to(y.dtype)))), after


def through_map(spatial: nn.Module, x: Tensor, sites: VisibleSites) -> tuple[Tensor, VisibleSites]:
    """Apply a spatial layer to a whole map `b c h w`, and gather the visible sites of its output."""
    y = spatial(x)
    after = sites.at(y.shape[2], y.shape[3])
    return after.gather(y), after


def _reads_rows(convolution: nn.Conv2d) -> bool:
    """True if a convolution is computed on gathered rows, and not on the whole map."""
    # without rows a training step of SemanticCNN takes 1.18 to 1.19 times as long (sizes test and tiny, 32 and 96 pixels, three
    # quarters masked, one CPU thread, medians of 7 interleaved pairs); a depthwise kernel's gradient on rows gains nothing
    # there is no row for other padding than zeros, and windows of few channels are slow to pick
    if type(convolution) is not nn.Conv2d or convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
        return False
    if max(convolution.stride) > 1 and max(convolution.dilation) > 1:
        return False
    return convolution.groups == 1 and convolution.in_channels >= 8


def _output_size(convolution: nn.Conv2d, sites: VisibleSites) -> tuple[int, int]:
    height, width = (
        (side + 2 * pad - step * (kernel - 1) - 1) // stride + 1
        for side, pad, step, kernel, stride in zip(
            (sites.height, sites.width),
            padding_of(convolution),
            convolution.dilation,
            convolution.kernel_size,
            convolution.stride,
            strict=True,
        )
    )
    return height, width
