"""The scenes: pure, balanced, and each world with the property it was made for."""

import functools
import math
import zlib
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from semconv.data import scenes
from semconv.data.motifs import CLASS_NAMES, NUM_CLASSES, SHAPES
from semconv.data.scenes import WORLDS, SceneBatch, World, channel_moments, draw_scenes
from semconv.hashing import make_keys
from tests.pairwise import together


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On a shared machine threads wait for each other: ten times slower at worst."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def drawn(world: World, count: int = 2000, size: tuple[int, int] = (32, 32), seed: int = 0) -> SceneBatch:
    return draw_scenes(seed, torch.arange(count), size, world)


def pure_ground(batch: SceneBatch) -> Tensor:
    """Pixels that no shape touches, not even with a softened edge: b h w."""
    return F.max_pool2d(batch.class_maps.float()[:, None], 3, stride=1, padding=1)[:, 0] == 0


@pytest.mark.parametrize("world", WORLDS)
def test_a_scene_is_the_same_bits_alone_and_in_any_batch(world):
    batch = drawn(world, 450, (19, 33))
    for index in (0, 17, 421):
        alone = draw_scenes(0, torch.tensor([index]), (19, 33), world)
        assert all(torch.equal(one[0], many[index]) for one, many in zip(alone, batch, strict=True))
    shuffled = torch.randperm(450, generator=torch.Generator().manual_seed(0))
    again = draw_scenes(0, shuffled, (19, 33), world)
    assert all(torch.equal(one, many[shuffled]) for one, many in zip(again, batch, strict=True))


# made with torch 2.14 on two kinds of x86 processors, of which MKL rounds roots otherwise
CHECKSUMS = ({2414414611}, {1224272763}, {2216435009}, {3158551813, 1758949096})


@pytest.mark.parametrize(("world", "checksums"), [*zip(WORLDS, CHECKSUMS, strict=True)])
def test_the_data_set_never_changes_unseen(world, checksums):
    batch = draw_scenes(3, torch.arange(20), (24, 40), world)
    assert zlib.crc32(b"".join(part.numpy().tobytes() for part in batch)) in checksums


