"""Appended values against flattened windows that are longer by them."""

import functools
import itertools
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semconv.convolution import MechanismFactory, SemanticConv2d
from semconv.indicators import Coordinates, Grid, Indicator, Indicators, Mask, Sites
from semconv.mechanisms import AppendedValues
from semconv.mechanisms.appended import ValueEncoding
from tests.oracles import CHANNELS, MODES, SIZE, assert_same, build, convolve, draw_view, every_geometry, learned, pad, signal_map
from tests.pairwise import pairwise, together

LEVELS, WIDTH = 4, 3

every_encoding = pytest.mark.parametrize("encoding", get_args(ValueEncoding))


def appended(encoding: ValueEncoding, place: Literal["window", "edge"] = "window") -> MechanismFactory:
    return functools.partial(AppendedValues, encoding=encoding, place=place, levels=LEVELS, width=WIDTH)


def encode(module: SemanticConv2d, sites: Sites) -> Sites:
    assert isinstance(module.mechanism, AppendedValues)
    return module.mechanism.encode(sites)


def level_of(value: float, low: float, is_mask: bool) -> int | None:
    """Which of `LEVELS` equal ranges of [low, 1] holds a value, its upper end included; None: an unmasked site, which is silent."""
    if is_mask and value == 0:
        return None
    span = (1 - low) / LEVELS
    return next((i for i in range(LEVELS) if value <= low + (i + 1) * span), LEVELS - 1)


def entries(signals: Tensor, module: SemanticConv2d, encoding: ValueEncoding) -> Tensor:
    """What is appended at every site, for signals mask, x, y: `b (3 e) h w`."""
    if encoding == "scalar":
        return signals
    hot = signals.new_zeros(len(signals), 3, LEVELS, *signals.shape[2:])
    for b, k, i, j in itertools.product(*map(range, signals.shape)):
        level = level_of(signals[b, k, i, j].item(), 0 if k == 0 else -1, k == 0)
        if level is not None:
            hot[b, k, level, i, j] = 1
    if encoding == "one-hot":
        return hot.flatten(1, 2)
    table = learned(module, "encode.table")
    return torch.cat(
        [torch.stack([hot[:, k, i, None] * table[k, i].view(1, -1, 1, 1) for i in range(LEVELS)]).sum(0) for k in range(3)], 1
    )


