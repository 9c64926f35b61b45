"""The files in experiments/, as the tests of invariants see them."""

from collections.abc import Callable, Iterator, Mapping
from copy import copy, deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from semconv.commands.train import SemconvCLI
from semconv.configuration import bare
from semconv.convolution import SignalConv2d
from semconv.corruption import Corruption, View
from semconv.decoders import Decoder
from semconv.encoders import Encoder, Geometry, Size
from semconv.hashing import make_keys
from semconv.masking import Masker
from semconv.mechanisms.overlay import Token
from semconv.objective import Objective
from semconv.tasks import MaskedReconstruction
from tests.pairwise import together

FOLDER = Path(__file__).parent.parent / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "base")
CNNS = [name for name in NAMES if name.startswith("cnn_")]

every_experiment = pytest.mark.parametrize("name", NAMES)
# of checks so quick that one case holds them all
all_experiments = together("name", NAMES)
all_cnns = together("name", CNNS)


def arguments(name: str, *overrides: str) -> list[str]:
    return ["-c", str(FOLDER / "base.yaml"), "-c", str(FOLDER / f"{name}.yaml"), *overrides]


@cache
def read(name: str, *overrides: str) -> SemconvCLI:
    """The configuration, of which nothing is built: to parse it takes most of the time."""
    return SemconvCLI(arguments(name, *overrides), run=False, extent="nothing")


@cache
def built(name: str, *overrides: str) -> SemconvCLI:
    """Model and data, without a trainer, which takes a third of the time."""
    cli = copy(read(name, *overrides))
    cli._extent = "parts"
    cli.instantiate_classes()
    return cli


@cache
def parsed(name: str, *overrides: str) -> dict[str, Any]:
    """The configuration alone, of which nothing is built; not to be changed."""
    return read(name, *overrides).config.as_dict()


def make_task(name: str, *overrides: str) -> MaskedReconstruction:
    """A task of its own, in evaluation mode."""
    return deepcopy(built(name, *overrides).model).eval()


@cache
def factory(part: str, kind: Any, name: str, *overrides: str) -> Callable[..., Any]:
    return factory_of(part, kind, parsed(name, *overrides)["model"]["init_args"][part])


def factory_of(part: str, kind: Any, config: Mapping[str, Any]) -> Callable[..., Any]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{part}", type=kind)
    return parser.instantiate(parser.parse_object({part: config}))[part]


def encoder_factory(name: str, *overrides: str) -> Any:
    """The encoder's class with the file's arguments, still to be called with a geometry and a size."""
    return factory("encoder", Callable[[Geometry, Size], Encoder], name, *overrides)


def conditioned_factory(indicators: Path) -> Any:
    """That of cnn_channels, conditioned as a file of indicators says; without the parsing of all else, which takes longer."""
    encoder = deepcopy(parsed("cnn_channels")["model"]["init_args"]["encoder"])
    encoder["init_args"] |= yaml.safe_load(indicators.read_text())["model"]["init_args"]["encoder"]["init_args"]
    return factory_of("encoder", Callable[[Geometry, Size], Encoder], encoder)


@cache
def sized(name: str, geometry: Geometry) -> MaskedReconstruction:
    decoder = factory("decoder", Callable[[Geometry, Size, Encoder], Decoder], name)
    like = built(name).model
    objective = Objective(geometry.cell, like.objective.normalise, like.objective.loss)
    parts = (encoder_factory(name), decoder, like.masker, like.corruption, objective)
    return MaskedReconstruction(*parts, geometry.size, geometry.channels, geometry.cell, padding_mode=geometry.padding_mode)


def make_sized(name: str, geometry: Geometry) -> MaskedReconstruction:
    """A task of its own, in evaluation mode, of images of another geometry than the file's."""
    return deepcopy(sized(name, geometry)).eval()


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


def keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """List every dotted key of a configuration, inner nodes included, without init_args and class_path."""
    for name, value in config.items():
        key = bare(f"{prefix}{name}")
        yield key
        if isinstance(value, Mapping):
            yield from keys(value, f"{key}.")
