"""What is told of position is computed for a batch of one, kept in evaluation, and never out of date (DESIGN, fact 6)."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from semconv.convolution import SemanticConv2d, SignalConv2d
from semconv.corruption import View
from semconv.indicators import Coordinates, Grid, Indicator, Indicators, Mask
from semconv.mechanisms import AppendedValues, Channels
from tests.mechanisms.test_identities import ALL
from tests.oracles import BATCH, build, draw_view, randomise
from tests.pairwise import together

# signals as they are, encoded, and as part of a token; all of them are kept by the same SignalConv2d
SOME = ("channels", "embedding window", "overlay replace")

all_mechanisms = together("mechanism", ALL.values())
every_mechanism = pytest.mark.parametrize("mechanism", ALL.values(), ids=ALL.keys())
some_mechanisms = pytest.mark.parametrize("mechanism", [ALL[name] for name in SOME], ids=SOME)


class Table(Indicator):
    """A learned map of position."""

    channels, per_image, low, high = 1, False, -1.0, 1.0
    conveys = "position"

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(1, 1, 32, 32))

    def forward(self, view: View, grid: Grid) -> Tensor:
        return self.values[:, :, : grid.height + 2 * grid.pad[0], : grid.width + 2 * grid.pad[1]]


@pytest.fixture
def convolved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes of all signals that are convolved."""
    sizes: list[int] = []
    original = SignalConv2d._convolve

    def convolve(self: SignalConv2d, signals: Tensor, weight: Tensor) -> Tensor:
        sizes.append(len(signals))
        return original(self, signals, weight)

    monkeypatch.setattr(SignalConv2d, "_convolve", convolve)
    return sizes


@torch.no_grad()
def look(module: SemanticConv2d, indicators: Indicators, size: tuple[int, int] = (4, 8)) -> Tensor:
    view = draw_view(size)
    return module(view.pixels.to(module.convolution.weight.dtype), indicators(view))


def recompute(module: SemanticConv2d, indicators: Indicators, size: tuple[int, int] = (4, 8)) -> Tensor:
    """The answer with gradients, for which nothing is kept."""
    view = draw_view(size)
    return module(view.pixels.to(module.convolution.weight.dtype), indicators(view)).detach()


@pytest.mark.parametrize(
    "mechanism", [ALL[name] for name in ("channels", "scalar window", "scalar edge", "one-hot window", "overlay add")]
)
def test_position_is_convolved_once_per_forward_and_once_in_all_in_evaluation(mechanism, convolved):
    module, indicators = build(mechanism)
    for _ in range(2):
        look(module, indicators)
    assert convolved == [BATCH, 1] * 2
    convolved.clear()
    module.eval()
    for _ in range(3):
        look(module, indicators)
    assert convolved == [BATCH, 1, BATCH, BATCH]


@all_mechanisms
def test_an_answer_that_was_kept_is_the_same_to_the_bit(mechanism):
    module, indicators = build(mechanism)
    module.eval()
    for _ in range(3):
        assert torch.equal(look(module, indicators), recompute(module, indicators))
    with torch.inference_mode():
        assert torch.equal(look(module, indicators), recompute(module, indicators))


def change_in_place(module: SemanticConv2d) -> None:
    with torch.no_grad():
        for parameter in module.mechanism.parameters():
            parameter.mul_(2)


def take_a_step(module: SemanticConv2d) -> None:
    optimizer = torch.optim.SGD(module.mechanism.parameters(), lr=1.0)
    for parameter in module.mechanism.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def load(module: SemanticConv2d, assign: bool = False) -> None:
    other = copy.deepcopy(module)
    randomise(other)
    module.load_state_dict(other.state_dict(), assign=assign)


def change_while_training(module: SemanticConv2d) -> None:
    module.train()
    for parameter in module.mechanism.parameters():
        parameter.data *= 2  # unseen by autograd's counter of changes
    module.eval()


def double(parameter: Tensor) -> nn.Parameter:
    """Another parameter, which has been changed as often as this one."""
    other = nn.Parameter(parameter.detach() * 2)
    with torch.no_grad():
        while other._version < parameter._version:
            other.mul_(1)
    return other


def replace(module: SemanticConv2d) -> None:
    for part in module.mechanism.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, double(parameter))


def cast(module: SemanticConv2d) -> None:
    module.float()