def test_every_seed_and_index_is_another_scene():
    images = torch.cat([drawn("scenes", seed=seed).images for seed in (0, 1)])
    assert len({image.numpy().tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("world", WORLDS)
def test_shapes_and_types_are_as_documented(world):
    images, labels, class_maps = draw_scenes(0, torch.arange(5), (8, 30), world)
    assert (images.shape, images.dtype) == ((5, 3, 8, 30), torch.uint8)
    assert (labels.shape, labels.dtype) == ((5,), torch.int64)
    assert (class_maps.shape, class_maps.dtype) == ((5, 8, 30), torch.uint8)
    assert [len(part) for part in draw_scenes(0, torch.arange(0), (8, 30), world)] == [0, 0, 0]


@pytest.mark.parametrize("world", ["scenes", "dark"])
def test_another_size_is_the_same_scene_sampled_anew(world):
    small, large = drawn(world, 20, (32, 48)), drawn(world, 20, (128, 192))
    assert torch.equal(small.labels, large.labels)
    pooled = reduce(large.images.float(), "b c (h i) (w j) -> b c h w", "mean", i=4, j=4)
    # the finest textures have 4 pixels a period at the small size, and edges differ within a pixel
    assert (pooled - small.images).abs().mean() < 6
    assert (large.class_maps[:, 2::4, 2::4] == small.class_maps).float().mean() > 0.96


def test_labels_are_balanced_within_binomial_noise():
    counts = drawn("scenes", 10_000, (8, 8)).labels.bincount(minlength=NUM_CLASSES).float()
    assert ((counts - 1000) ** 2 / 1000).sum() < 21.7  # 99 % of chi-squared with 9 degrees of freedom


def test_class_texture_and_colour_are_drawn_apart():
    keys = make_keys("test", torch.arange(8000))
    colours = torch.cat(scenes._draw_colours(keys, torch.zeros(8000, 3), "scenes"), dim=1)
    kinds = [scenes._draw_shapes(keys, (32, 32)).kind, scenes._draw_texture(keys, 3.0, 8.0).kind]
    correlation = torch.stack([*kinds, *colours.unbind(1)]).double().corrcoef()[:2]
    correlation[[0, 1], [0, 1]] = 0
    assert correlation.abs().max() < 0.05  # deviation 0.011


def test_mean_colour_hardly_tells_the_label():
    features, chances = [], []
    for seed in (0, 1):
        batch = drawn("scenes", seed=seed)
        features.append(F.pad(batch.images.float().mean((2, 3)) / 255, (1, 0), value=1.0))
        chances.append(F.one_hot(batch.labels, NUM_CLASSES).float())
    weights = torch.linalg.lstsq(features[0], chances[0]).solution
    accuracy = ((features[1] @ weights).argmax(1) == chances[1].argmax(1)).float().mean()
    assert accuracy < 0.14  # chance is 0.1, its standard deviation 0.007


POLYGONS = {
    "square": [(0.7, 0.7), (-0.7, 0.7), (-0.7, -0.7), (0.7, -0.7)],
    "triangle": [(0.0, 1.0), (math.sqrt(0.75), -0.5), (-math.sqrt(0.75), -0.5)],
    "bar": [(0.94, 0.32), (-0.94, 0.32), (-0.94, -0.32), (0.94, -0.32)],
    "cross": [
        *[(0.94, -0.32), (0.94, 0.32), (0.32, 0.32), (0.32, 0.94), (-0.32, 0.94), (-0.32, 0.32)],
        *[(-0.94, 0.32), (-0.94, -0.32), (-0.32, -0.32), (-0.32, -0.94), (0.32, -0.94), (0.32, -0.32)],
    ],
    "chevron": [(u, abs(u) - 0.33 + side * 0.24 * math.sqrt(2)) for side in (-1, 1) for u in (0.7 * side, 0.0, -0.7 * side)],
    "star": [
        (radius * math.sin(turn * math.pi / 5), radius * math.cos(turn * math.pi / 5))
        for turn in range(10)
        for radius in [[1.0, math.cos(math.tau / 5) / math.cos(math.pi / 5)][turn % 2]]
    ],
}


def grid(side: int = 201) -> tuple[Tensor, Tensor]:
    v, u = torch.meshgrid(*[torch.linspace(-1.1, 1.1, side)] * 2, indexing="ij")
    return u, v


def is_inside(u: Tensor, v: Tensor, corners: list[tuple[float, float]]) -> Tensor:
    """The even-odd rule, edge by edge."""
    inside = torch.zeros_like(u, dtype=torch.bool)
    for (u1, v1), (u2, v2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if v1 != v2:
            inside ^= ((v1 > v) != (v2 > v)) & (u < u1 + (u2 - u1) * (v - v1) / (v2 - v1))
    return inside


@together("name", POLYGONS)
def test_polygons_agree_with_the_even_odd_rule(name):
    u, v = grid()
    distance = SHAPES[name](u, v)
    clear = distance.abs() > 1e-5  # rounding decides on the edge itself
    assert torch.equal((distance < 0)[clear], is_inside(u, v, POLYGONS[name])[clear])


def test_round_shapes_and_frame_have_the_areas_of_geometry():
    u, v = grid(1001)
    area = {name: (SHAPES[name](u, v) < 0).float().mean() * 2.2**2 for name in CLASS_NAMES}
    assert area["disc"] == pytest.approx(math.pi * 0.85**2, rel=0.01)
    assert area["ring"] == pytest.approx(math.pi * (0.95**2 - 0.49**2), rel=0.01)
    assert area["frame"] == pytest.approx(1.4**2 - 0.72**2, rel=0.01)
    assert area["crescent"] < math.pi * (0.95**2 - 0.75**2) * 1.3


@together("name", CLASS_NAMES)
def test_shapes_keep_to_the_unit_circle_with_edges_a_pixel_wide(name):
    u, v = grid()
    distance = SHAPES[name](u, v)
    assert (u.square() + v.square())[distance < 0].max() < 1.001
    steepest = max(distance.diff(dim=axis).abs().max() for axis in (0, 1)) / (2.2 / 200)
    assert steepest < 1.001  # the distance from the edge never grows faster than the way


def test_the_subject_lies_whole_and_in_front():
    u, v = grid()
    area = torch.stack([(SHAPES[name](u, v) < 0).float().mean() * 2.2**2 for name in CLASS_NAMES])
    batch = drawn("scenes", 500, (64, 96))
    seen = (batch.class_maps == batch.labels[:, None, None] + 1).sum((1, 2))
    assert (seen > 0.97 * area[batch.labels] * (0.34 * 64) ** 2).all()  # the least radius; 3 % for pixel edges


def test_scenes_have_two_to_four_shapes_of_all_classes():
    batch = drawn("scenes")
    seen = torch.stack([(batch.class_maps == number).any(2).any(1) for number in range(1, NUM_CLASSES + 1)])
    assert seen.sum(0).max() == 4
    assert seen.float().mean(1).min() > 0.2
    assert batch.class_maps.max() == NUM_CLASSES


@pytest.mark.parametrize("world", WORLDS)
def test_colours_keep_within_range(world):
    keys, tint = make_keys("test", torch.arange(5000)), torch.rand(5000, 3, generator=torch.Generator().manual_seed(0))
    low, change = scenes._draw_colours(keys, tint, world)
    ground = scenes._paint_ground(keys[:500], tint[:500], (16, 16), world)
    for colours in (low, low + change, ground):
        assert colours.min() >= 0
        assert colours.max() <= 1


@pytest.mark.parametrize("world", WORLDS)
def test_stated_moments_are_those_of_another_seed(world):
    mean, deviation = channel_moments(world)
    pixels = drawn(world, seed=1).images.double() / 255
    if world != "dark":
        assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(mean, abs=0.015)  # 2000 tints: 0.0035 each
    around = pixels - torch.tensor(mean, dtype=torch.float64)[:, None, None]
    assert around.square().mean((0, 2, 3)).sqrt().tolist() == pytest.approx(deviation, rel=0.03)


def neighbour_r2(world: World) -> float:
    """How much of a ground cell a ridge on its eight neighbours explains, fitted left and tested on the right."""
    batch = drawn(world, 6, (256, 256))
    grey = batch.images.float().mean(1)
    ground = pure_ground(batch)
    grey = grey - torch.stack([one[where].mean() for one, where in zip(grey, ground, strict=True)])[:, None, None]
    windows = F.unfold(grey[:, None], 12, stride=4).unflatten(2, (62, 62))
    clear = F.unfold(ground.float()[:, None], 12, stride=4).amin(1).unflatten(1, (62, 62)).bool()
    hidden = torch.zeros(12, 12, dtype=torch.bool)
    hidden[4:8, 4:8] = True
    left, right = (
        rearrange(windows, "b k gh gw -> b gh gw k")[:, :, part][clear[:, :, part]].double()
        for part in (slice(0, 30), slice(33, 62))
    )
    source, target = left[:, ~hidden.flatten()], left[:, hidden.flatten()]
    gram = source.T @ source
    weights = torch.linalg.solve(gram + 1e-3 * gram.trace() * torch.eye(128), source.T @ target)
    error = right[:, hidden.flatten()] - right[:, ~hidden.flatten()] @ weights
    return 1 - float(error.square().sum() / right[:, hidden.flatten()].square().sum())


def test_layout_cannot_be_inferred_from_its_surroundings():
    assert neighbour_r2("layout") < 0.02
    assert neighbour_r2("scenes") > 0.8  # the same test, where it can


def test_layout_is_known_from_position():
    train, test = drawn("layout", 500), drawn("layout", 200, seed=1)

    def centred(batch: SceneBatch) -> tuple[Tensor, Tensor]:
        ground = pure_ground(batch)[:, None].expand(-1, 3, -1, -1)
        mean = (batch.images * ground).sum((2, 3)) / ground.sum((2, 3))
        return (batch.images - mean[..., None, None]) * ground, ground

    values, ground = centred(train)
    pattern = values.sum((0, 1)) / ground.sum((0, 1))
    values, ground = centred(test)
    best = (values * pattern).sum((1, 2, 3)) / (pattern.square() * ground).sum((1, 2, 3))
    error = (values - best[:, None, None, None] * pattern) * ground
    assert error.square().sum() / values.square().sum() < 0.01


def test_the_layout_of_a_larger_image_goes_on_from_the_smaller_ones():
    pattern = scenes._layout_pattern((40, 64), torch.device("cpu"))
    assert torch.equal(pattern[:32, :32], scenes._layout_pattern((32, 32), torch.device("cpu")))
    tiles = rearrange(pattern, "(h i) (w j) -> h w (i j)", i=4, j=4)
    assert (tiles.mean(-1) == 0.5).all()
    assert (tiles[..., 0].mean() - 0.5).abs() < 0.12  # 160 fair signs


def position_scatter(values: Tensor) -> float:
    """Mean squared z of the per-position means of values `b h w`: 1 where all positions have one mean."""
    error = values.var(0) / len(values)
    return float(((values.mean(0) - values.mean()) ** 2 / error).mean())


def test_stationary_means_do_not_depend_on_position():
    batch = drawn("stationary", 4000, (16, 24))
    grey = batch.images.float().mean(1)
    for values in ((batch.class_maps > 0).float(), grey, grey.diff(dim=2).abs(), grey.diff(dim=1).abs()):
        assert position_scatter(values) < 1.5  # neighbours agree, so far fewer than 384 independent squares
    assert position_scatter((drawn("scenes", 4000, (16, 24)).class_maps > 0).float()) > 20


def seam_ratio(world: World, axis: int) -> float:
    """The mean step from the last line to the first over that between other lines."""
    images = draw_scenes(0, torch.arange(1000), (24, 40), world).images.float()
    steps = (images.roll(-1, axis) - images).abs().mean([dim for dim in range(4) if dim != axis])
    return float(steps[-1] / steps[:-1].mean())


@pytest.mark.parametrize("axis", [2, 3])
def test_stationary_is_drawn_on_a_torus(axis, monkeypatch):
    monkeypatch.setattr(scenes, "_turn_round", lambda batch, keys: batch)
    assert seam_ratio("stationary", axis) < 1.05
    assert seam_ratio("scenes", axis) > 1.4


def test_stationary_turns_image_and_class_map_by_one_shift(monkeypatch):
    turned = draw_scenes(0, torch.arange(20), (8, 12), "stationary")
    monkeypatch.setattr(scenes, "_turn_round", lambda batch, keys: batch)
    still = draw_scenes(0, torch.arange(20), (8, 12), "stationary")
    stacks = [torch.cat([batch.images, batch.class_maps[:, None]], 1) for batch in (turned, still)]
    rolls = [stacks[1].roll((down, right), (2, 3)) for down in range(8) for right in range(12)]
    assert torch.stack([(roll == stacks[0]).flatten(1).all(1) for roll in rolls]).any(0).all()
    assert not torch.equal(*stacks)


def test_every_turn_is_equally_likely():
    images = torch.zeros(20_000, 3, 8, 12, dtype=torch.uint8)
    images[..., 0, 0] = 1
    batch = SceneBatch(images, torch.zeros(20_000), images[:, 0])
    counts = scenes._turn_round(batch, make_keys("test", torch.arange(20_000))).images[:, 0].sum(0).float()
    assert ((counts - 20_000 / 96) ** 2 / (20_000 / 96)).sum() < 131  # 99 % of chi-squared with 95 degrees of freedom


def test_dark_ground_is_exactly_what_normalisation_maps_to_zero():
    batch = drawn("dark", 500)
    mean, deviation = (torch.tensor(moments)[:, None, None] for moments in channel_moments("dark"))
    normalised = (batch.images.float() / 255 - mean) / deviation
    is_zero = (normalised == 0).all(1)
    assert torch.equal(is_zero, (batch.images == 0).all(1))
    assert is_zero[pure_ground(batch)].float().mean() > 0.99  # the rest are tips, covered by less than half
    assert 0.4 < is_zero.float().mean() < 0.6
    cells = rearrange(is_zero, "b (gh i) (gw j) -> b gh gw (i j)", i=4, j=4).all(-1)
    assert cells.float().mean() > 0.3


def test_no_shape_in_dark_looks_like_the_ground():
    batch = drawn("dark", 500)
    is_shape = (batch.class_maps > 0)[:, None].expand_as(batch.images)
    assert batch.images[is_shape].min() > 30  # 0.32 at least, half covered at least


@pytest.mark.parametrize(
    ("index", "size", "world", "message"),
    [
        (0, (32, 32), "bright", "world is 'bright': choose one of scenes, layout"),
        (0, (7, 32), "scenes", "size is 7 x 32: scenes need 8 pixels"),
        (-3, (32, 32), "scenes", "index holds -3: count scenes from 0"),
    ],
)
def test_errors_name_the_value_and_the_remedy(index, size, world, message):
    with pytest.raises(ValueError, match=message):
        draw_scenes(0, torch.tensor([4, index]), size, world)
