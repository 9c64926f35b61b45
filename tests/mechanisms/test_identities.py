"""What mechanisms are to each other, exactly (DESIGN, section 3, facts 1 to 4 and 8)."""

import functools
import itertools

import pytest
import torch
from torch import Tensor, nn

from semconv.convolution import MechanismFactory, SemanticConv2d
from semconv.corruption import View
from semconv.indicators import Coordinates, Indicators, Mask
from semconv.masking import spread_mask
from semconv.mechanisms import AppendedValues, Channels, FiLM, Gated, MaskToken, OverlayAdd, OverlayReplace, Partial
from tests.oracles import CHANNELS, MODES, assert_same, build, draw_view, every_geometry, learned, randomise
from tests.pairwise import pairwise, together

PLAIN_AT_FIRST: dict[str, MechanismFactory] = {
    "channels": Channels,
    "overlay add": OverlayAdd,
    "scalar window": AppendedValues,
    "one-hot window": functools.partial(AppendedValues, encoding="one-hot"),
    "embedding window": functools.partial(AppendedValues, encoding="embedding"),
    "scalar edge": functools.partial(AppendedValues, place="edge"),
    "one-hot edge": functools.partial(AppendedValues, encoding="one-hot", place="edge"),
    "embedding edge": functools.partial(AppendedValues, encoding="embedding", place="edge"),
    "film": FiLM,
    "gated": Gated,
}
ALL: dict[str, MechanismFactory] = {
    **PLAIN_AT_FIRST,
    "overlay replace": OverlayReplace,
    "mask token": MaskToken,
    "partial": Partial,
}
# a gate sees the pixels, too; and a partial convolution adds its bias apart, which rounds in another way (see their own tests)
SILENT = [name for name in ALL if name not in ("gated", "partial")]


def zero_filled(view: View) -> Tensor:
    return view.pixels.masked_fill(spread_mask(view.mask, (view.pixels.shape[2], view.pixels.shape[3])), 0)


def tied(module: SemanticConv2d, vectors: Tensor, groups: int = 1) -> Tensor:
    """Kernels W E of the channels that vectors E (c k) laid over the pixels amount to."""
    weight = module.convolution.weight.detach()
    inputs, outputs = CHANNELS // groups, CHANNELS // groups
    kernels = weight.new_zeros(CHANNELS, vectors.shape[1], *weight.shape[2:])
    for o, c in itertools.product(range(CHANNELS), range(inputs)):
        first = o // outputs * inputs
        kernels[o] += weight[o, c] * vectors[first + c].view(-1, 1, 1)
    return kernels


@together(
    "name, geometry, mode", pairwise(PLAIN_AT_FIRST, [(3, 1, 1), (7, 2, 1), (5, 4, 1), (3, 1, CHANNELS), (7, 1, CHANNELS)], MODES)
)
def test_the_first_step_is_plain_to_the_bit(name, geometry, mode):
    view = draw_view((8, 16))
    kernel, stride, groups = geometry
    module, indicators = build(PLAIN_AT_FIRST[name], None, kernel, stride, groups, mode, told=False)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = view.pixels.to(dtype)
        y = module.to(dtype)(x, indicators(view))
        assert y.dtype == dtype
        assert torch.equal(y, module.convolution(x))


