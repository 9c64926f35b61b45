"""How time and memory of a training step grow: exponents of power laws over small grids.

Time is that of steps in turns over a grid: the median of the exponents of all rounds. Operations, and the memory that a forward
pass keeps for its backward pass, are counted. What does not vary: size `test`, 32 images of 32 x 32 pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from benchmarks.pairs import Turns, alternate
from benchmarks.peers import Steps
from semconv.convolution import Plain
from semconv.corruption import Hide
from semconv.cost import count_training_flops, flops_per_image, saved_bytes
from semconv.decoders import ConvDecoder, TransformerDecoder
from semconv.encoders import MAEViT, SemanticCNN, Size
from semconv.encoders.sizes import CNNSize, Dimensions, ViTSize, dimensions
from semconv.indicators import Indicator, WindowFraction
from semconv.masking import RandomMasker
from semconv.mechanisms import Channels
from semconv.objective import Objective
from semconv.tasks import MaskedReconstruction

TEST = dimensions("test")


class Point(NamedTuple):
    """A network and its images."""

    task: MaskedReconstruction
    batch: int


class Axis(NamedTuple):
    """A grid of points by size."""

    unit: str
    points: Mapping[int, Point]


class Grown(NamedTuple):
    """What was measured over an axis, by size."""

    turns: dict[int, Turns]  # seconds of a step
    flops: dict[int, float]  # of a step
    kept: dict[int, int]  # bytes


def axes() -> dict[str, Callable[[], Axis]]:
    """The grids, built when they are measured."""
    return {
        "batch, CNN": lambda: Axis("images", {batch: Point(cnn(), batch) for batch in (16, 32, 64, 128)}),
        "batch, MAE-ViT": lambda: Axis("images", {batch: Point(vit(), batch) for batch in (16, 32, 64, 128)}),
        "image size, CNN": lambda: Axis("pixels", {side**2: Point(cnn(side=side), 32) for side in (16, 32, 64)}),
        "image size, MAE-ViT": lambda: Axis("pixels", {side**2: Point(vit(side=side), 32) for side in (16, 32, 64)}),
        "width, CNN": lambda: Axis("channels", {64 * times: Point(cnn(_wider(times)), 32) for times in (1, 2, 4)}),
        "width, MAE-ViT": lambda: Axis("channels", {width: Point(vit(_vit(width, 4)), 32) for width in (64, 128, 256)}),
        "depth, CNN": lambda: Axis("blocks of a stage", {depth: Point(cnn(_deeper(depth)), 32) for depth in (2, 4, 8, 16)}),
        "depth, MAE-ViT": lambda: Axis("blocks", {depth: Point(vit(_vit(64, depth)), 32) for depth in (2, 4, 8, 16)}),
        "indicators, CNN": lambda: Axis(
            "signals of the mask", {number: Point(cnn(indicators=number), 32) for number in (1, 2, 4, 8, 16)}
        ),
    }


def measure(axis: Axis, rounds: int) -> Grown:
    """Measure a step at every point of an axis."""
    steps = {size: Steps(point.task, partial(_loss, point.task), _images(point)) for size, point in axis.points.items()}
    turns = alternate({str(size): each for size, each in steps.items()}, rounds)
    flops, kept = {}, {}
    for size, (task, batch) in axis.points.items():
        inputs: Any = task.example_input_array
        flops[size] = batch * flops_per_image(count_training_flops, task, inputs, batch)
        kept[size] = saved_bytes(partial(steps[size].loss, steps[size].images), task)
    return Grown({size: turns[str(size)] for size in steps}, flops, kept)


def cnn(size: Size = "test", side: int = 32, indicators: int = 0) -> MaskedReconstruction:
    """A CNN, plain or conditioned on the mask several times."""
    given: list[Indicator] = [WindowFraction((window,)) for window in range(1, 1 + indicators)]
    # by default the width of the MLPs makes up for every other
    encoder = partial(SemanticCNN, indicators=given, mechanism=Channels if given else Plain, mlp_ratio=4.0)
    return _task(encoder, ConvDecoder, size, side)


def vit(size: Size = "test", side: int = 32) -> MaskedReconstruction:
    return _task(MAEViT, TransformerDecoder, size, side)


def _task(encoder: Callable[..., Any], decoder: Callable[..., Any], size: Size, side: int) -> MaskedReconstruction:
    return MaskedReconstruction(encoder, decoder, RandomMasker(), Hide(), Objective(4), (side, side), size=size)


def _loss(task: MaskedReconstruction, images: Tensor) -> Tensor:
    view = task.geometry.blank(len(images))._replace(pixels=images)
    return task.objective(task(view), images, view.mask)


def _images(point: Point) -> Tensor:
    images = point.task.geometry.blank(point.batch).pixels
    return nn.init.normal_(images)


def _vit(width: int, depth: int) -> Dimensions:
    return replace(TEST, vit=ViTSize(width, depth, 4))


def _wider(times: int) -> Dimensions:
    return replace(TEST, cnn=CNNSize(_four([width * times for width in TEST.cnn.widths]), TEST.cnn.depths))


def _deeper(depth: int) -> Dimensions:
    first, second, _, last = TEST.cnn.depths
    return replace(TEST, cnn=CNNSize(TEST.cnn.widths, (first, second, depth, last)))


def _four(values: Sequence[int]) -> tuple[int, int, int, int]:
    one, two, three, four = values
    return one, two, three, four