@every_geometry
def test_a_window_is_longer_by_the_values_of_its_site(kernel, stride, groups, mode):
    view = draw_view()
    module, indicators = build(appended("scalar"), None, kernel, stride, groups, mode)
    plain, told = module.convolution, learned(module, "from_signals.weight").flatten(1)
    windows = F.unfold(pad(view.pixels, kernel // 2, mode), kernel, stride=stride)
    height, width = SIZE[0] // stride, SIZE[1] // stride
    e = signal_map(view.mask, height, width).flatten(2)
    if groups == 1:
        expected = torch.cat([plain.weight.flatten(1), told], 1) @ torch.cat([windows, e], 1)
    else:
        by_channel = windows.unflatten(1, (groups, -1))
        rows = [torch.cat([plain.weight[c].flatten(), told[c]]) @ torch.cat([by_channel[:, c], e], 1) for c in range(groups)]
        expected = torch.stack(rows, 1)
    assert plain.bias is not None
    expected = (expected + plain.bias[:, None]).unflatten(2, (height, width))
    assert_same(module(view.pixels, indicators(view)), expected)


@every_encoding
@together("kernel, stride", [(3, 1), (7, 2), (5, 4)])
def test_codes_are_appended_as_loops_make_them(encoding, kernel, stride):
    view = draw_view()
    module, indicators = build(appended(encoding), None, kernel, stride)
    plain = module.convolution
    e = entries(signal_map(view.mask, SIZE[0] // stride, SIZE[1] // stride), module, encoding)
    expected = convolve(pad(view.pixels, kernel // 2, "zeros"), plain.weight, plain.bias, stride)
    expected = expected + convolve(e, learned(module, "from_signals.weight"))
    assert_same(module(view.pixels, indicators(view)), expected)


@together("encoding, geometry, mode", pairwise(get_args(ValueEncoding), [(3, 1, 1), (5, 2, 1), (7, 4, 1), (3, 1, CHANNELS)], MODES))
def test_at_the_edge_the_padding_ring_holds_the_values(encoding, geometry, mode):
    kernel, stride, groups = geometry
    view, amount = draw_view(), kernel // 2
    module, indicators = build(appended(encoding, "edge"), None, kernel, stride, groups, mode)
    # the mask beyond the border is that of the nearest cell
    e = entries(signal_map(view.mask, *SIZE, amount, "replicate"), module, encoding)
    ring = convolve(e, learned(module, "from_signals.weight"))
    ring[:, :, amount:-amount, amount:-amount] = 0
    x = pad(view.pixels, amount, mode) + ring
    expected = convolve(x, module.convolution.weight, module.convolution.bias, stride, groups)
    assert_same(module(view.pixels, indicators(view)), expected)


def test_at_the_edge_only_windows_that_reach_it_are_told():
    view = draw_view((8, 16))
    module, indicators = build(appended("scalar", "edge"), None, 5)
    difference = module(view.pixels, indicators(view)) - module.convolution(view.pixels)
    assert (difference[:, :, 2:-2, 2:-2].abs() < 1e-10).all()
    difference[:, :, 2:-2, 2:-2] = 1
    assert (difference.abs() > 1e-6).all()


@every_encoding
@pytest.mark.parametrize("place", ["window", "edge"])
def test_when_nothing_is_masked_the_mask_adds_nothing(encoding, place):
    view = draw_view(count=0)
    module, indicators = build(appended(encoding, place), [Mask()], 3)
    assert_same(module(view.pixels, indicators(view)), module.convolution(view.pixels))


@pytest.mark.parametrize("encoding", ["one-hot", "embedding"])
def test_levels_that_differ_are_told_apart(encoding):
    module, indicators = build(appended(encoding), [Coordinates()])
    sites = encode(module, indicators(draw_view()).at(Grid(*SIZE)))
    columns = sites.shared[0, :, 0].T
    assert columns.unique(dim=0).shape[0] == LEVELS
    assert sites.per_image.shape[1] == 0


def test_the_ends_of_the_range_fall_into_the_first_and_last_level():
    class Ends(Indicator):
        channels, per_image, low, high = 1, False, -1.0, 1.0
        conveys = "position"

        def forward(self, view, grid):
            return torch.tensor([-9.0, -1.0, 0.0, 1e-3, 1.0, 9.0]).view(1, 1, 1, 6)

    module, indicators = build(appended("one-hot"), [Ends()])
    hot = encode(module, indicators(draw_view()).at(Grid(*SIZE))).shared
    assert hot[0, :, 0].argmax(0).tolist() == [0, 0, 1, 2, 3, 3]
    assert (hot.sum(1) == 1).all()


def test_the_edge_of_a_convolution_without_padding_is_refused_in_one_line():
    with pytest.raises(ValueError, match="has none: use 'window'") as caught:
        build(appended("scalar", "edge"), None, 1)
    assert "\n" not in str(caught.value)


def test_codes_without_entries_and_other_words_are_refused():
    wrong: dict[str, dict[str, Any]] = {
        "levels is 0: give a number of 1 or more": {"encoding": "one-hot", "levels": 0},
        "width is 0: give a number of 1 or more": {"encoding": "embedding", "width": 0},
        "encoding is 'binary': choose among scalar, one-hot, embedding": {"encoding": "binary"},
        "place is 'ring': choose among window, edge": {"place": "ring"},
    }
    for said, options in wrong.items():
        with pytest.raises(ValueError, match=said):
            AppendedValues(torch.nn.Conv2d(4, 4, 3, padding=1), Indicators([Mask()]), **options)


def test_an_embedding_is_learned():
    view = draw_view()
    module, indicators = build(appended("embedding"))
    module(view.pixels, indicators(view)).square().sum().backward()
    gradient = module.get_parameter("mechanism.encode.table").grad
    assert gradient is not None
    assert (gradient.abs().sum((0, 1)) != 0).all()
