"""What must hold of every mechanism: of each class in semconv.mechanisms as it comes, and of the options listed here."""

import copy
import functools
import importlib
import inspect
import pickle
import pkgutil

import pytest
import torch
from torch import Tensor, nn

import semconv.mechanisms
from semconv.convolution import Mechanism, MechanismFactory, SemanticConv2d
from semconv.corruption import View
from semconv.encoders import Geometry, SemanticCNN, initialise
from semconv.indicators import Coordinates, Indicator, Indicators, Mask
from semconv.masking import spread_mask
from semconv.mechanisms import AppendedValues, FiLM, Gradual, Partial, Sparse
from tests.experiments import stir
from tests.oracles import make_generator
from tests.pairwise import together


def discover() -> dict[str, MechanismFactory]:
    """Every finished class of the package, those that are added later included."""
    modules = [
        importlib.import_module(f"semconv.mechanisms.{found.name}") for found in pkgutil.iter_modules(semconv.mechanisms.__path__)
    ]
    members = [member for module in modules for _, member in inspect.getmembers(module, inspect.isclass)]
    return {one.__name__: one for one in members if issubclass(one, Mechanism) and not inspect.isabstract(one)}


CLASSES = discover()
MECHANISMS: dict[str, MechanismFactory] = {
    **CLASSES,
    "AppendedValues embedding edge": functools.partial(AppendedValues, encoding="embedding", place="edge"),
    "FiLM 1": functools.partial(FiLM, kernel_size=1),
    "Gradual none": functools.partial(Gradual, schedule="none"),
    "Partial soft invalid": functools.partial(Partial, power=0.5, border="invalid", update="soft"),
    "Partial none": functools.partial(Partial, update="none"),
}
GEOMETRY = Geometry(3, (16, 16), 4)

every_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS.values(), ids=MECHANISMS.keys())
all_mechanisms = together("mechanism", MECHANISMS.values())  # of checks so quick that one case holds them all


def told(mechanism: MechanismFactory) -> list[Indicator]:
    """All that a mechanism can be told of mask and position."""
    return [Mask()] if mechanism is Sparse else [Mask(), Coordinates()]


@functools.cache
def built(mechanism: MechanismFactory) -> SemanticCNN:
    encoder = SemanticCNN(GEOMETRY, "test", told(mechanism), mechanism, "all", mlp_ratio=1)
    initialise(encoder, 0)
    stir(encoder)
    return encoder


def make_encoder(mechanism: MechanismFactory) -> SemanticCNN:
    """A network that is told everywhere, by weights that are not zero."""
    return copy.deepcopy(built(mechanism))


def make_view(num_masked: int, batch: int = 2) -> View:
    """A zero-filled view with this many of its 16 cells hidden."""
    order = torch.stack([torch.randperm(16, generator=make_generator(seed)) for seed in range(batch)])
    mask = (order < num_masked).view(batch, 4, 4)
    pixels = torch.randn(batch, 3, *GEOMETRY.size, generator=make_generator())
    return View(pixels.masked_fill(spread_mask(mask, GEOMETRY.size), 0), mask, num_masked)


def check_finite(encoder: SemanticCNN, features: Tensor) -> None:
    assert features.isfinite().all()
    features.float().square().mean().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_all_classes_are_found_and_exported():
    assert {"Channels", "FiLM", "Gated", "Partial"} <= CLASSES.keys()
    assert CLASSES.keys() <= {*semconv.mechanisms.__all__, "Plain"}


@every_mechanism
def test_answer_and_gradients_are_finite_with_all_but_one_cell_hidden_or_visible(mechanism):
    for num_masked in (15, 1):
        encoder = make_encoder(mechanism)
        check_finite(encoder, encoder(make_view(num_masked)).features)


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
@every_mechanism
def test_autocast_answers_near_the_full_answer_and_its_gradients_are_finite(mechanism, dtype):
    encoder, view = make_encoder(mechanism), make_view(15)
    full = encoder(view).features
    with torch.autocast("cpu", dtype):
        features = encoder(view).features
    # 8 bits of mantissa, a dozen layers
    assert (features - full).abs().max() <= 0.2 * full.abs().max()
    check_finite(encoder, features)


@every_mechanism
def test_bfloat16_weights_are_told_too(mechanism):
    encoder = make_encoder(mechanism).to(torch.bfloat16)
    view = make_view(15)
    features = encoder(view._replace(pixels=view.pixels.bfloat16())).features
    assert features.dtype == torch.bfloat16
    check_finite(encoder, features)


@all_mechanisms
@torch.no_grad()
def test_memory_layout_changes_nothing(mechanism):
    view, indicators = make_view(12), Indicators(told(mechanism))
    x = torch.randn(2, 16, 16, 8, generator=make_generator())
    for groups, stride in ((1, 2), (16, 1)):
        module = SemanticConv2d(16, 16, 3, groups=groups, stride=stride, indicators=indicators, mechanism=mechanism, depth=0.5)
        stir(module)
        expected = module(x, indicators(view))
        strided = torch.cat([x, x], 3)[..., : x.shape[3]]
        for other in (x.contiguous(memory_format=torch.channels_last), strided):
            # kernels of another layout add up in another order
            torch.testing.assert_close(module(other, indicators(view)), expected, rtol=1e-4, atol=1e-5)


@all_mechanisms
@torch.no_grad()
def test_it_is_plain_where_nothing_is_masked_if_it_says_so_and_only_then(mechanism):
    for parts in ([Mask()], told(mechanism)):
        convolution, indicators = nn.Conv2d(8, 8, 3, padding=1), Indicators(parts)
        x = torch.randn(2, 8, 16, 16, generator=make_generator())
        plain = convolution(x)
        module = SemanticConv2d.around(convolution, indicators, mechanism, depth=0.5)
        stir(module)
        same = torch.allclose(module(x, indicators(make_view(0))), plain, rtol=1e-4, atol=1e-5)
        assert same == module.mechanism.is_silent(indicators), parts


@every_mechanism
@torch.no_grad()
def test_copies_answer_alike(mechanism):
    encoder, view = make_encoder(mechanism).eval(), make_view(12)
    expected = encoder(view).features
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(other(view).features, expected)


@every_mechanism
@torch.no_grad()
def test_a_batch_is_answered_as_its_images_are(mechanism):
    encoder, view = make_encoder(mechanism).eval(), make_view(12, batch=3)
    alone = [encoder(View(view.pixels[i : i + 1], view.mask[i : i + 1], 12)).features for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), encoder(view).features, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
@every_mechanism
def test_a_network_compiles_without_a_graph_break(mechanism):
    encoder, view = make_encoder(mechanism), make_view(12)
    torch._dynamo.reset()
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(view).features, encoder(view).features, rtol=1e-4, atol=1e-4)
    compiled(view).features.sum().backward()
    encoder.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(view).features, encoder(view).features, rtol=1e-4, atol=1e-4)
