"""Channels against the convolution of the concatenation, in loops."""

import pytest
import torch

from semconv.indicators import Coordinates, Mask
from semconv.mechanisms import Channels, Plain
from tests.oracles import (
    MODES,
    SIZE,
    assert_same,
    build,
    convolve,
    coordinate_map,
    draw_view,
    every_geometry,
    learned,
    pad,
    signal_map,
)


@every_geometry
def test_signals_are_further_channels_that_the_kernel_reads(kernel, stride, groups, mode):
    view = draw_view()
    module, indicators = build(Channels, None, kernel, stride, groups, mode)
    plain, told = module.convolution, learned(module, "from_signals.weight")
    m = signal_map(view.mask, *SIZE, kernel // 2, mode)
    x = pad(view.pixels, kernel // 2, mode)
    if groups == 1:
        expected = convolve(torch.cat([x, m], 1), torch.cat([plain.weight, told], 1), plain.bias, stride)
    else:  # every group sees every signal
        channels = [
            convolve(torch.cat([x[:, c : c + 1], m], 1), torch.cat([plain.weight[c : c + 1], told[c : c + 1]], 1), None, stride)
            for c in range(groups)
        ]
        assert plain.bias is not None
        expected = torch.cat(channels, 1) + plain.bias.view(1, -1, 1, 1)
    assert_same(module(view.pixels, indicators(view)), expected)


def test_a_coarse_layer_reads_the_masked_share():
    view = draw_view((2, 8))
    module, indicators = build(Channels)
    joined = torch.cat([pad(view.pixels, 1, "zeros"), signal_map(view.mask, 2, 8, 1)], 1)
    weight = torch.cat([module.convolution.weight, learned(module, "from_signals.weight")], 1)
    assert 0 < signal_map(view.mask, 2, 8)[:, 0].frac().max() < 1
    assert_same(module(view.pixels, indicators(view)), convolve(joined, weight, module.convolution.bias))


@pytest.mark.parametrize("parts", [[Mask()], [Coordinates()]])
def test_one_kind_of_signal_may_stand_alone(parts):
    view = draw_view()
    module, indicators = build(Channels, parts)
    m = signal_map(view.mask, *SIZE, 1)[:, :1] if indicators.include_mask else signal_map(view.mask, *SIZE, 1)[:, 1:]
    plain = module.convolution
    expected = convolve(pad(view.pixels, 1, "zeros"), plain.weight, plain.bias) + convolve(
        m, learned(module, "from_signals.weight")
    )
    assert_same(module(view.pixels, indicators(view)), expected)


@pytest.mark.parametrize("mode", MODES)
def test_the_response_to_position_rises_evenly_up_to_the_border(mode):
    """Zero-padded coordinate channels would bend at the border (DESIGN, fact 5)."""
    view = draw_view((8, 16))
    module, indicators = build(Channels, [Coordinates()], 5, mode=mode)
    y = module(view.pixels, indicators(view)) - module.convolution(view.pixels)
    for axis in (2, 3):
        steps = y.diff(dim=axis)
        assert_same(steps, steps[:, :, :1, :1])
    zeros = convolve(pad(coordinate_map(8, 16), 2, "zeros"), learned(module, "from_signals.weight"))
    assert_same(y[:, :, 2:-2, 2:-2], zeros[:, :, 2:-2, 2:-2])
    assert (zeros - y)[:, :, 0, 0].abs().min() > 0.1


def test_gradients_reach_indicator_weights_at_the_first_step():
    view = draw_view()
    module, indicators = build(Channels, told=False)
    module(view.pixels, indicators(view)).square().sum().backward()
    gradient = module.get_parameter("mechanism.from_signals.weight").grad
    assert gradient is not None
    assert (gradient != 0).all()


def test_indicator_weights_leave_those_of_the_kernel_as_they_were_drawn():
    told, plain = build(Channels)[0].convolution, build(Plain)[0].convolution
    assert torch.equal(told.weight, plain.weight)
