"""SemanticConv2d in anybody's hands: built, copied, saved, cast, compiled and trained."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

from semconv.convolution import MechanismFactory, SemanticConv2d, SignalConv2d
from semconv.corruption import View
from semconv.indicators import Coordinates, Indicator, Indicators, Mask, Sites
from semconv.mechanisms import AppendedValues, Channels, LocalAttention, MaskToken, OverlayAdd, OverlayReplace, Plain
from tests.mechanisms.test_identities import ALL
from tests.oracles import BATCH, CHANNELS, assert_same, build, convolve, draw_view, every_geometry, pad
from tests.pairwise import together

MECHANISMS = {**ALL, "plain": Plain, "attention": LocalAttention}

all_mechanisms = together("mechanism", MECHANISMS.values())
every_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS.values(), ids=MECHANISMS)


@every_geometry
def test_plain_is_a_convolution_that_pads_half_its_kernel(kernel, stride, groups, mode):
    view = draw_view()
    module, indicators = build(Plain, [], kernel, stride, groups, mode)
    convolution = module.convolution
    expected = convolve(pad(view.pixels, kernel // 2, mode), convolution.weight, convolution.bias, stride, groups)
    assert_same(module(view.pixels, indicators(view)), expected)


@all_mechanisms
def test_a_convolution_without_bias_has_none(mechanism):
    module = SemanticConv2d(4, 4, 3, bias=False, indicators=Indicators([Mask()]), mechanism=mechanism)
    view = draw_view()
    assert module.convolution.bias is None
    assert module(view.pixels.float(), Indicators([Mask()])(view)).shape == (BATCH, 4, 4, 8)


@together("mechanism", [Channels, AppendedValues, OverlayAdd, OverlayReplace, MaskToken])
def test_a_mechanism_with_nothing_to_tell_is_refused_in_one_line(mechanism):
    with pytest.raises(ValueError, match=f"{mechanism.__name__} has no indicators") as caught:
        build(mechanism, [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mechanism", [OverlayReplace, MaskToken])
def test_a_token_without_a_mask_is_refused_in_one_line(mechanism):
    with pytest.raises(ValueError, match=r"list semconv\.indicators\.Mask") as caught:
        build(mechanism, [Coordinates()])
    assert "\n" not in str(caught.value)


@all_mechanisms
def test_a_mechanism_registers_neither_its_convolution_nor_its_indicators(mechanism):
    module, _ = build(mechanism)
    names = {name.split(".")[0] for name, _ in module.named_parameters()}
    assert names <= {"convolution", "mechanism"}
    assert not any(isinstance(part, nn.Conv2d | Indicators) for part in module.mechanism.modules())


@all_mechanisms
def test_each_image_is_convolved_as_if_it_were_alone(mechanism):
    view = draw_view()
    module, indicators = build(mechanism)
    alone = [View(view.pixels[i : i + 1], view.mask[i : i + 1], view.num_masked) for i in range(BATCH)]
    expected = torch.cat([module(one.pixels, indicators(one)) for one in alone])
    assert_same(module(view.pixels, indicators(view)), expected)


@all_mechanisms
def test_copies_and_saved_weights_answer_alike(mechanism):
    view = draw_view()
    module, indicators = build(mechanism)
    module.eval()
    with torch.no_grad():
        expected = module(view.pixels, indicators(view))  # and a cache that copies may carry
        loaded = build(mechanism, told=False)[0].eval()
        loaded(view.pixels, indicators(view))
        loaded.load_state_dict(module.state_dict())
        buffer = io.BytesIO()
        torch.save(module.state_dict(), buffer)
        buffer.seek(0)
        read = build(mechanism, told=False)[0].eval()
        read.load_state_dict(torch.load(buffer, weights_only=True))
        for other in (copy.deepcopy(module), loaded, read):
            assert torch.equal(other(view.pixels, indicators(view)), expected)


@together("mechanism", [Channels, AppendedValues, OverlayAdd, OverlayReplace, MaskToken, Plain])
def test_a_module_can_be_pickled(mechanism):
    view = draw_view()
    module, indicators = pickle.loads(pickle.dumps(build(mechanism)))
    assert torch.equal(module(view.pixels, indicators(view)), build(mechanism)[0](view.pixels, indicators(view)))


@all_mechanisms
def test_autocast_gives_bfloat16_near_the_full_answer(mechanism):
    view = draw_view()
    module, indicators = build(mechanism)
    module.float()
    x = view.pixels.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x, indicators(view))
        y.float().square().mean().backward()
    expected = module(x, indicators(view))
    assert y.dtype in (torch.bfloat16, torch.float32)
    # 8 bits of mantissa in each of up to 60 terms
    assert (y - expected).abs().max() < 0.03 * expected.abs().max()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters() if parameter.grad is not None)


@all_mechanisms
def test_a_module_of_any_precision_answers_in_it(mechanism):
    view = draw_view()
    module, indicators = build(mechanism)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert module.to(dtype)(view.pixels.to(dtype), indicators(view)).dtype == dtype


@all_mechanisms
def test_channels_last_changes_no_number(mechanism):
    view = draw_view()
    module, indicators = build(mechanism)
    turned = view.pixels.contiguous(memory_format=torch.channels_last)
    assert_same(module(turned, indicators(view)), module(view.pixels, indicators(view)))


class Conditioned(nn.Module):
    """Indicators and two convolutions, as a user would write them."""

    def __init__(self, mechanism: MechanismFactory, parts: list[Indicator]) -> None:
        super().__init__()
        self.indicators = Indicators(parts)
        self.first = SemanticConv2d(CHANNELS, 8, 3, indicators=self.indicators, mechanism=mechanism)
        self.second = SemanticConv2d(8, 2, 3, stride=2, padding_mode="reflect", indicators=self.indicators, mechanism=mechanism)

    def forward(self, view: View) -> Tensor:
        signals = self.indicators(view)
        return self.second(self.first(view.pixels, signals).relu(), signals)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.parametrize("name", ["channels", "scalar window", "embedding edge", "overlay add", "overlay replace", "mask token"])
def test_a_module_compiles_without_a_graph_break(name):
    view = draw_view((8, 16))
    view = view._replace(pixels=view.pixels.float())
    module = Conditioned(ALL[name], [Mask(), Coordinates()])
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(view), module(view))
    compiled(view).sum().backward()
    module.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(view), module(view))


def train_to_paint_coordinates(mechanism: MechanismFactory) -> float:
    """CoordConv's task, answer x wherever, on pixels of noise: the error that remains, as a share of what there was."""
    torch.manual_seed(0)
    indicators = Indicators([Coordinates()])
    module = SemanticConv2d(3, 1, 3, padding_mode="circular", indicators=indicators, mechanism=mechanism)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    target = torch.linspace(-15 / 16, 15 / 16, 16).expand(8, 1, 16, 16)
    for _ in range(200):
        view = View(torch.randn(8, 3, 16, 16), torch.zeros(8, 4, 4, dtype=torch.bool), 0)
        loss = (module(view.pixels, indicators(view)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (loss / target.square().mean()).item()


@pytest.mark.parametrize("mechanism", [Channels, AppendedValues, OverlayAdd])
def test_a_plain_loop_teaches_a_told_convolution_to_paint_coordinates(mechanism):
    assert train_to_paint_coordinates(mechanism) < 0.05


def test_a_convolution_that_is_told_nothing_cannot_paint_coordinates():
    assert train_to_paint_coordinates(Plain) > 0.95


@pytest.mark.parametrize(
    "mechanism", [ALL[name] for name in ("channels", "scalar window", "scalar edge", "one-hot window", "overlay add")]
)
def test_position_is_convolved_once_for_the_whole_batch(mechanism, monkeypatch):
    sizes, original = [], SignalConv2d._convolve

    def convolve(self, signals, weight):
        sizes.append(len(signals))
        return original(self, signals, weight)

    monkeypatch.setattr(SignalConv2d, "_convolve", convolve)
    module, indicators = build(mechanism)
    view = draw_view()
    module(view.pixels, indicators(view))
    assert sizes == [BATCH, 1]


@pytest.mark.parametrize("channels", [1, 2])
def test_signals_are_convolved_into_the_layout_of_features(channels):
    """Channels-last, in which they cost a fraction."""
    sites = Sites(torch.randn(2, channels, 8, 8), torch.zeros(1, 0, 8, 8))
    told = SignalConv2d(channels, 0, 16, (3, 3))
    answer = told(sites)
    assert answer.is_contiguous(memory_format=torch.channels_last)
    assert not answer.is_contiguous()
