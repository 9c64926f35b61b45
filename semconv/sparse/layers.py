"""Spatial layers on visible sites only, at the cost of these sites.

Layers that treat each site alone, or all sites at once, work on a gathered map unchanged: pointwise convolutions, norms of every
kind and their statistics, squeeze-excite, global pools, dropout and drop path, sums and products of maps. Only spatial layers need
the positions of the sites: `convolve`, `max_pool` and `average_pool` take gathered maps and return gathered maps.

In a network with whole maps, `semconv.mechanisms.Sparse` is equivalent to `convolve`, and every other layer to one between
`VisibleSites.gather` and `.scatter`.
"""

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.sparse.sites import VisibleSites, padding_of, pick, taps_of

_CHUNK = 2**19  # numbers multiplied at once, few enough for the processor's cache


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
    if sites.everywhere or not _is_simple(convolution):
        return through_map(convolution, sites.scatter(x), sites)
    after = sites.at(*_output_size(convolution, sites))
    if convolution.groups > 1:
        return after.gather(_depthwise(convolution, sites.scatter(x), sites, after)), after
    rows = rearrange(x, "b c n 1 -> (b n) c")
    if after is not sites or convolution.kernel_size != (1, 1):
        rows = rearrange(pick(rows, sites.reads(convolution, after), sites.readers(convolution, after)), "m k c -> m (k c)")
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


def _is_simple(convolution: nn.Conv2d) -> bool:
    """Tell whether a convolution, or its gradient, can be computed without the whole map."""
    # zero padding is what a missing row stands for; windows of few channels are slow to gather
    if type(convolution) is not nn.Conv2d or convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
        return False
    if max(convolution.stride) > 1 and max(convolution.dilation) > 1:
        return False
    channels = convolution.in_channels
    # the gradient of a depthwise kernel is slow on a CPU only
    depthwise = convolution.groups == channels == convolution.out_channels and convolution.weight.device.type == "cpu"
    return channels >= 8 and (convolution.groups == 1 or depthwise)


def _depthwise(convolution: nn.Conv2d, x: Tensor, before: VisibleSites, after: VisibleSites) -> Tensor:
    weight, bias = convolution.weight, convolution.bias
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    corners = before.corners(convolution, after)
    taps = taps_of(convolution, before.width + 2 * padding_of(convolution)[1], x.device)
    settings = (convolution.stride, padding_of(convolution), convolution.dilation)
    return _Depthwise.apply(x, weight, bias, corners, taps, after.numbers, settings)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of a map, whose outputs are used at some sites only.

    The kernel's gradient is summed over these sites: over the whole map, it takes a CPU forty times as long as the convolution.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        corners: Tensor,
        taps: Tensor,
        sites: Tensor,
        settings: tuple[tuple[int, ...], ...],
    ) -> Tensor:
        ctx.save_for_backward(x, weight, corners, taps, sites)
        ctx.settings, ctx.has_bias = settings, bias is not None
        stride, padding, dilation = settings
        return F.conv2d(x, weight, bias, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, corners, taps, sites = ctx.saved_tensors
        by_input, _, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, *ctx.settings, False, [0, 0], len(weight), [True, False, False]
        )
        above, left = ctx.settings[1]
        rows = F.pad(rearrange(x, "b c h w -> b h w c"), (0, 0, left, left, above, above)).flatten(0, 2)
        gradients = rearrange(gradient, "b c h w -> (b h w) c").index_select(0, sites)
        precise = torch.promote_types(weight.dtype, torch.float32)
        by_weight = weight.new_zeros(len(taps), len(weight), dtype=precise)
        size = max(1, _CHUNK // (len(taps) * len(weight)))
        for corner, part in zip(corners.split(size), gradients.split(size), strict=True):
            window = rows.index_select(0, (corner[:, None] + taps).flatten()).view(len(corner), len(taps), -1)
            by_weight = by_weight + (window * part[:, None]).sum(0, dtype=precise)
        by_bias = gradients.sum(0) if ctx.has_bias else None
        return by_input, by_weight.T.reshape(weight.shape).to(weight.dtype), by_bias, None, None, None, None


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
