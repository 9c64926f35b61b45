"""Overlays against pixels that a loop has written over."""

import pytest
import torch
from torch import Tensor

from semconv.controls import Constant
from semconv.convolution import SemanticConv2d
from semconv.corruption import View
from semconv.indicators import Coordinates, Grid, Indicator, Mask, Signals
from semconv.mechanisms import OverlayAdd, OverlayReplace
from tests.oracles import MODES, SIZE, assert_same, build, convolve, draw_view, every_geometry, learned, pad, signal_map


class Flipped(Indicator):
    """What differs between images and is not the mask: the mask upside down."""

    channels, per_image, low, high = 1, True, 0.0, 1.0
    conveys = "mask"

    def forward(self, view: View, grid: Grid) -> Tensor:
        return Mask()(view._replace(mask=view.mask.flip(1)), grid)


def lay(module: SemanticConv2d, x: Tensor, signals: Tensor) -> Tensor:
    """Put the token, with x and y through E, over the masked share of each pixel; signals are mask, x, y.

    Where the mask alone is told there is no E.
    """
    token = learned(module, "token.vector").flatten()
    weights = [value[:, :, 0, 0] for key, value in module.state_dict().items() if key.endswith("token.from_signals.weight")]
    told = weights[0] if weights else token.new_zeros(len(token), 0)
    out = x.detach().clone()
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            share, rest = signals[:, :1, i, j], signals[:, 1 : 1 + told.shape[1], i, j]
            out[:, :, i, j] = (1 - share) * x[:, :, i, j] + share * (token + rest @ told.T)
    return out


@every_geometry
def test_an_added_vector_stands_on_every_pixel_and_on_the_padding(kernel, stride, groups, mode):
    view, amount = draw_view(), kernel // 2
    module, indicators = build(OverlayAdd, None, kernel, stride, groups, mode)
    vectors = convolve(signal_map(view.mask, *SIZE, amount, mode), learned(module, "from_signals.weight"))
    x = pad(view.pixels, amount, mode) + vectors
    expected = convolve(x, module.convolution.weight, module.convolution.bias, stride, groups)
    assert_same(module(view.pixels, indicators(view)), expected)


@every_geometry
def test_a_replacing_vector_stands_in_masked_pixels_alone(kernel, stride, groups, mode):
    view, amount = draw_view(), kernel // 2
    module, indicators = build(OverlayReplace, None, kernel, stride, groups, mode)
    x = lay(module, pad(view.pixels, amount, mode), signal_map(view.mask, *SIZE, amount, mode))
    expected = convolve(x, module.convolution.weight, module.convolution.bias, stride, groups)
    assert_same(module(view.pixels, indicators(view)), expected)


@pytest.mark.parametrize("parts", [[Mask()], [Mask(), Coordinates()]])
def test_a_pixel_that_is_masked_in_part_shows_both_in_proportion(parts):
    view = draw_view((2, 8))
    module, indicators = build(OverlayReplace, parts)
    x = lay(module, pad(view.pixels, 1, "zeros"), signal_map(view.mask, 2, 8, 1))
    assert_same(module(view.pixels, indicators(view)), convolve(x, module.convolution.weight, module.convolution.bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replaced_pixels_leave_no_trace(dtype):
    view = draw_view()
    module, indicators = build(OverlayReplace)
    module.to(dtype)
    hidden = signal_map(view.mask, *SIZE)[:, :1] == 1
    one, other = (torch.where(hidden, content, view.pixels).to(dtype) for content in (0, 1000))
    assert torch.equal(module(one, indicators(view)), module(other, indicators(view)))


def test_no_gradient_reaches_replaced_pixels():
    view = draw_view()
    module, indicators = build(OverlayReplace)
    pixels = view.pixels.requires_grad_()
    module(pixels, indicators(view)).square().sum().backward()
    hidden = (signal_map(view.mask, *SIZE)[:, :1] == 1).expand_as(pixels)
    assert pixels.grad is not None
    assert (pixels.grad[hidden] == 0).all()
    assert (pixels.grad[~hidden] != 0).all()


def test_replacing_where_nothing_is_masked_is_plain():
    view = draw_view(count=0)
    module, indicators = build(OverlayReplace)
    assert_same(module(view.pixels, indicators(view)), module.convolution(view.pixels))


def test_a_token_carries_what_else_is_told_of_the_image():
    view = draw_view()
    module, indicators = build(OverlayReplace, [Coordinates(), Flipped(), Mask()])
    signals = signal_map(view.mask, *SIZE, 1)
    flipped = signal_map(view.mask.flip(1), *SIZE, 1)[:, :1]
    x = lay(module, pad(view.pixels, 1, "zeros"), torch.cat([signals[:, :1], flipped, signals[:, 1:]], 1))
    assert_same(module(view.pixels, indicators(view)), convolve(x, module.convolution.weight, module.convolution.bias))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mechanism", [OverlayAdd, OverlayReplace])
def test_what_is_left_to_padding_is_what_would_be_laid_there(mechanism, mode, monkeypatch):
    """An overlay is computed without its padding where that makes no difference."""
    view = draw_view((8, 16))
    module, indicators = build(mechanism, None, 5, mode=mode)
    short = module(view.pixels, indicators(view))
    monkeypatch.setattr(Signals, "truthful", False)
    assert_same(module(view.pixels, indicators(view)), short)


@pytest.mark.parametrize("mechanism", [OverlayAdd, OverlayReplace])
def test_a_control_is_laid_on_the_padding_too(mechanism):
    """Constant says 1 beyond the border, where the mask itself is 0."""
    view = draw_view()
    module, indicators = build(mechanism, [Mask()])
    indicators.control = Constant()
    x = pad(view.pixels, 1, "zeros")
    vector = (learned(module, "from_signals.weight")[:, 0] if mechanism is OverlayAdd else learned(module, "token.vector")[0]).view(
        1, -1, 1, 1
    )
    x = x + vector if mechanism is OverlayAdd else vector.expand_as(x)
    assert_same(module(view.pixels, indicators(view)), convolve(x, module.convolution.weight, module.convolution.bias))
