"""Scenes: the synthetic data set of this package, drawn rather than stored.

Textured shapes of ten classes on a textured background, partly hiding each other. A scene is a function of (seed, index) only,
whatever batch it is drawn in; at another size it is the same scene, sampled again. Four variants share their shapes and differ in
the value of an indicator, which is known for the last three:

- `scenes`: wavy backgrounds; hidden content can partly be inferred from visible content.
- `layout`: the background is a fixed pattern of pixel position, independent between tiles. Position must help, as long as no crop
  or flip moves the pattern and the side of a mask cell is a multiple of TILE.
- `stationary`: scenes on a torus, shifted at random. Position cannot help.
- `dark`: the background has exactly the value of zero fill. The mask must help.

Pixels use only arithmetic that rounds the same way everywhere (+ - * / round), and square roots, which torch takes from MKL: these
differ by a unit in the last place between kinds of processors, and so does a pixel now and then, by 1/255. The last bit of a sine
or of a fused multiply-add would differ more often, also between the body of a tensor and its remainder.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from einops import rearrange
from torch import Tensor

from semconv.data.motifs import NUM_CLASSES, SHAPES, TEXTURES
from semconv.hashing import hash_words, make_keys, uniform

World = Literal["scenes", "layout", "stationary", "dark"]
WORLDS: tuple[World, ...] = get_args(World)

NUM_SLOTS = 4  # places for shapes in a scene, back to front; the last holds the subject
CHUNK_PIXELS = 2**18  # drawn at a time: the fastest on one core, in about 40 MB
TILE = 4  # side in pixels of the tiles of `layout`
UNIT_VECTORS = torch.tensor([[math.sin(turn), math.cos(turn)] for turn in (i * math.pi / 128 for i in range(256))])
MOMENTS: dict[World, tuple[float, float]] = {
    "scenes": (0.4996, 0.1861),
    "layout": (0.5000, 0.1540),
    "stationary": (0.4998, 0.1855),
    "dark": (0.0, 0.3873),
}


class SceneBatch(NamedTuple):
    """Scenes with their labels and class maps."""

    images: Tensor  # b 3 h w, uint8
    labels: Tensor  # b, int64: index into motifs.CLASS_NAMES of the subject, the largest and frontmost shape
    class_maps: Tensor  # b h w, uint8: 0 = background, else 1 + index into motifs.CLASS_NAMES of the visible shape


class Shapes(NamedTuple):
    """Shapes as rows r = (slot image); lengths in units of the image's shorter side."""

    kind: Tensor  # r, int64: index into CLASS_NAMES
    present: Tensor  # r, bool
    radius: Tensor  # r, of a circle around the shape
    centre: Tensor  # r 2, down and right of the top left corner
    heading: Tensor  # r 2, unit vector


class Texture(NamedTuple):
    """Two crossing waves per row, from which every kind of texture computes its shade."""

    kind: Tensor  # r, int64
    waves: Tensor  # r 2 2: by wave, its cycles per shorter side down and right
    phases: Tensor  # r 2, cycles


