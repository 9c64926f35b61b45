"""Local attention against its formula, in loops."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semconv.convolution import SemanticConv2d
from semconv.corruption import View
from semconv.indicators import Coordinates, Indicators, Mask, PaddingMode
from semconv.mechanisms import LocalAttention
from semconv.mechanisms.local_attention import count_heads
from tests.oracles import (
    BATCH,
    CHANNELS,
    MODES,
    assert_same,
    build,
    draw,
    draw_mask,
    draw_view,
    is_padded,
    learned,
    mask_map,
    pad,
    randomise,
    signal_map,
)
from tests.pairwise import pairwise, together

Small = functools.partial(LocalAttention, heads=2, head_dim=1)  # of four channels


def visible_map(mask: Tensor | None, x: Tensor, amount: int, mode: PaddingMode) -> Tensor:
    """How much is visible of each site of the padded map: `b h w`; without a mask, all but what lies beyond a border of zeros."""
    share = torch.ones(len(x), 1, *x.shape[2:], dtype=torch.float64)
    if mask is not None:
        share -= mask_map(mask, x.shape[2], x.shape[3])
    return pad(share, amount, mode)[:, 0]


def attend(state: dict[str, Tensor], x: Tensor, visible: Tensor, told: Tensor, values: Tensor, geometry: tuple[int, ...]) -> Tensor:
    """The answer of each window of padded maps, head by head and site by site."""
    kernel, stride, dilation = geometry
    weight = {name: tensor.numpy() for name, tensor in state.items()}
    pixels, shares, signals, content = (each.detach().numpy() for each in (x, visible, told, values))
    bias, null_key, null_value = weight["offset_bias"], weight["null_key"], weight["null_value"]
    heads, dim = null_key.shape
    reach = (kernel - 1) * dilation + 1
    height, width = ((side - reach) // stride + 1 for side in x.shape[2:])
    part = values.shape[1] // heads
    answer = np.zeros((len(x), values.shape[1], height, width))
    for b in range(len(x)):
        for i in range(height):
            for j in range(width):
                y, z = i * stride + (reach - 1) // 2, j * stride + (reach - 1) // 2
                query = weight["query.weight"] @ pixels[b, :, y, z] + weight["query.bias"]
                for n in range(heads):
                    own, rows = slice(n * dim, (n + 1) * dim), slice(n * part, (n + 1) * part)
                    weights = [math.exp(query[own] @ null_key[n] / dim**0.5)]
                    seen = [null_value[rows]]
                    for k in range(kernel):
                        for m in range(kernel):
                            y, z = i * stride + k * dilation, j * stride + m * dilation
                            if shares[b, y, z] == 0:
                                continue
                            key = (weight["key.weight"] @ pixels[b, :, y, z])[own]
                            logit = query[own] @ key / dim**0.5 + bias[n, k, m]
                            if told.shape[1]:
                                logit += weight["from_signals.weight"][n, :, 0, 0] @ signals[b, :, y, z]
                            weights.append(shares[b, y, z] * math.exp(logit))
                            seen.append(content[b, rows, y, z])
                    total = sum(share * value for share, value in zip(weights, seen, strict=True))
                    answer[b, rows, i, j] = total / sum(weights)
    return torch.from_numpy(answer)


def state_of(module: nn.Module, prefix: str = "mechanism.attend.") -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in module.state_dict().items() if name.startswith(prefix)}


def mix(weight: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], x)


def by_hand(module: SemanticConv2d, view: View, mode: PaddingMode, told: Tensor, mask: Tensor | None) -> Tensor:
    convolution, x = module.convolution, view.pixels
    kernel, groups = convolution.kernel_size[0], convolution.groups
    values = mix(learned(module, "value.weight"), x) if groups == 1 else x
    maps = [pad(part, kernel // 2, mode) for part in (x, values)]
    visible = visible_map(mask, x, kernel // 2, mode)
    answer = attend(state_of(module), maps[0], visible, told, maps[1], (kernel, convolution.stride[0], 1))
    parts = zip(answer.tensor_split(groups, 1), learned(module, "project.weight").tensor_split(groups), strict=True)
    return torch.cat([mix(weight, part) for part, weight in parts], 1) + learned(module, "project.bias").view(1, -1, 1, 1)


@together("kernel, stride, groups, mode", pairwise((1, 3, 5, 7), (1, 2, 4), (1, 2, CHANNELS), MODES, allowed=is_padded))
def test_each_window_answers_the_weighted_mean_of_what_is_visible(kernel, stride, groups, mode):
    view = draw_view((4, 8))
    module, indicators = build(Small, None, kernel, stride, groups, mode)
    told = signal_map(view.mask, 4, 8, kernel // 2, mode)
    assert_same(module(view.pixels, indicators(view)), by_hand(module, view, mode, told, view.mask))


@pytest.mark.parametrize(("size", "stride"), [((9, 4), 1), ((11, 12), 1), ((4, 19), 2)])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_tiles_are_seamless(size, stride, mode):
    """Sides that are one tile and sides that are several, of equal length or not."""
    view = View(draw(1, CHANNELS, *size), draw_mask(1, size, size[0] * size[1] // 2), size[0] * size[1] // 2)
    module, indicators = build(Small, [Mask()], 3, stride, mode=mode)
    told = pad(mask_map(view.mask, *size), 1, mode)
    assert_same(module(view.pixels, indicators(view)), by_hand(module, view, mode, told, view.mask))


def test_a_site_that_is_masked_in_part_counts_by_its_visible_share():
    view = draw_view((2, 8))
    module, indicators = build(Small, [Mask()])
    shares = mask_map(view.mask, 2, 8)
    assert ((shares > 0) & (shares < 1)).any()
    assert_same(module(view.pixels, indicators(view)), by_hand(module, view, "zeros", pad(shares, 1, "zeros"), view.mask))


def test_to_who_is_not_told_the_mask_all_is_visible():
    view = draw_view()
    module, indicators = build(Small, [Coordinates()])
    told = signal_map(view.mask, 4, 8, 1)[:, 1:]
    assert_same(module(view.pixels, indicators(view)), by_hand(module, view, "zeros", told, None))


def test_who_is_told_nothing_attends_by_content_and_offset():
    view = draw_view()
    module, indicators = build(Small, [])
    nothing = torch.zeros(BATCH, 0, 6, 10, dtype=torch.float64)
    assert_same(module(view.pixels, indicators(view)), by_hand(module, view, "zeros", nothing, None))


def test_a_single_head_has_values_of_the_input():
    view = draw_view()
    module, indicators = build(LocalAttention, [Mask()])
    assert not any(name.startswith("mechanism.value") for name, _ in module.named_parameters())
    maps = pad(view.pixels, 1, "zeros")
    told = pad(mask_map(view.mask, 4, 8), 1, "zeros")
    answer = attend(state_of(module), maps, visible_map(view.mask, view.pixels, 1, "zeros"), told, maps, (3, 1, 1))
    expected = mix(learned(module, "project.weight"), answer) + learned(module, "project.bias").view(1, -1, 1, 1)
    assert_same(module(view.pixels, indicators(view)), expected)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(4, 4, 0, 1), (3, 1, 2, 2), (2, 2, 1, 1), (3, 2, 0, 3)])
def test_any_convolution_has_its_own_windows(kernel, stride, padding, dilation):
    convolution = nn.Conv2d(CHANNELS, 8, kernel, stride, padding, dilation).double()
    x, mask = draw(2, CHANNELS, 16, 8), draw_mask(2, (4, 4), 9)
    indicators = Indicators([Mask()])
    mechanism = LocalAttention(convolution, indicators, heads=2, head_dim=2).double()
    randomise(mechanism)
    y = mechanism(convolution, x, indicators(View(x, mask, 9)))
    assert y.shape == convolution(x).shape
    state = {name: tensor.detach() for name, tensor in mechanism.named_parameters()}
    visible, told = visible_map(mask, x, padding, "zeros"), pad(mask_map(mask, 16, 8), padding, "zeros")
    maps = [pad(part, padding, "zeros") for part in (x, mix(state["value.weight"], x))]
    answer = attend(state_of(mechanism, "attend."), maps[0], visible, told, maps[1], (kernel, stride, dilation))
    assert_same(y, mix(state["project.weight"], answer) + state["project.bias"].view(1, -1, 1, 1))


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 1, 1), (7, 2, 1), (7, 1, CHANNELS)])
def test_what_is_masked_is_chosen_away(kernel, stride, groups):
    """NaN at masked sites reaches no visible one, whatever their weight."""
    view = draw_view()
    masked = mask_map(view.mask, 4, 8).bool()
    poisoned = view.pixels.masked_fill(masked, math.nan)
    seen = ~masked[:, :, ::stride, ::stride].expand(-1, CHANNELS, -1, -1)  # queries are of their own sites
    for mode in MODES:
        module, indicators = build(Small, None, kernel, stride, groups, mode)
        first, second = (module(x, indicators(view))[seen] for x in (view.pixels, poisoned))
        assert len(first)
        assert torch.equal(first, second), mode


@together("visible", [0, 1])
@together("kernel, stride, groups", [(3, 1, 1), (7, 2, 1), (7, 1, CHANNELS)])
def test_all_is_finite_where_next_to_nothing_is_visible(kernel, stride, groups, visible):
    view = draw_view(count=16 - visible)
    module, indicators = build(Small, None, kernel, stride, groups)
    x = view.pixels.clone().requires_grad_()
    y = module(x, indicators(view))
    with torch.autograd.set_detect_anomaly(True):
        y.square().sum().backward()
    assert y.isfinite().all()
    gradients = [x.grad, *(parameter.grad for parameter in module.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    if not visible:  # every window answers the null value
        null = learned(module, "attend.null_value").view(1, -1, 1, 1)
        parts = zip(null.tensor_split(groups, 1), learned(module, "project.weight").tensor_split(groups), strict=True)
        expected = torch.cat([mix(weight, part) for part, weight in parts], 1)
        assert_same(y, expected + learned(module, "project.bias").view(1, -1, 1, 1))


def test_the_first_gradients_reach_all_weights():
    view = draw_view((2, 8))  # coarse: sites are masked in part
    module, indicators = build(Small, None, told=False)
    module(view.pixels, indicators(view)).square().sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in module.parameters())


@pytest.mark.parametrize(("heads", "head_dim"), [(0, 4), (2, 0)])
def test_numbers_that_make_no_attention_are_refused(heads, head_dim):
    with pytest.raises(ValueError, match=f"heads is {heads} and head_dim is {head_dim}: give 1 or more"):
        build(functools.partial(LocalAttention, heads=heads, head_dim=head_dim))


def test_groups_of_uneven_widths_take_heads_of_both():
    for channels, width, groups in ((64, 96, 32), (32, 96, 32), (50, 150, 50)):
        convolution, indicators = nn.Conv2d(channels, width, 3, padding=1, groups=groups), Indicators([Mask()])
        module = SemanticConv2d.around(convolution, indicators, LocalAttention)
        view = draw_view()
        x = torch.randn(len(view.mask), channels, 16, 16)
        assert module(x, indicators(view)).shape == (len(x), width, 16, 16)


def test_heads_share_the_width():
    assert [count_heads(width, 4, 16) for width in (3, 16, 32, 63, 64, 96, 128, 1800)] == [1, 1, 1, 1, 2, 3, 4, 4]


def test_autocast_and_memory_format_change_nothing():
    view = draw_view((16, 16))
    module, indicators = build(Small)
    module, x = module.float(), view.pixels.float()
    expected = module(x, indicators(view))
    last = module(x.contiguous(memory_format=torch.channels_last), indicators(view))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        low = module(x, indicators(view))
    assert low.dtype == torch.bfloat16
    assert (low - expected).abs().mean() < 0.05 * expected.abs().mean()