CHANGES: dict[str, Callable] = {
    "in place": change_in_place,
    "optimizer": take_a_step,
    "load": load,
    "load by assignment": lambda module: load(module, assign=True),
    "training": change_while_training,
    "new parameters": replace,
    "dtype": cast,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@some_mechanisms
def test_what_is_kept_does_not_outlive_a_change_of_weights(mechanism, change):
    module, indicators = build(mechanism)
    module.eval()
    before = look(module, indicators)
    change(module)
    after = look(module, indicators)
    assert not torch.equal(after, before.to(after.dtype))
    assert torch.equal(after, recompute(module, indicators))


@all_mechanisms
def test_what_is_kept_is_of_one_grid(mechanism):
    module, indicators = build(mechanism)
    module.eval()
    for size in ((4, 8), (8, 8), (8, 4), (4, 8)):
        assert torch.equal(look(module, indicators, size), recompute(module, indicators, size))


@all_mechanisms
def test_what_is_kept_is_of_one_precision(mechanism):
    module, indicators = build(mechanism)
    module.float().eval()
    for enabled in (False, True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            assert torch.equal(look(module, indicators), recompute(module, indicators))


@every_mechanism
def test_an_embedding_or_token_that_alone_is_changed_is_heard(mechanism):
    module, indicators = build(mechanism)
    module.eval()
    for parameter in module.mechanism.parameters():
        before = look(module, indicators)
        with torch.no_grad():
            parameter.mul_(2)
        after = look(module, indicators)
        assert not torch.equal(after, before)
        assert torch.equal(after, recompute(module, indicators))


@pytest.mark.parametrize("mechanism", [Channels, AppendedValues, ALL["overlay add"]])
def test_a_learned_indicator_that_is_changed_is_heard(mechanism):
    table = Table()
    module, indicators = build(mechanism, [table])
    module.eval()
    before = look(module, indicators)
    with torch.no_grad():
        table.values.add_(0.5)
    assert not torch.equal(look(module, indicators), before)
    assert torch.equal(look(module, indicators), recompute(module, indicators))


@all_mechanisms
def test_other_indicators_of_the_same_shape_are_heard(mechanism):
    class Flipped(Coordinates):
        def forward(self, view: View, grid: Grid) -> Tensor:
            return -super().forward(view, grid)

    module, indicators = build(mechanism)
    module.eval()
    before = look(module, indicators)
    others = Indicators([Flipped(), Mask()])
    assert not torch.equal(look(module, others), before)
    assert torch.equal(look(module, others), recompute(module, others))
    assert torch.equal(look(module, indicators), before)


@some_mechanisms
def test_a_functional_call_with_other_weights_uses_them(mechanism):
    module, indicators = build(mechanism)
    module.eval()
    before, view = look(module, indicators), draw_view()
    told = {name: parameter for name, parameter in module.named_parameters() if name.startswith("mechanism")}
    weights: dict[str, Tensor] = {name: double(parameter) for name, parameter in told.items()}
    with torch.no_grad():
        after = torch.func.functional_call(module, weights, (view.pixels, indicators(view)))
    assert torch.equal(after, torch.func.functional_call(module, weights, (view.pixels, indicators(view))).detach())
    assert torch.equal(look(module, indicators), before)


@some_mechanisms
def test_a_copy_keeps_nothing_of_its_original(mechanism):
    module, indicators = build(mechanism)
    module.eval()
    change_in_place(module)
    look(module, indicators)
    for duplicate in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        kept = [part._kept for part in duplicate.modules() if isinstance(part, SignalConv2d)]
        assert kept == [None]
        for _ in range(4):  # a copy's counter of changes starts anew, and comes by the original's
            change_in_place(duplicate)
            assert torch.equal(look(duplicate, indicators), recompute(duplicate, indicators))


@some_mechanisms
def test_gradients_are_the_same_in_evaluation_and_in_training(mechanism):
    module, indicators = build(mechanism)
    view = draw_view()

    def differentiate() -> list[Tensor]:
        loss = module(view.pixels, indicators(view)).square().sum()
        return list(torch.autograd.grad(loss, list(module.mechanism.parameters())))

    expected = differentiate()
    module.eval()
    look(module, indicators)  # what is kept from here has no gradient
    for _ in range(2):
        assert all(torch.equal(*pair) for pair in zip(differentiate(), expected, strict=True))
