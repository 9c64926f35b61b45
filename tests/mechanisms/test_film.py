"""FiLM against scales and shifts that a loop computes for every site."""

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from semconv.convolution import SemanticConv2d
from semconv.indicators import Coordinates, Mask
from semconv.mechanisms import AppendedValues, FiLM
from tests.oracles import CHANNELS, MODES, assert_same, build, convolve, draw_view, every_geometry, learned, pad, signal_map


def modulate(module: SemanticConv2d, x: Tensor, signals: Tensor) -> Tensor:
    """(1 + gamma) x + beta, signals being given on a grid that is padded by half the window."""
    told, maps, y = (each.detach().numpy() for each in (learned(module, "from_signals.weight"), signals, x))
    k, out = told.shape[2], np.empty_like(y)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            window = maps[:, :, i : i + k, j : j + k].reshape(len(x), -1)
            for c in range(x.shape[1]):
                gamma, beta = window @ told[c].ravel(), window @ told[x.shape[1] + c].ravel()
                out[:, c, i, j] = (1 + gamma) * y[:, c, i, j] + beta
    return torch.from_numpy(out)


@every_geometry
def test_outputs_are_scaled_and_shifted_by_what_is_told_around_them(kernel, stride, groups, mode):
    view = draw_view()._replace(pixels=draw_view((8, 16)).pixels)
    module, indicators = build(FiLM, None, kernel, stride, groups, mode)
    plain = module.convolution
    y = convolve(pad(view.pixels, kernel // 2, mode), plain.weight, plain.bias, stride, groups)
    signals = signal_map(view.mask, y.shape[2], y.shape[3], 1, mode)
    passed: list[Tensor] = []  # what an evaluation reads
    module.get_submodule("mechanism.amplitude").register_forward_hook(lambda part, given, out: passed.append(out + part.constant))
    assert_same(module(view.pixels, indicators(view)), modulate(module, y, signals))
    scale = modulate(module, torch.ones_like(y), signals) - modulate(module, torch.zeros_like(y), signals)
    assert_same(passed[0].detach(), scale)


@pytest.mark.parametrize("window", [1, 5])
@pytest.mark.parametrize("parts", [[Mask()], [Coordinates()], None])
def test_windows_of_any_size_and_signals_of_one_kind(window, parts):
    view = draw_view((8, 16))
    module, indicators = build(functools.partial(FiLM, kernel_size=window), parts)
    y = module.convolution(view.pixels)
    signals = signal_map(view.mask, 8, 16, window // 2)
    signals = signals[:, :1] if parts and indicators.include_mask else signals[:, 1:] if parts else signals
    assert_same(module(view.pixels, indicators(view)), modulate(module, y, signals))


@pytest.mark.parametrize("mode", MODES)
def test_without_gamma_and_context_it_is_appended_values(mode):
    view = draw_view((8, 16))
    film, indicators = build(functools.partial(FiLM, kernel_size=1), mode=mode)
    appended, _ = build(AppendedValues, mode=mode)
    state = film.state_dict()
    beta = state["mechanism.from_signals.weight"][CHANNELS:]
    state["mechanism.from_signals.weight"][:CHANNELS] = 0
    appended.load_state_dict({**state, "mechanism.from_signals.weight": beta})
    film.load_state_dict(state)
    assert_same(film(view.pixels, indicators(view)), appended(view.pixels, indicators(view)))


def test_a_feature_can_be_silenced_where_something_is_masked():
    view = draw_view((8, 16))
    film, indicators = build(functools.partial(FiLM, kernel_size=1), [Mask()])
    with torch.no_grad():
        film.get_parameter("mechanism.from_signals.weight")[:CHANNELS] = -1
        film.get_parameter("mechanism.from_signals.weight")[CHANNELS:] = 0
    hidden = (signal_map(view.mask, 8, 16) == 1)[:, :1].expand(-1, CHANNELS, -1, -1)
    y = film(view.pixels, indicators(view))
    assert (y[hidden] == 0).all()
    assert torch.equal(y[~hidden], film.convolution(view.pixels)[~hidden])


@pytest.mark.parametrize("window", [0, 2, -1])
def test_a_window_without_a_centre_is_refused_in_one_line(window):
    with pytest.raises(ValueError, match=f"kernel_size of FiLM is {window}: give an odd number") as caught:
        build(functools.partial(FiLM, kernel_size=window))
    assert "\n" not in str(caught.value)


def test_scale_and_shift_are_both_trained_from_the_first_step():
    view = draw_view()
    module, indicators = build(FiLM, told=False)
    module(view.pixels, indicators(view)).square().sum().backward()
    gradient = module.get_parameter("mechanism.from_signals.weight").grad
    assert gradient is not None
    assert (gradient != 0).all()
