"""Channels against the convolution of the concatenation, in loops."""

from functools import partial

import pytest
import torch

from semconv.indicators import Coordinates, Mask, MaskRatio
from semconv.mechanisms import Channels, FiLM, Gated, Plain
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
    assert (zeros - y)[:, :, 0, 0].abs().min() > 1e-3


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


def test_a_signal_that_says_a_constant_moves_no_further_than_a_bias():
    """Adam moves every weight by the learning rate: here by .25, which a plain sum over 49 taps makes 49 times as much."""
    view = draw_view((16, 16))
    for average, expected in ((True, 0.25), (False, 49 * 0.25)):
        module, indicators = build(partial(Channels, average=average), [MaskRatio()], 7, told=False)
        before = module(view.pixels, indicators(view))
        torch.nn.init.constant_(module.get_parameter("mechanism.from_signals.weight"), 0.25)
        step = (module(view.pixels, indicators(view)) - before) / (view.num_masked / 16)
        assert_same(step[:, :, 3:-3, 3:-3], torch.full_like(step[:, :, 3:-3, 3:-3], expected))


@pytest.mark.parametrize("mechanism", [Channels, FiLM, Gated])
def test_every_sum_of_signals_over_a_window_is_a_mean_unless_it_is_asked_for(mechanism):
    for average in (True, False):
        module, _ = build(partial(mechanism, average=average), kernel=5)
        sums = module.get_submodule("mechanism.from_signals")
        taps = module.get_parameter("mechanism.from_signals.weight")[0, 0].numel()
        assert taps == (25 if mechanism is Channels else 9)
        assert sums.multiplier == (1 / taps if average else 1)
