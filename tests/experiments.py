"""The files in experiments/, as the tests of invariants see them."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser

from semconv.commands.train import SemconvCLI, build
from semconv.convolution import SignalConv2d
from semconv.corruption import Corruption, View
from semconv.encoders import Encoder, Geometry, Size
from semconv.hashing import make_keys
from semconv.masking import Masker
from semconv.mechanisms.overlay import Token
from semconv.tasks import MaskedReconstruction

FOLDER = Path(__file__).parent.parent / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "base")
CNNS = [name for name in NAMES if name.startswith("cnn_")]

every_experiment = pytest.mark.parametrize("name", NAMES)
every_cnn = pytest.mark.parametrize("name", CNNS)


def arguments(name: str, *overrides: str) -> list[str]:
    return ["-c", str(FOLDER / "base.yaml"), "-c", str(FOLDER / f"{name}.yaml"), *overrides]


@cache
def built(name: str, *overrides: str) -> SemconvCLI:
    return build(arguments(name, *overrides))


def make_task(name: str, *overrides: str) -> MaskedReconstruction:
    """A task of its own, in evaluation mode."""
    return deepcopy(built(name, *overrides).model).eval()


def encoder_factory(name: str) -> partial:
    """The encoder's class with the file's arguments, still to be called with a geometry and a size."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--encoder", type=Callable[[Geometry, Size], Encoder])
    config = parser.parse_object({"encoder": built(name).config["model"]["init_args"]["encoder"]})
    return parser.instantiate_classes(config)["encoder"]


def stir(module: torch.nn.Module) -> None:
    """Set what starts at zero, indicator weights and tokens, to N(0, .02) * 10, so that telling shows in every output."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            if isinstance(part, SignalConv2d | Token) or not parameter.any():
                with torch.no_grad():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def random_images(task: MaskedReconstruction, count: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, task.geometry.channels, *task.geometry.size, generator=generator)


def look(task: MaskedReconstruction, images: torch.Tensor, masker: Masker, corruption: Corruption) -> tuple[View, torch.Tensor]:
    """A view of images and their mask, under a masker and a corruption of the test's choice."""
    keys = make_keys(7, torch.arange(len(images)))
    count = masker.count(task.num_cells)
    mask = masker(keys, task.geometry.grid, count)
    return corruption(images, mask, count, keys), mask
