"""Layers on gathered maps against loops over visible sites and dense maps in float64."""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from timm.layers import LayerNorm2d, SEModule
from timm.layers.grn import GlobalResponseNorm
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn

from semconv.indicators import Grid, Indicators, Mask
from semconv.sparse import VisibleSites, average_pool, convolve, max_pool
from tests.oracles import BATCH, assert_same, draw, draw_view, pad, randomise
from tests.oracles import convolve as slow_convolve
from tests.pairwise import pairwise, together

CHANNELS, SIZE = 8, (8, 16)  # 4 x 4 cells of 2 x 4 sites


def sites_of(count: int = 9, size: tuple[int, int] = SIZE) -> tuple[VisibleSites, Tensor]:
    """Visible sites, and where they are by the mask itself: bool `b 1 h w`."""
    view = draw_view(size, count=count)
    visible = ~view.mask.repeat_interleave(size[0] // 4, 1).repeat_interleave(size[1] // 4, 2)
    return Indicators([Mask()])(view).visible(Grid(*size)), visible[:, None]


def hide(x: Tensor, visible: Tensor, value: float = 0.0) -> Tensor:
    return torch.where(visible, x, torch.tensor(value, dtype=x.dtype))


def test_gathering_takes_visible_sites_and_scattering_puts_them_back():
    sites, visible = sites_of()
    x = draw(BATCH, CHANNELS, *SIZE)
    gathered = sites.gather(x)
    assert gathered.shape == (BATCH, CHANNELS, 7 * 8, 1)
    for i in range(BATCH):
        found = sorted(tuple(column) for column in gathered[i, :, :, 0].T.tolist())
        assert found == sorted(tuple(column) for column in x[i][:, visible[i, 0]].T.tolist())
    assert torch.equal(sites.scatter(gathered), hide(x, visible))
    assert sites.valid is not None
    assert torch.equal(sites.valid[:, None], visible)
    assert torch.equal(sites.only(x), hide(x, visible))


def test_where_nothing_is_masked_a_map_is_left_as_it_is():
    sites, _ = sites_of(count=0)
    x = draw(BATCH, CHANNELS, *SIZE)
    assert sites.everywhere
    assert sites.valid is None
    assert sites.gather(x) is x
    assert sites.scatter(x) is x
    assert sites.only(x) is x


def test_sites_that_lie_in_several_cells_are_refused_with_the_remedy():
    sites, _ = sites_of()
    with pytest.raises(ValueError, match=r"2 x 4 sites on 4 x 4 mask cells .* a cell that is a multiple of the stride") as caught:
        sites.at(2, 4)
    assert "\n" not in str(caught.value)


@together(
    "kernel, stride, groups, dilation, mode, channels",
    [
        *pairwise((1, 3, 7), (1, 2), (1, CHANNELS), [1], ["zeros"], [CHANNELS]),
        (3, 1, 1, 2, "zeros", CHANNELS),
        (3, 1, CHANNELS, 2, "zeros", CHANNELS),
        (3, 1, 2, 1, "zeros", CHANNELS),
        (3, 2, 1, 1, "circular", CHANNELS),
        (3, 1, CHANNELS, 1, "reflect", CHANNELS),
        (7, 2, 1, 1, "zeros", 3),
    ],
)
@together("bias", [True, False])
def test_a_convolution_is_the_dense_one_of_visible_sites(kernel, stride, groups, dilation, mode, channels, bias):
    amount = dilation * (kernel // 2)
    layer = nn.Conv2d(
        channels, CHANNELS, kernel, stride, amount, dilation, groups if channels == CHANNELS else 1, bias, mode, dtype=torch.float64
    )
    randomise(layer)
    sites, visible = sites_of()
    x = draw(BATCH, channels, *SIZE).requires_grad_()
    y, after = convolve(layer, sites.gather(x), sites)
    ours = after.scatter(y)
    _, visible_after = sites_of(size=(SIZE[0] // stride, SIZE[1] // stride))
    padded = pad(hide(x, visible), amount, mode)
    if dilation == 1:
        expected = slow_convolve(padded.detach(), layer.weight, layer.bias, stride, layer.groups)
        assert_same(ours.detach(), hide(expected, visible_after))
    dense = hide(nn.functional.conv2d(padded, layer.weight, layer.bias, stride, 0, dilation, layer.groups), visible_after)
    assert_same(ours, dense)
    inputs = [x, *layer.parameters()]
    for one, other in zip(*(torch.autograd.grad(out.sin().sum(), inputs) for out in (ours, dense)), strict=True):
        assert_same(one, other)


def windows(pool: Any, visible: Tensor) -> Iterator[tuple[tuple[int, int], list[tuple[int, int]], int]]:
    """For each output site the visible input sites of its window, and how many of its sites are padding."""
    kernel, stride, amount = int(pool.kernel_size), int(pool.stride), int(pool.padding)
    height, width = ((side + 2 * amount - kernel) // stride + 1 for side in SIZE)
    for i, j in itertools.product(range(height), range(width)):
        places = [(i * stride + a - amount, j * stride + b - amount) for a in range(kernel) for b in range(kernel)]
        inside = [(r, c) for r, c in places if 0 <= r < SIZE[0] and 0 <= c < SIZE[1]]
        yield (i, j), inside, len(places) - len(inside)


POOLS = [
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(2, 2),
    nn.AvgPool2d(2, 2),
    nn.AvgPool2d(3, 2, 1),
    nn.AvgPool2d(3, 1, 1, count_include_pad=False),
]


@together("pool", POOLS)
def test_a_pool_knows_visible_sites_alone(pool):
    sites, visible = sites_of()
    x = draw(BATCH, CHANNELS, *SIZE)
    layer = max_pool if isinstance(pool, nn.MaxPool2d) else average_pool
    y, after = layer(pool, sites.gather(hide(x, visible, math.nan)), sites)
    ours = after.scatter(y)
    _, visible_after = sites_of(size=(ours.shape[2], ours.shape[3]))
    expected = torch.zeros_like(ours)
    for (i, j), inside, padding in windows(pool, visible):
        for image in range(BATCH):
            if visible_after[image, 0, i, j]:
                seen = torch.stack([x[image, :, r, c] for r, c in inside if visible[image, 0, r, c]])
                counted = len(seen) + (padding if getattr(pool, "count_include_pad", False) else 0)
                expected[image, :, i, j] = seen.amax(0) if isinstance(pool, nn.MaxPool2d) else seen.sum(0) / counted
    assert_same(ours, expected)
    whole, _ = sites_of(count=0)
    assert torch.equal(layer(pool, x, whole)[0], pool(x))


def normalised(values: Tensor, eps: float) -> Tensor:
    return (values - values.mean()) / (values.var(unbiased=False) + eps).sqrt()


def batch_norm(layer: nn.BatchNorm2d, x: Tensor, visible: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for c in range(CHANNELS):
        values = normalised(x[:, c][visible[:, 0]], layer.eps)
        out[:, c][visible[:, 0]] = values * layer.weight[c] + layer.bias[c]
    return out


def group_norm(layer: nn.GroupNorm, x: Tensor, visible: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for i, group in itertools.product(range(BATCH), torch.arange(CHANNELS).chunk(layer.num_groups)):
        seen = visible[i, 0]
        part = torch.zeros_like(x[i, group])
        part[:, seen] = normalised(x[i, group][:, seen], layer.eps) * layer.weight[group, None] + layer.bias[group, None]
        out[i, group] = part
    return out


def layer_norm(layer: LayerNorm2d, x: Tensor, visible: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for i, r, c in itertools.product(range(BATCH), range(SIZE[0]), range(SIZE[1])):
        if visible[i, 0, r, c]:
            out[i, :, r, c] = normalised(x[i, :, r, c], layer.eps) * layer.weight + layer.bias
    return out


def response_norm(layer: GlobalResponseNorm, x: Tensor, visible: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for i in range(BATCH):
        seen = x[i][:, visible[i, 0]]
        strength = torch.stack([channel.square().sum().sqrt() for channel in seen])
        relative = strength / (strength.mean() + layer.eps)
        out[i][:, visible[i, 0]] = seen + layer.bias[:, None] + layer.weight[:, None] * seen * relative[:, None]
    return out


def squeeze_excite(layer: nn.Module, x: Tensor, visible: Tensor) -> Tensor:
    first, second = (module for module in layer.modules() if isinstance(module, nn.Conv2d))
    assert first.bias is not None
    assert second.bias is not None
    out = torch.zeros_like(x)
    for i in range(BATCH):
        seen = x[i][:, visible[i, 0]]
        inner = (first.weight[:, :, 0, 0] @ (seen.sum(1) / seen.shape[1]) + first.bias).clamp(min=0)
        out[i][:, visible[i, 0]] = seen * torch.sigmoid(second.weight[:, :, 0, 0] @ inner + second.bias)[:, None]
    return out


LAYERS: dict[str, tuple[Callable[[int], nn.Module], Callable[[Any, Tensor, Tensor], Tensor]]] = {
    "batch norm": (nn.BatchNorm2d, batch_norm),
    "group norm": (partial(nn.GroupNorm, 2), group_norm),
    "layer norm": (LayerNorm2d, layer_norm),
    "response norm": (partial(GlobalResponseNorm, channels_last=False), response_norm),
    "SEModule": (partial(SEModule, rd_channels=4), squeeze_excite),
    "SqueezeExcite": (partial(SqueezeExcite, rd_ratio=0.5), squeeze_excite),
}


@together("name", LAYERS)
def test_what_looks_at_no_neighbours_knows_visible_sites_alone(name):
    make, oracle = LAYERS[name]
    layer = make(CHANNELS).double()
    randomise(layer)
    sites, visible = sites_of()
    x = draw(BATCH, CHANNELS, *SIZE)
    expected = oracle(layer, x, visible).detach()
    dirty = hide(x, visible, math.nan).requires_grad_()
    ours = sites.scatter(layer(sites.gather(dirty)))
    assert_same(ours.detach(), expected)
    (gradient,) = torch.autograd.grad(ours.sin().sum(), dirty)
    assert (gradient.masked_select(~visible) == 0).all()
    assert gradient.isfinite().all()
    whole, _ = sites_of(count=0)
    assert torch.equal(whole.scatter(layer.eval()(whole.gather(x))), layer(x))


def test_running_statistics_are_those_of_visible_sites():
    layer = nn.BatchNorm2d(CHANNELS, dtype=torch.float64)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    sites, visible = sites_of()
    x = draw(BATCH, CHANNELS, *SIZE)
    sites.scatter(layer(sites.gather(x)))
    for c in range(CHANNELS):
        values = x[:, c][visible[:, 0]]
        assert_same(layer.running_mean[c], 0.1 * values.mean())
        assert_same(layer.running_var[c], 0.9 + 0.1 * values.var(unbiased=True))


def test_a_pool_over_all_sites_knows_visible_ones_alone():
    sites, visible = sites_of()
    x = draw(BATCH, CHANNELS, *SIZE)
    expected = torch.stack([x[i][:, visible[i, 0]].mean(1) for i in range(BATCH)])
    assert_same(nn.AdaptiveAvgPool2d(1)(sites.gather(x))[:, :, 0, 0], expected)
