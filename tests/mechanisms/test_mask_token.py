"""The mask token against a loop over output sites."""

import pytest
import torch

from semconv.indicators import Mask
from semconv.mechanisms import MaskToken
from tests.mechanisms.test_overlay import lay
from tests.oracles import SIZE, assert_same, build, convolve, draw_view, every_geometry, learned, pad, signal_map


@every_geometry
def test_a_vector_stands_for_the_answer_at_masked_sites(kernel, stride, groups, mode):
    view = draw_view()
    module, indicators = build(MaskToken, None, kernel, stride, groups, mode)
    plain = module.convolution
    y = convolve(pad(view.pixels, kernel // 2, mode), plain.weight, plain.bias, stride, groups)
    assert_same(module(view.pixels, indicators(view)), lay(module, y, signal_map(view.mask, *y.shape[2:])))


@pytest.mark.parametrize("parts", [[Mask()], None])
def test_a_site_that_is_masked_in_part_keeps_its_share_of_both(parts):
    view = draw_view((4, 8), grid=(4, 4))
    module, indicators = build(MaskToken, parts, stride=4)
    plain = module.convolution
    y = convolve(pad(view.pixels, 1, "zeros"), plain.weight, plain.bias, 4)
    signals = signal_map(view.mask, 1, 2)
    assert ((signals[:, 0] > 0) & (signals[:, 0] < 1)).any()
    assert_same(module(view.pixels, indicators(view)), lay(module, y, signals))


def test_masked_sites_are_one_drawn_vector_at_the_first_step_and_others_plain():
    view = draw_view()
    module, indicators = build(MaskToken, told=False)
    y, plain = module(view.pixels, indicators(view)), module.convolution(view.pixels)
    hidden = (signal_map(view.mask, *SIZE)[:, :1] == 1).expand_as(y)
    token = learned(module, "token.vector")
    assert 0 < token.abs().max() < 0.1
    assert torch.equal(y[hidden], token.expand_as(y)[hidden])
    assert torch.equal(y[~hidden], plain[~hidden])
