"""The cost and a picture of each indicator.

    python -m benchmarks.indicators                                  the table of times in docs/indicators.md
    python -m benchmarks.indicators --picture docs/indicators.png    its picture, of a synthetic scene
    python -m benchmarks.indicators --prototypes RUN RUN             the prototypes that runs with a SemanticMap use

A time is that of all maps for one forward of a network (the grid of each spatial convolution, padding included), relative to
forward and backward of the encoder of `cnn_plain` of size `test`. Both are measured alternately, in processor time, which does not
count other work on the machine; the result is the median over rounds.

The number of prototypes in use is the perplexity (exponential of the entropy) of their mean share in the visible cells of all
validation images: from 1, where a single one stands everywhere, to their number, where all have the same share.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmarks.pairs import alternate, ratio
from semconv.corruption import Hide, View
from semconv.data import ImageData
from semconv.encoders import Geometry, SemanticCNN, initialise
from semconv.hashing import make_keys
from semconv.indicators import (
    BorderDistance,
    CellOffset,
    Coordinates,
    CropFrame,
    ExternalMap,
    Fourier,
    Grid,
    Indicator,
    Indicators,
    LearnedTable,
    Mask,
    MaskRatio,
    Radius,
    SelfSimilarity,
    SemanticMap,
    VisibleClusters,
    VisibleColour,
    VisibleDirection,
    VisibleDistance,
    VisibleEdges,
    WindowFraction,
)
from semconv.masking import RandomMasker
from semconv.trained.run import load_run

CLASSES = 11  # of scenes: background and ten shapes
PARTS: tuple[Callable[[], Indicator], ...] = (
    *(Mask, WindowFraction, VisibleDistance, VisibleDirection, MaskRatio),
    *(Coordinates, Radius, Fourier, LearnedTable, CellOffset, BorderDistance, CropFrame),
    *(VisibleColour, VisibleEdges, VisibleClusters, SemanticMap, SelfSimilarity, lambda: ExternalMap(CLASSES)),
)
TILE, CAPTION, GAP, COLUMNS, SHOWN = 104, 15, 4, 8, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="Draw the maps of one image into this file, and measure nothing.")
    parser.add_argument("--source", default="scenes", help="Images to draw: as data.source.")
    parser.add_argument("--image", type=int, default=5, help="Which image of the first training batch is drawn.")
    parser.add_argument("--batch", type=int, default=64, help="Images in a measured batch.")
    parser.add_argument("--prototypes", type=Path, nargs="+", help="Run folders; measure nothing else.")
    parser.add_argument("--rounds", type=int, default=30, help="How often everything is measured.")
    given = parser.parse_args()
    torch.manual_seed(0)
    if given.picture:
        draw(look(given.source, (96, 128), 8, given.image + 1), given.image).save(given.picture, optimize=True)
    elif given.prototypes:
        for folder in given.prototypes:
            print(folder, *map("{:.2f}".format, prototypes_in_use(folder)))
    else:
        measure(look(given.source, (32, 32), 4, given.batch), given.rounds)


def look(source: str, size: tuple[int, int], cell: int, count: int) -> View:
    """A training batch, cropped and flipped, three quarters of it hidden."""
    options = {"maps": "source", "num_images": 2 * count} if source.startswith("scenes") else {}
    data = ImageData(source, size=size, batch_size=count, **options)  # type: ignore[arg-type]
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
    grid, keys = (size[0] // cell, size[1] // cell), make_keys("indicators", batch.index)
    count = round(0.75 * grid[0] * grid[1])
    view = Hide()(batch.images, RandomMasker()(keys, grid, count), count, keys)
    return view._replace(frame=batch.frame, external=batch.external)


def measure(view: View, rounds: int) -> None:
    """Print a row of the table for each indicator."""
    network = SemanticCNN(Geometry(3, (32, 32), 4), "test")
    grids = [Grid(32, 32, (3, 3)), Grid(16, 16, (3, 3)), Grid(16, 16, (1, 1)), Grid(8, 8, (3, 3)), Grid(8, 8, (1, 1))]
    parts = {type(part).__name__: part for part in (make() for make in PARTS)}
    tried = {name: partial(_timed, partial(_evaluate, Indicators([part]), view, grids)) for name, part in parts.items()}
    turns = alternate({"step": partial(_timed, lambda: _train(network, view)), **tried}, rounds)
    for name, part in parts.items():
        print(f"{name:<18} {part.channels:>3} channels  {100 * ratio(turns[name], turns['step']).median:6.2f} % of a step")


@torch.no_grad()
def prototypes_in_use(folder: Path) -> tuple[float, float]:
    """How many prototypes a run uses: untrained, and trained."""
    run: Any = load_run(folder)
    task, data = run.task, run.data
    data.setup("fit")
    views = [task.look(data.on_after_batch_transfer(batch), "val")[0] for batch in data.val_dataloader()]
    trained = _used(task.encoder, views)
    initialise(task.encoder, task.seed)
    return _used(task.encoder, views), trained


def _used(encoder: SemanticCNN, views: list[View]) -> float:
    (part,) = (part for part in encoder.indicators if isinstance(part, SemanticMap))
    shares = torch.cat([part.assign(view).movedim(1, 3)[~view.mask] for view in views]).mean(0)
    return torch.special.entr(shares).sum().exp().item()


def draw(view: View, image: int) -> Image.Image:
    """The maps of one image, blue below 0 and red above, on the grid of a stem of stride 2; of many channels only the first."""
    height, width = view.pixels.shape[2] // 2, view.pixels.shape[3] // 2
    tiles: list[tuple[str, Tensor]] = [("seen", _colours(view.pixels[image]))]
    for make in PARTS:
        if isinstance(part := make(), ExternalMap) and view.external is None:
            continue
        maps = part(view, Grid(height, width))[image if part.per_image else 0].detach()
        name = type(part).__name__
        if isinstance(part, VisibleColour):
            tiles.append((f"{name}, mean", _colours(maps[:3])))
            maps, name = maps[3:], f"{name}, variance"
        if isinstance(part, ExternalMap):
            maps = maps[maps.flatten(1).amax(1).argsort(descending=True, stable=True)]
        top = maps.abs().max() if isinstance(part, LearnedTable) else max(abs(part.low), abs(part.high))
        for number, one in enumerate(maps[:SHOWN]):
            tiles.append((name if number == 0 else "", _signed(one / top)))
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (TILE + GAP) + GAP, rows * (TILE * height // width + CAPTION + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for number, (name, tile) in enumerate(tiles):
        left = GAP + number % COLUMNS * (TILE + GAP)
        top = GAP + number // COLUMNS * (TILE * height // width + CAPTION + GAP)
        picture = Image.fromarray((tile.movedim(0, 2) * 255).round().to(torch.uint8).numpy())
        sheet.paste(picture.resize((TILE, TILE * height // width), Image.Resampling.NEAREST), (left, top + CAPTION))
        pen.text((left, top), name, fill="black", font=font)
    return sheet.quantize(128)


def _colours(pixels: Tensor) -> Tensor:
    """Normalised colours `3 h w` as colours from 0 to 1."""
    return (pixels / 4 + 0.5).clamp(0, 1)


def _signed(values: Tensor) -> Tensor:
    """`h w` from -1 to 1 as colours: blue, white, red."""
    values = values.clamp(-1, 1)
    fades = 1 - values.abs()
    return torch.stack([torch.where(values < 0, fades, 1), fades, torch.where(values > 0, fades, 1)])


def _evaluate(indicators: Indicators, view: View, grids: list[Grid]) -> None:
    signals = indicators(view)
    for grid in grids:
        signals.at(grid)


def _train(network: SemanticCNN, view: View) -> Tensor:
    loss = network(view).features.square().mean()
    loss.backward()
    return loss


def _timed(function: Callable[[], object]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
