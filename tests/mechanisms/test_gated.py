"""Gates against two convolutions of the concatenation, in loops."""

import math

import pytest
import torch
from torch import Tensor

from semconv.encoders import Geometry, SemanticCNN
from semconv.encoders.encoder import count_parameters
from semconv.indicators import Coordinates, Mask
from semconv.mechanisms import Channels, Gated, Plain
from tests.oracles import CHANNELS, MODES, SIZE, assert_same, build, convolve, draw_view, every_geometry, learned, pad, signal_map


def sigmoid(x: Tensor) -> Tensor:
    return torch.tensor([1 / (1 + math.exp(-value)) for value in x.flatten().tolist()], dtype=x.dtype).view_as(x)


@every_geometry
def test_an_answer_of_pixels_and_signals_is_weighed_by_a_gate_of_both(kernel, stride, groups, mode):
    view = draw_view((8, 16))
    module, indicators = build(Gated, None, kernel, stride, groups, mode)
    plain, told = module.convolution, learned(module, "from_signals.weight")
    x = pad(view.pixels, kernel // 2, mode)
    m = signal_map(view.mask, 8 // stride, 16 // stride, 1, mode)
    answer = convolve(x, plain.weight, plain.bias, stride, groups) + convolve(m, told[:CHANNELS])
    gate = convolve(x, learned(module, "gate.weight"), learned(module, "gate.bias"), stride, groups)
    gate = gate + convolve(m, told[CHANNELS:])
    passed: list[Tensor] = []  # what an evaluation reads
    module.get_submodule("mechanism.amplitude").register_forward_hook(lambda part, given, out: passed.append(out))
    assert_same(module(view.pixels, indicators(view)), (answer * 2 * sigmoid(gate)).detach())
    assert_same(passed[0], (2 * sigmoid(gate)).detach())


@pytest.mark.parametrize("mode", MODES)
def test_at_a_kernel_of_3_both_read_the_concatenation(mode):
    view = draw_view()
    module, indicators = build(Gated, mode=mode)
    plain, told = module.convolution, learned(module, "from_signals.weight")
    both = torch.cat([pad(view.pixels, 1, mode), signal_map(view.mask, *SIZE, 1, mode)], 1)
    answer = convolve(both, torch.cat([plain.weight, told[:CHANNELS]], 1), plain.bias)
    weight = torch.cat([learned(module, "gate.weight"), told[CHANNELS:]], 1)
    gate = convolve(both, weight, learned(module, "gate.bias"))
    assert_same(module(view.pixels, indicators(view)), (answer * 2 * sigmoid(gate)).detach())


def test_open_halfway_it_is_channels():
    view = draw_view((8, 16))
    gated, indicators = build(Gated)
    channels, _ = build(Channels)
    state = gated.state_dict()
    for name in ("gate.weight", "gate.bias"):
        state[f"mechanism.{name}"].zero_()
    state["mechanism.from_signals.weight"][CHANNELS:] = 0
    gated.load_state_dict(state)
    kept = {name: value for name, value in state.items() if "gate" not in name}
    channels.load_state_dict({**kept, "mechanism.from_signals.weight": state["mechanism.from_signals.weight"][:CHANNELS]})
    assert_same(gated(view.pixels, indicators(view)), channels(view.pixels, indicators(view)))


@pytest.mark.parametrize("part", [Mask(), Coordinates()])
def test_the_gate_hears_what_the_answer_is_not_told(part):
    view = draw_view((8, 16))
    module, indicators = build(Gated, [part])
    with torch.no_grad():
        module.get_parameter("mechanism.from_signals.weight")[:CHANNELS] = 0
        told = module(view.pixels, indicators(view))
        module.get_parameter("mechanism.from_signals.weight")[CHANNELS:] = 0
    assert not torch.equal(told, module(view.pixels, indicators(view)))


def test_all_parts_of_a_gate_are_trained_from_the_first_step():
    view = draw_view((8, 16))
    module, indicators = build(Gated, told=False)
    module(view.pixels, indicators(view)).square().sum().backward()
    for name, parameter in module.mechanism.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).all(), name


def test_perceptrons_are_narrower_by_what_gates_take():
    geometry = Geometry(3, (32, 32), 4)
    with torch.device("meta"):
        gated = SemanticCNN(geometry, "tiny", [Mask()], Gated, "all")
        plain = SemanticCNN(geometry, "tiny", None, Plain)
    assert gated.mlp_ratio < plain.mlp_ratio - 0.1
    assert abs(count_parameters(gated) / count_parameters(plain) - 1) < SemanticCNN.TOLERANCE
