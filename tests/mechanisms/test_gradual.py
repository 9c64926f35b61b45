"""Gradual: how the width splits, and what each part computes."""

import copy
import functools
import itertools
import pickle
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from semconv.callbacks import measured
from semconv.convolution import SemanticConv2d
from semconv.corruption import View
from semconv.encoders import Geometry, MAEViT, SemanticCNN, initialise
from semconv.encoders.encoder import count_parameters
from semconv.indicators import Coordinates, Indicators, Mask
from semconv.mechanisms import Gradual
from semconv.mechanisms.gradual import scheduled, split_width
from semconv.tracking.facts import variant_name
from tests.experiments import FOLDER, encoder_factory, parsed
from tests.mechanisms.test_local_attention import attend, mix, state_of, visible_map
from tests.oracles import assert_same, convolve, draw, draw_mask, pad, randomise, signal_map
from tests.pairwise import together
from tests.recording import logged, train

pytestmark = pytest.mark.usefixtures("quick_runs")

GEOMETRY = Geometry(3, (32, 32), 4)
SCHEDULES = ["linear", "cosine", "learned", "none", "whole", "reversed"]
CONTROLS = ["learned", "none", "reversed", "whole"]


def placed(
    depth: float, channels: tuple[int, int], groups: int = 1, stride: int = 1, **own: Any
) -> tuple[SemanticConv2d, Indicators]:
    """A convolution in float64 that stands at a depth, with random weights."""
    indicators = Indicators([Mask(), Coordinates()])
    torch.manual_seed(1)
    convolution = nn.Conv2d(*channels, 3, stride, padding=1, groups=groups).double()
    module = SemanticConv2d.around(convolution, indicators, functools.partial(Gradual, **own), depth)
    randomise(module)
    return module, indicators


def view_of(channels: int) -> View:
    return View(draw(2, channels, 8, 8), draw_mask(2, (4, 4), 9), 9)