@together("parts, kernel, mode", pairwise([[Mask()], [Coordinates()], [Mask(), Coordinates()]], [1, 3, 7], MODES))
def test_appended_values_are_channels_with_the_centre_tap_alone(parts, kernel, mode):
    view = draw_view((8, 16))
    appended, indicators = build(AppendedValues, parts, kernel, mode=mode)
    channels, _ = build(Channels, parts, kernel, mode=mode)
    state = appended.state_dict()
    centre = torch.zeros_like(learned(channels, "from_signals.weight"))
    centre[:, :, kernel // 2, kernel // 2] = kernel**2 * state["mechanism.from_signals.weight"][:, :, 0, 0]  # of a mean
    channels.load_state_dict({**state, "mechanism.from_signals.weight": centre})
    assert_same(channels(view.pixels, indicators(view)), appended(view.pixels, indicators(view)))


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_of_coordinates_channels_say_no_more_than_appended_values(stride):
    """Offsets within the kernel move a coordinate by a constant, which a bias takes up."""
    view, size = draw_view((8, 16)), (8, 16)
    channels, indicators = build(Channels, [Coordinates()], 5, stride)
    appended, _ = build(AppendedValues, [Coordinates()], 5, stride)
    state = channels.state_dict()
    told, bias = state["mechanism.from_signals.weight"] / 5**2, state["convolution.bias"].clone()
    for i, j in itertools.product(range(5), range(5)):
        # from the centre of an output site, which covers stride x stride input sites, to the input site of this tap
        y, x = ((tap - 2 - (stride - 1) / 2) * 2 / side for tap, side in zip((i, j), size, strict=True))
        bias += told[:, 0, i, j] * x + told[:, 1, i, j] * y
    appended.load_state_dict(
        {**state, "mechanism.from_signals.weight": told.sum((2, 3), keepdim=True), "convolution.bias": bias}, strict=True
    )
    assert_same(appended(view.pixels, indicators(view)), channels(view.pixels, indicators(view)))


def test_of_masks_channels_say_more_than_appended_values():
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 3, 3] = mask[1, 1, 2] = True  # far away, and beside
    view = View(torch.zeros(2, CHANNELS, 4, 4, dtype=torch.float64), mask, 1)
    appended, indicators = build(AppendedValues, [Mask()])
    channels, _ = build(Channels, [Mask()])
    # the two differ in the mask of a neighbour alone, which no appended value of this site can know
    ours, theirs = (module(view.pixels, indicators(view))[:, :, 1, 1] for module in (appended, channels))
    assert torch.equal(ours[0], ours[1])
    assert (theirs[0] - theirs[1]).abs().min() > 1e-3


def test_on_separate_patches_channels_appended_values_and_tokens_are_one():
    view, indicators = draw_view((16, 16)), Indicators([Mask()])
    x, signals = zero_filled(view), indicators(view)
    stem = nn.Conv2d(CHANNELS, 6, 4, stride=4).double()
    channels = Channels(stem, indicators).double()
    appended, token = AppendedValues(stem, indicators).double(), MaskToken(stem, indicators).double()
    randomise(channels)
    assert stem.bias is not None
    total = channels.from_signals.weight.detach().mean((2, 3), keepdim=True)
    appended.load_state_dict({"from_signals.weight": total})
    token.load_state_dict({**token.state_dict(), "token.vector": stem.bias.view(1, -1, 1, 1) + total.view(1, -1, 1, 1)})
    expected = channels(stem, x, signals)
    assert_same(appended(stem, x, signals), expected)
    assert_same(token(stem, x, signals), expected)


@every_geometry
def test_an_added_overlay_is_channels_with_a_tied_kernel(kernel, stride, groups, mode):
    view = draw_view()
    overlay, indicators = build(OverlayAdd, None, kernel, stride, groups, mode)
    channels, _ = build(Channels, None, kernel, stride, groups, mode)
    state = overlay.state_dict()
    vectors = state["mechanism.from_signals.weight"][:, :, 0, 0]
    channels.load_state_dict({**state, "mechanism.from_signals.weight": kernel**2 * tied(overlay, vectors, groups)})
    assert_same(overlay(view.pixels, indicators(view)), channels(view.pixels, indicators(view)))


@every_geometry
def test_a_replacing_overlay_is_zero_fill_and_a_mask_channel_with_a_tied_kernel(kernel, stride, groups, mode):
    view = draw_view()
    overlay, indicators = build(OverlayReplace, [Mask()], kernel, stride, groups, mode)
    channels, _ = build(Channels, [Mask()], kernel, stride, groups, mode)
    vector = overlay.state_dict()["mechanism.token.vector"].view(CHANNELS, 1)
    state = {name: value for name, value in overlay.state_dict().items() if name.startswith("convolution")}
    channels.load_state_dict({**state, "mechanism.from_signals.weight": kernel**2 * tied(overlay, vector, groups)})
    assert_same(overlay(view.pixels, indicators(view)), channels(zero_filled(view), indicators(view)))


@together("name", SILENT)
def test_a_mask_that_masks_nothing_costs_nothing(name):
    view = draw_view((8, 16), count=0)
    for mode in MODES:
        module, indicators = build(ALL[name], [Mask()], mode=mode)
        assert torch.equal(module(view.pixels, indicators(view)), module.convolution(view.pixels)), mode


@together("mechanism", ALL.values())
def test_what_is_told_is_heard(mechanism):
    one, other = draw_view((8, 16)), draw_view((8, 16))._replace(mask=draw_view((8, 16)).mask.flip(1))
    module, indicators = build(mechanism)
    assert not torch.equal(module(one.pixels, indicators(one)), module(one.pixels, indicators(other)))
