"""Views that are not square, and the sites on which indicators are asked."""

import importlib
import inspect
import math
import pkgutil

import torch
from torch import Tensor

import semconv.indicators
from semconv.corruption import View
from semconv.indicators import Grid, Indicator
from tests.oracles import draw_mask, make_generator

CELLS, SIZE, COUNT = (4, 6), (32, 48), 15
# those of stages of strides 1, 2, 4 and 8, one site per two cells, and what divides neither pixels nor cells
STAGES = [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
ODD = [(3, 5), (7, 7), (1, 1), (16, 6)]


def every_class() -> list[type[Indicator]]:
    """All finished indicators of the package, those that are added later included."""
    for module in pkgutil.iter_modules(semconv.indicators.__path__):
        importlib.import_module(f"semconv.indicators.{module.name}")
    found, classes = [Indicator], []
    while found:
        found = [each for parent in found for each in parent.__subclasses__()]
        classes += [each for each in found if each.__module__.startswith("semconv.") and not inspect.isabstract(each)]
    return sorted(set(classes), key=lambda each: each.__name__)


def draw_seen(batch: int = 3, seed: int = 0, count: int = COUNT, cells: tuple[int, int] = CELLS) -> View:
    """A view of random pixels everywhere, hidden cells included, a random frame and a map of values."""
    generator = make_generator(seed)
    pixels = torch.randn(batch, 3, *SIZE, generator=generator)
    frame = torch.rand(batch, 5, generator=generator) - 0.5
    external = torch.rand(batch, 1, *SIZE, generator=generator)
    return View(pixels, draw_mask(batch, cells, count, seed), count, frame, external)


def only(view: View, images: slice | list[int]) -> View:
    """Some images of a view."""
    frame, external = (each if each is None else each[images] for each in (view.frame, view.external))
    return view._replace(pixels=view.pixels[images], mask=view.mask[images], frame=frame, external=external)


def spread(mask: Tensor) -> Tensor:
    """From cells to the pixels of `SIZE`: bool `b 1 h w`."""
    rows, columns = (side // cells for side, cells in zip(SIZE, mask.shape[1:], strict=True))
    return mask.repeat_interleave(rows, 1).repeat_interleave(columns, 2)[:, None]


def mean_over_sites(maps: Tensor, height: int, width: int) -> Tensor:
    """The mean of maps over each site, counted on a grid fine enough for both: float64 `b k height width`."""
    rows, columns = maps.shape[2:]
    fine = maps.double().repeat_interleave(math.lcm(rows, height) // rows, 2)
    fine = fine.repeat_interleave(math.lcm(columns, width) // columns, 3)
    down, along = fine.shape[2] // height, fine.shape[3] // width
    out = torch.zeros(*maps.shape[:2], height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            out[:, :, i, j] = fine[:, :, i * down : (i + 1) * down, j * along : (j + 1) * along].mean((2, 3))
    return out


def assert_close(ours: Tensor, oracle: Tensor, atol: float = 1e-6) -> None:
    """Equal but for float32's rounding."""
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), oracle.expand_as(ours), rtol=1e-5, atol=atol)


def on(indicator: Indicator, view: View, sites: tuple[int, int]) -> Tensor:
    return indicator(view, Grid(*sites))