@together(
    "schedule, expected",
    [
        ("linear", [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("cosine", [0.1, 0.1 + 0.4 * (1 - 0.5**0.5), 0.5, 0.5 + 0.4 * 0.5**0.5, 0.9]),
        ("learned", [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("reversed", [0.9, 0.7, 0.5, 0.3, 0.1]),
        ("none", [0] * 5),
        ("whole", [1] * 5),
    ],
)
def test_the_share_of_semantics_by_depth(schedule, expected):
    assert [scheduled(schedule, 0.1, 0.9, depth / 4) for depth in range(5)] == pytest.approx(expected)


@together(
    "shape, share, first, expected",
    [
        ((16, 32, 1), 0.5, False, (16, 8)),
        ((16, 32, 1), 0.2, False, (8, 12)),  # 6.4 of 32 in fours is 8, 3.2 of 16 is 4
        ((3, 16, 1), 0.75, True, (12, 3)),  # what the network reads is pixels
        ((32, 32, 32), 0.75, False, (24, 8)),
        ((32, 64, 4), 0.3, False, (16, 24)),  # a group has 16 of the output and 8 of the input
        ((16, 16, 1), 1.0, False, (16, 0)),
        ((16, 16, 1), 0.0, False, (0, 16)),
    ],
)
def test_the_width_splits_in_whole_groups(shape, share, first, expected):
    channels, width, groups = shape
    assert split_width(nn.Conv2d(channels, width, 3, groups=groups), share, first) == expected


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("first", [False, True])
def test_pixels_are_convolved_and_semantics_attend_to_both(stride, first):
    own: dict[str, Any] = {"start": 0.5, "end": 0.5, "heads": 2, "head_dim": 2}
    module, indicators = placed(0.0 if first else 0.5, (8, 16), stride=stride, **own)
    view = view_of(8)
    part: Any = module.mechanism
    x, pixels = view.pixels, 8 if first else 4
    y = module(x, indicators(view))
    state = state_of(module, "mechanism.attend.")
    told = signal_map(view.mask, 8, 8, 1)
    maps = [pad(each, 1, "zeros") for each in (x, mix(part.value.weight.detach(), x))]
    answer = attend(state, maps[0], visible_map(view.mask, x, 1, "zeros"), told, maps[1], (3, stride, 1))
    centres = x[:, :, ::stride, ::stride]

    def matrix(layer: nn.Linear, of: Tensor) -> Tensor:
        return torch.einsum("oi,bihw->bohw", layer.weight.detach(), of)

    semantics = mix(part.project.weight.detach(), answer) + part.project.bias.detach().view(1, -1, 1, 1)
    semantics = semantics + matrix(part.from_pixels, centres[:, :pixels])
    kept = convolve(pad(x[:, :pixels], 1, "zeros"), module.convolution.weight, module.convolution.bias, stride)
    if not first:
        kept = kept + matrix(part.from_semantics, centres[:, pixels:])
    assert module.convolution.weight.shape == (8, pixels, 3, 3)
    assert_same(y, torch.cat([kept, semantics], 1))


def test_a_depthwise_convolution_keeps_the_groups_of_its_pixels():
    module, indicators = placed(0.5, (16, 16), groups=16, start=0.25, end=0.25)
    view = view_of(16)
    y = module(view.pixels, indicators(view))
    assert module.convolution.weight.shape == (12, 1, 3, 3)
    kept = convolve(pad(view.pixels[:, :12], 1, "zeros"), module.convolution.weight, module.convolution.bias, 1, 12)
    part: Any = module.mechanism
    linear = part.from_semantics.weight.detach()
    assert_same(y[:, :12], kept + torch.einsum("oi,bihw->bohw", linear, view.pixels[:, 12:]))


def test_what_a_convolution_keeps_of_its_weights_is_as_it_was():
    """So that a network that was trained before does not forget all."""
    convolution = nn.Conv2d(16, 16, 3)
    weight = convolution.weight.detach().clone()
    SemanticConv2d.around(convolution, Indicators([Mask()]), functools.partial(Gradual, start=0.5, end=0.5), 0.5)
    assert torch.equal(convolution.weight, weight[:8, :8])
    whole = nn.Conv2d(16, 16, 3)
    whole_share = functools.partial(Gradual, schedule="whole")
    assert not SemanticConv2d.around(whole, Indicators([Mask()]), whole_share, 0.5).mechanism.needs_kernel
    assert not list(whole.parameters())


def test_a_learned_share_mixes_convolution_and_attention():
    module, indicators = placed(0.5, (4, 4), schedule="learned")
    view = view_of(4)
    part: Any = module.mechanism
    with torch.no_grad():
        part.share_logit.fill_(torch.tensor(0.3).logit())
    x, signals = view.pixels, indicators(view)
    expected = 0.7 * module.convolution(x) + 0.3 * part.attention(module.convolution, x, signals)
    torch.testing.assert_close(module(x, signals), expected, rtol=1e-6, atol=1e-6)  # .3 is a float32
    module(x, signals).square().sum().backward()
    assert part.share_logit.grad != 0


def test_a_learned_share_starts_from_the_straight_line():
    network = SemanticCNN(GEOMETRY, "test", [Mask()], functools.partial(Gradual, schedule="learned"))
    initialise(network, 0)
    shares = [float(value) for value in measured(network).values()]
    assert shares == pytest.approx([max(0.05, 0.75 * number / 9) for number in range(10)])


def test_without_semantics_the_network_is_plain_to_the_bit():
    plain = SemanticCNN(GEOMETRY, "test")
    none = SemanticCNN(GEOMETRY, "test", [Mask(), Coordinates()], functools.partial(Gradual, schedule="none"))
    initialise(plain, 3)
    initialise(none, 3)
    ours, theirs = none.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    view = View(torch.randn(2, 3, 32, 32), draw_mask(2, (8, 8), 32), 32)
    assert torch.equal(none(view).features, plain(view).features)


def test_shares_rise_with_depth_and_pixels_are_kept():
    network = SemanticCNN(GEOMETRY, "test", [Mask()], Gradual)
    shares = list(measured(network).values())
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] == 0.75


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_all_is_finite_where_next_to_nothing_is_visible(schedule):
    for (channels, groups), visible in itertools.product([((4, 8), 1), ((8, 8), 8)], (0, 1)):
        module, indicators = placed(0.6, channels, groups, schedule=schedule)
        view = View(draw(2, channels[0], 8, 8), draw_mask(2, (4, 4), 16 - visible), 16 - visible)
        y = module(view.pixels, indicators(view))
        y.square().sum().backward()
        assert y.isfinite().all()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_copies_answer_alike_and_precision_and_format_do_not_matter(schedule):
    module, indicators = placed(0.6, (4, 8), schedule=schedule)
    module, view = module.float(), view_of(4)
    x = view.pixels.float()
    expected = module(x, indicators(view))
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x, indicators(view)), expected)
    last = module(x.contiguous(memory_format=torch.channels_last), indicators(view))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        low = module(x, indicators(view))
    assert (low - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_a_depth_that_was_not_set_is_refused():
    module = SemanticConv2d(4, 4, 3, indicators=Indicators([Mask()]), mechanism=Gradual)
    with pytest.raises(ValueError, match="give SemanticConv2d a depth, from 0 to 1"):
        module(torch.zeros(1, 4, 8, 8), Indicators([Mask()])(view_of(4)))


def test_shares_and_schedules_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match=r"start is 0.5 and end is 1.5: give semantic shares from 0 to 1"):
        Gradual(nn.Conv2d(4, 4, 3), Indicators([Mask()]), start=0.5, end=1.5)
    with pytest.raises(ValueError, match="schedule is 'falling': choose among linear, cosine, learned, none, whole, reversed"):
        Gradual(nn.Conv2d(4, 4, 3), Indicators([Mask()]), schedule=cast(Any, "falling"))


def test_no_weight_is_a_scalar():
    """FSDP2 takes none."""
    module, _ = placed(0.6, (4, 8), schedule="learned", heads=2, head_dim=1)
    assert all(weight.ndim for weight in module.parameters())


@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["linear", "learned"])
def test_it_compiles_without_a_graph_break(schedule):
    module, indicators = placed(0.6, (4, 8), schedule=schedule, heads=2, head_dim=1)
    view = view_of(4)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, mask: module(x, indicators(View(x, mask, 9))), fullgraph=True, backend="aot_eager")
    answer = compiled(view.pixels, view.mask)
    assert_same(answer, module(view.pixels, indicators(view)))
    answer.sum().backward()


