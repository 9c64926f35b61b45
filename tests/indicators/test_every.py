"""What holds of every indicator, those that are added later included."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from semconv.controls import Constant, Fixed, Noise, Shuffled, Zero
from semconv.corruption import View
from semconv.encoders import Geometry, SemanticCNN
from semconv.encoders.matching import training_flops
from semconv.indicators import Grid, Indicator, Indicators
from semconv.mechanisms import Channels
from tests.experiments import built, stir
from tests.indicators.views import CELLS, COUNT, ODD, SIZE, STAGES, draw_seen, every_class, only, spread
from tests.oracles import MODES, draw_mask
from tests.pairwise import together

CLASSES = every_class()
all_indicators = together("make", CLASSES)  # of checks so quick that one case holds them all


def test_indicators_are_found():
    assert {"Mask", "Coordinates", "VisibleClusters", "ExternalMap"} <= {each.__name__ for each in CLASSES}


def test_wide_plain_is_built_beside_indicators_that_have_weights_and_leaves_these_alone():
    parts = [part for make in CLASSES if [*(part := make()).parameters(), *part.buffers()]]
    assert {"SemanticMap", "LearnedTable"} <= {type(part).__name__ for part in parts}
    geometry = Geometry(3, SIZE, 4, batch_size=8, num_masked=COUNT)
    wide = SemanticCNN(geometry, "test", parts, Channels, depth="stages", as_plain="flops")
    tensors = [tensor for each in (wide, *parts) for tensor in (*each.parameters(), *each.buffers())]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    told = SemanticCNN(geometry, "test", parts, Channels, depth="stages")
    assert training_flops(wide, geometry) == pytest.approx(training_flops(told, geometry), rel=0.02)


@all_indicators
def test_maps_have_the_shape_and_the_range_that_is_stated(make):
    part, view = make(), draw_seen()
    for sites in STAGES + ODD:
        maps = part(view, Grid(*sites))
        assert maps.shape == (3 if part.per_image else 1, part.channels, *sites)
        assert maps.dtype == torch.float32
        # a frame that lies outside of its original, as a random one may, is outside of the range
        assert part.low <= maps.min() or type(part).__name__ == "CropFrame"
        assert maps.max() <= part.high or type(part).__name__ == "CropFrame"


@all_indicators
def test_maps_are_continued_as_features_are_and_position_goes_on(make):
    part, view = make(), draw_seen()
    for sites, mode in itertools.product([(16, 24), (4, 6), (7, 5)], MODES):
        grid, inside = Grid(*sites, (2, 1), mode), part(view, Grid(*sites))
        padded = part(view, grid)
        assert torch.equal(padded[:, :, 2:-2, 1:-1], inside)
        if part.conveys != "position":
            assert torch.equal(padded, grid.extend(inside))


@all_indicators
def test_hidden_pixels_do_not_matter(make):
    part, view = make(), draw_seen()
    hidden = spread(view.mask)
    maps = [
        part(view._replace(pixels=torch.where(hidden, content, view.pixels)), Grid(*sites))
        for sites in STAGES
        for content in (torch.zeros(()), torch.tensor(math.nan), 100 * torch.randn(3, 3, *SIZE))
    ]
    for first, *others in zip(*[iter(maps)] * 3, strict=True):
        assert all(torch.equal(first, other) for other in others)
    pixels = view.pixels.clone().requires_grad_()
    total = part(view._replace(pixels=pixels), Grid(8, 12)).square().sum()
    if total.requires_grad and part.conveys == "content":
        (gradient,) = torch.autograd.grad(total, pixels)
        assert (gradient.masked_select(hidden) == 0).all()
        assert gradient.any()


@all_indicators
def test_what_is_told_of_the_mask_is_nothing_when_nothing_is_masked(make):
    part = make()
    view = draw_seen()._replace(mask=torch.zeros(3, *CELLS, dtype=torch.bool), num_masked=0)
    maps = [part(view, Grid(*sites, (1, 1), mode)) for sites in [(16, 24), (4, 6), (7, 5)] for mode in MODES]
    assert any(each.any() for each in maps) == (part.conveys != "mask")


@all_indicators
def test_each_depends_on_what_it_tells_of_and_on_nothing_else(make):
    part, view, grid = make(), draw_seen(), Grid(8, 12)
    other = draw_seen(seed=9)
    visible = view._replace(pixels=other.pixels)
    changes = {
        "mask": view._replace(mask=other.mask),
        "content": visible,
        "oracle": view._replace(external=other.external),
        "position": view._replace(frame=other.frame),
    }
    before = part(view, grid)
    changed = {told for told, each in changes.items() if not torch.equal(part(each, grid), before)}
    allowed = {"mask": {"mask"}, "content": {"content", "mask"}, "oracle": {"oracle"}, "position": {"position"}}[part.conveys]
    assert changed <= allowed
    # of the ratio the test has but one; what is the same for all images depends on nothing
    assert (part.conveys in changed) == (part.per_image and type(part).__name__ != "MaskRatio")


@all_indicators
def test_an_image_is_told_the_same_in_any_batch(make):
    part, view = make(), draw_seen()
    alone = only(view, slice(1, 2))
    for sites in [(16, 24), (4, 6)]:
        together = part(view, Grid(*sites))
        torch.testing.assert_close(part(alone, Grid(*sites)), together[1:2] if part.per_image else together, rtol=0, atol=1e-6)


@all_indicators
def test_autocast_changes_nothing(make):
    part, view = make(), draw_seen()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        told = [part(view, Grid(*sites)) for sites in STAGES + ODD]
    assert all(torch.equal(each, part(view, Grid(*sites))) for each, sites in zip(told, STAGES + ODD, strict=True))


@all_indicators
def test_each_is_made_once_per_grid_and_observes_once_per_forward(make, monkeypatch):
    part, view, made = make(), draw_seen(), {"observe": 0, "maps": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            made[name] += 1
            return function(*arguments)

        return call

    observes = part.observe(view) is not None
    monkeypatch.setattr(part, "observe", counted("observe", part.observe))
    for name in ("forward", "lay"):
        monkeypatch.setattr(part, name, counted("maps", getattr(part, name)))
    signals = Indicators([part])(view)
    for _ in range(3):
        for sites in STAGES:
            ours = signals.at(Grid(*sites))
            assert torch.equal(
                ours.per_image if part.per_image else ours.shared, type(part).forward(make_alike(part), view, Grid(*sites))
            )
    assert made == {"observe": 1, "maps": len(STAGES)}
    assert observes or type(part).forward is not Indicator.forward


def join(first: Any, second: Any) -> Any:
    """What two views have of one kind, one after the other."""
    return torch.cat([first, second]) if isinstance(first, Tensor) else first


def make_alike(part: Indicator) -> Indicator:
    """Another of the same class and weights."""
    other = type(part)()
    other.load_state_dict(part.state_dict())
    return other


@all_indicators
def test_a_control_knows_nothing_of_its_own_image(make):
    part, view, grid = make(), draw_seen(), Grid(8, 12, (1, 1))
    other = draw_seen(seed=9)
    own = only(View(*map(join, view, other)), [0, 4, 2])
    own = own._replace(mask=view.mask if part.conveys == "position" else own.mask)  # the shift of position is drawn from all masks
    for control in (Zero(), Constant(), Fixed(), Shuffled()):
        before, after = control(part, view, grid), control(part, own, grid)
        assert before.shape == part(view, grid).shape
        assert torch.equal(before[1:2] if part.per_image else before, after[1:2] if part.per_image else after), control
    if part.per_image and part.conveys != "position":
        shuffled = Shuffled()(part, view, grid)
        assert torch.equal(shuffled, part(view, grid).roll(1, 0))
        assert Shuffled()(part, only(view, slice(1)), grid).shape == shuffled[:1].shape
    assert Noise()(part, view, grid).shape == part(view, grid).shape


def test_networks_are_built_and_counted_without_data():
    """On the meta device, as FLOPs are matched: nothing may look at a value."""
    geometry = Geometry(3, SIZE, 8)
    with torch.device("meta"):
        parts = [make() for make in CLASSES]
        told = SemanticCNN(geometry, "test", parts, Channels, mlp_ratio=2)
        plain = SemanticCNN(geometry, "test", mlp_ratio=2)
        assert training_flops(told, geometry) > training_flops(plain, geometry)


def test_no_indicator_breaks_the_graph():
    indicators = Indicators([make() for make in CLASSES])

    def tell(view: View) -> list[Tensor]:
        signals = indicators(view)
        return [each for grid in (Grid(16, 24, (1, 1)), Grid(4, 6)) for each in signals.at(grid)[:2]]

    view = draw_seen(2)
    compiled = torch.compile(tell, backend="eager", fullgraph=True)(view)
    assert all(torch.equal(*pair) for pair in zip(compiled, tell(view), strict=True))


def test_any_list_combines_and_telling_starts_as_plain():
    geometry, view = Geometry(3, SIZE, 8), draw_seen(2)
    told = SemanticCNN(geometry, "test", [make() for make in reversed(CLASSES)], Channels, mlp_ratio=2).eval()
    plain = SemanticCNN(geometry, "test", mlp_ratio=2).eval()
    plain.load_state_dict({key: value for key, value in told.state_dict().items() if key in plain.state_dict()})
    assert torch.equal(told(view).features, plain(view).features)


def train(*classes: type[Indicator], options: tuple[str, ...] = ()) -> None:
    """A few steps of cnn_channels that is told so."""
    parts = ", ".join(f"{{class_path: semconv.indicators.{each.__name__}}}" for each in classes)
    task = built("cnn_channels", f"--model.encoder.indicators=[{parts}]", *options).model.train()
    assert {type(each) for each in task.encoder.indicators} == set(classes)
    stir(task)
    generator = torch.Generator().manual_seed(0)
    images, external = torch.randn(4, 3, 32, 32, generator=generator), torch.rand(4, 1, 32, 32, generator=generator)
    view = View(images, draw_mask(4, (8, 8), 48), 48, None, external)
    optimizer = torch.optim.AdamW(task.parameters(), 3e-3)
    losses = []
    for _ in range(6):
        loss = task.objective(task(view), images, view.mask)
        optimizer.zero_grad()
        loss.backward()
        assert [key for key, each in task.named_parameters() if each.requires_grad and each.grad is None] == []
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_variant_is_trained_with_all_of_them():
    train(*CLASSES, options=("--model.encoder.mlp_ratio=1",))  # more than a network of this size can make up for


@pytest.mark.slow
@pytest.mark.parametrize("make", CLASSES, ids=lambda each: each.__name__)
def test_a_variant_is_trained_with_each(make):
    train(make)


def test_the_count_of_the_views_is_that_of_their_masks():
    assert draw_seen().mask.flatten(1).sum(1).tolist() == [COUNT] * 3


def test_the_document_s_own_indicator_works():
    text = (Path(__file__).parents[2] / "docs" / "indicators.md").read_text()
    names: dict[str, Any] = {}
    exec(text.partition("```python\n")[2].partition("```")[0], names)
    view = draw_seen()
    told = Indicators([names["Checkers"]()])(view).at(Grid(8, 12)).per_image[:, 0, ::2, ::2]
    odd = torch.tensor([[(i + j) % 2 == 1 for j in range(6)] for i in range(4)])
    assert torch.equal(told > 0, odd & ~view.mask)