def draw_scenes(seed: int, index: Tensor, size: tuple[int, int], world: World = "scenes") -> SceneBatch:
    """Draw the scenes of the given indices.

    A scene has two to four shapes. The subject, whose class is the label, is drawn last, is larger than the others and
    lies completely inside (in `stationary` it may wrap around). Its class is uniform, independent of colour, texture and position.

    Args:
        seed: seed of the data set.
        index: indices of the scenes: b, int64, not negative.
        size: height and width in pixels, 8 or more each.
        world: one of WORLDS; an index has the same shapes in all of them, in brighter colours in `dark`.

    Raises:
        ValueError: the world is unknown, the size is below 8, or an index is negative.
    """
    _check(index, size, world)
    chunks = index.split(max(1, CHUNK_PIXELS // (size[0] * size[1])))
    batches = [_draw_chunk(seed, chunk, size, world) for chunk in chunks]
    return SceneBatch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def channel_moments(world: World = "scenes") -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels of a world, on the scale of 0 to 1, for normalisation.

    Measured over the first 10,000 scenes of seed 0 at 32 x 32 pixels. The channels have the same distribution, and so share one
    value. In `dark` the mean is replaced by the background's value, 0, and the deviation by the root mean square around it, so that
    the normalised background is exactly 0.
    """
    mean, deviation = MOMENTS[world]
    return (mean,) * 3, (deviation,) * 3


def _check(index: Tensor, size: tuple[int, int], world: str) -> None:
    if world not in WORLDS:
        raise ValueError(f"world is {world!r}: choose one of {', '.join(WORLDS)}")
    if min(size) < 8:
        raise ValueError(f"size is {size[0]} x {size[1]}: scenes need 8 pixels or more on each side")
    if bool((index < 0).any()):
        raise ValueError(f"index holds {int(index.min())}: count scenes from 0")


def _draw_chunk(seed: int, index: Tensor, size: tuple[int, int], world: World) -> SceneBatch:
    scene = make_keys("scenes", seed, index)
    slots = make_keys(scene, torch.arange(NUM_SLOTS, device=index.device)[:, None]).flatten()
    shapes = _draw_shapes(slots, size)
    tint = uniform(make_keys(scene, "tint"), 3)
    colours = _draw_colours(slots, tint.repeat(NUM_SLOTS, 1), world)
    images = _paint_ground(scene, tint, size, world)
    coverage, shade = _render_shapes(slots, shapes, size, wrap=world == "stationary")
    class_maps = _paint_shapes(images, shapes.kind, coverage, shade, colours)
    batch = SceneBatch(images.mul_(255).add_(0.5).to(torch.uint8), shapes.kind[-len(index) :], class_maps)
    return _turn_round(batch, scene) if world == "stationary" else batch


def _draw_shapes(keys: Tensor, size: tuple[int, int]) -> Shapes:
    kind, presence, radius, down, right, turn = uniform(make_keys(keys, "shape"), 6).unbind(-1)
    slot = torch.arange(NUM_SLOTS, device=keys.device).repeat_interleave(len(keys) // NUM_SLOTS)
    is_subject = slot == NUM_SLOTS - 1
    radius = torch.where(is_subject, 0.34 + 0.12 * radius, 0.2 + 0.1 * radius)
    sides = torch.tensor(size, device=keys.device) / min(size)
    margin = torch.where(is_subject, radius, 0.0)[:, None]
    return Shapes(
        kind=(kind * NUM_CLASSES).long(),
        present=(slot >= NUM_SLOTS - 2) | (presence < 0.5),
        radius=radius,
        centre=margin + torch.stack([down, right], dim=-1) * (sides - 2 * margin),
        heading=_unit_vectors(turn),
    )


def _draw_texture(keys: Tensor, slowest: float, fastest: float) -> Texture:
    """Draw textures with a range of cycles per shorter side."""
    kind, turn, pace, ratio, first, second = uniform(make_keys(keys, "texture"), 6).unbind(-1)
    direction = _unit_vectors(turn)
    waves = torch.stack([direction, _quarter_turn(direction)], dim=1)
    frequency = slowest + (fastest - slowest) * pace
    frequencies = torch.stack([frequency, frequency * (0.6 + 0.4 * ratio)], dim=-1)
    phases = torch.stack([first, second], dim=-1)
    return Texture((kind * len(TEXTURES)).long(), waves * frequencies[..., None], phases)


def _draw_colours(keys: Tensor, tint: Tensor, world: World) -> tuple[Tensor, Tensor]:
    """One end of each shape's range of colours, and its difference to the other end: r 3 each.

    The middle of the range differs from the background's in every channel, so that the shape is visible.
    """
    shift, swing = uniform(make_keys(keys, "colour"), 6).split(3, dim=-1)
    middle = tint + 0.3 + 0.4 * shift
    middle = 0.2 + 0.6 * (middle - middle.floor())
    swing = _spread(swing, 0.18)
    if world == "dark":
        middle = 0.4 + 0.5 * middle
    return middle - swing, 2 * swing


def _spread(numbers: Tensor, reach: float) -> Tensor:
    """Colour differences `r 3` from uniform numbers: of any direction, the largest channel exactly `reach`."""
    numbers = 2 * numbers - 1
    return reach * numbers / numbers.abs().amax(dim=-1, keepdim=True).clamp(min=1e-3)


def _unit_vectors(turns: Tensor) -> Tensor:
    return UNIT_VECTORS.to(turns.device)[(turns * len(UNIT_VECTORS)).long()]


def _quarter_turn(vectors: Tensor) -> Tensor:
    return torch.stack([-vectors[..., 1], vectors[..., 0]], dim=-1)


def _paint_ground(keys: Tensor, tint: Tensor, size: tuple[int, int], world: World) -> Tensor:
    """Paint the background, in [0, 1]: b 3 h w. `tint` in [0, 1) sets its middle colour: b 3."""
    if world == "dark":
        return tint.new_zeros(*tint.shape, *size)
    if world == "layout":
        return 0.25 + 0.3 * tint[..., None, None] + 0.2 * _layout_pattern(size, tint.device)
    swing = _spread(uniform(make_keys(keys, "swing"), 3), 0.14)
    low, change = 0.2 + 0.6 * tint - swing, 2 * swing
    shade = _ground_shade(keys, size, wrap=world == "stationary")
    return low[..., None, None] + change[..., None, None] * shade[:, None]


def _ground_shade(keys: Tensor, size: tuple[int, int], wrap: bool) -> Tensor:
    texture = _draw_texture(keys, 1.5, 5.0)
    if wrap:  # a whole number of cycles in both directions
        sides = torch.tensor(size, device=keys.device) / min(size)
        texture = texture._replace(waves=(texture.waves * sides).round() / sides)
    corner = torch.zeros(len(keys), device=keys.device)
    return _render_texture(texture, *(_offsets(length, min(size), corner, wrap=False) for length in size))


def _layout_pattern(size: tuple[int, int], device: torch.device) -> Tensor:
    """0 or 1 by pixel position: h w. Each tile is a checkered motif or its negative, chosen by a hash of the tile's position.

    With one bit per tile, visible tiles reveal little about position: at 32 x 32 pixels with three quarters of the tiles hidden, a
    linear filter over the eight neighbours explains 1 % of the signs. (A filter as wide as the image explains 46 %: a network that
    has memorised the whole pattern recognises the position. No fixed pattern can prevent that.)
    """
    rows, columns = (torch.arange(length, device=device) for length in size)
    tiles = make_keys("scene layout", rows[:, None] // TILE, columns // TILE)
    motif = rows[:, None] // (TILE // 2) + columns // (TILE // 2)
    return ((hash_words(tiles, 1)[..., 0] ^ motif) & 1).float()


def _render_shapes(keys: Tensor, shapes: Shapes, size: tuple[int, int], wrap: bool) -> tuple[Tensor, Tensor]:
    """The share of every pixel that a shape covers, and the shade of its texture there: r h w in [0, 1] each."""
    offsets = [_offsets(n, min(size), shapes.centre[:, i], wrap) for i, n in enumerate(size)]
    axes = shapes.heading / shapes.radius[:, None]
    u, v = _plane(axes, *offsets), _plane(_quarter_turn(axes), *offsets)
    distance = _by_kind(tuple(SHAPES.values()), shapes.kind, u, v)
    distance *= shapes.radius[:, None, None] * min(size)  # in pixels
    edge = torch.where(shapes.present, 0.5, -1e6)[:, None, None]
    return (edge - distance).clamp_(0, 1), _render_texture(_draw_texture(keys, 3.0, 8.0), *offsets)


def _render_texture(texture: Texture, down: Tensor, right: Tensor) -> Tensor:
    p, q = (_plane(texture.waves[:, i], down, right, texture.phases[:, i]) for i in range(2))
    return _by_kind(TEXTURES, texture.kind, p, q)


def _offsets(length: int, shorter: int, centre: Tensor, wrap: bool) -> Tensor:
    """Offsets from the centres (r, in shorter sides) to the pixels along one side: r length. On a torus, the shorter way around."""
    offsets = (torch.arange(length, device=centre.device) + 0.5) / shorter - centre[:, None]
    return offsets - (offsets * shorter / length).round() * (length / shorter) if wrap else offsets


def _plane(slope: Tensor, down: Tensor, right: Tensor, start: Tensor | float = 0.0) -> Tensor:
    """A linear function of position for every row: r h w, from slopes `r 2` and offsets `r h` and `r w`."""
    along = slope[:, :1] * down + torch.as_tensor(start, device=slope.device).reshape(-1, 1)
    return along[:, :, None] + (slope[:, 1:] * right)[:, None, :]


def _by_kind(functions: tuple[Callable[..., Tensor], ...], kind: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Apply to each row the function of its kind: r h w."""
    result = torch.empty_like(a)
    for number, function in enumerate(functions):
        rows = (kind == number).nonzero()[:, 0]
        result.index_copy_(0, rows, function(a.index_select(0, rows), b.index_select(0, rows)))
    return result


def _paint_shapes(images: Tensor, kind: Tensor, coverage: Tensor, shade: Tensor, colours: tuple[Tensor, Tensor]) -> Tensor:
    """Paint the shapes over `images` (b 3 h w), in place and from back to front; return the class maps."""
    class_maps = torch.zeros_like(images[:, 0], dtype=torch.uint8)
    rows = (kind.to(torch.uint8) + 1, coverage, shade, *colours)
    slots = (rearrange(part, "(s b) ... -> s b ...", s=NUM_SLOTS) for part in rows)
    for number, cover, tone, low, change in zip(*slots, strict=True):
        colour = change[..., None, None] * tone[:, None] + low[..., None, None]
        images += colour.sub_(images).mul_(cover[:, None])
        class_maps = torch.where(cover > 0.5, number[:, None, None], class_maps)
    return class_maps


def _turn_round(batch: SceneBatch, keys: Tensor) -> SceneBatch:
    """Shift every scene circularly by an amount uniform over its pixels."""
    height, width = batch.images.shape[2:]
    shift = (uniform(make_keys(keys, "turn"), 2) * torch.tensor([height, width], device=keys.device)).long()
    rows = (torch.arange(height, device=keys.device) + shift[:, :1]) % height
    columns = (torch.arange(width, device=keys.device) + shift[:, 1:]) % width
    source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    images = batch.images.flatten(2).gather(2, source[:, None].expand(-1, 3, -1))
    class_maps = batch.class_maps.flatten(1).gather(1, source)
    return SceneBatch(images.view_as(batch.images), batch.labels, class_maps.view_as(batch.class_maps))