def test_training_logs_the_share_of_each_layer(tmp_path):
    model = train("cnn_gradual", tmp_path, "--model.encoder.mechanism.schedule=learned").model
    rows = [row for row in logged(tmp_path) if "train/loss" in row]
    layers = ["stem", *(f"stages.{stage}.{number}" for stage, count in enumerate((1, 2, 3, 2)) for number in range(count))]
    keys = [f"mechanism/share/{layer}" for layer in layers]
    assert [key for key in rows[0] if key.startswith("mechanism")] == keys
    assert rows[0][keys[-1]] == pytest.approx(0.75, abs=0.01)
    assert [rows[0][key] for key in keys] != [rows[2][key] for key in keys]  # the first step has a rate of 0
    assert list(measured(model)) == keys


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_is_a_run_of_its_own_name(control):
    path = str(FOLDER / "controls" / f"gradual_{control}.yaml")
    config = parsed("cnn_gradual", "-c", path)
    assert variant_name(config) == f"cnn_gradual-gradual_{control}"
    assert variant_name(parsed("cnn_gradual")) == "cnn_gradual"
    encoder = encoder_factory("cnn_gradual", "-c", path)(GEOMETRY, "test")
    shares = [float(value) for value in measured(encoder).values()]
    assert (
        shares
        == {
            "none": [0] * 10,
            "whole": [1] * 10,
            "reversed": sorted(shares, reverse=True),
            "learned": shares,
        }[control]
    )
    assert abs(count_parameters(encoder) / count_parameters(MAEViT(GEOMETRY, "test")) - 1) <= 0.03
