"""The abstract encoder: a network from a view to a map of features."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from semconv.corruption import View
from semconv.hashing import make_seed
from semconv.indicators import Information, PaddingMode


@dataclass(frozen=True)
class Geometry:
    """The images that a network is built for, and how they are masked.

    Args:
        channels: colour channels of an image.
        size: its height and width in pixels.
        cell: side of a mask cell in pixels.
        padding_mode: how convolutions continue a map beyond its border.
        batch_size: images of a training step, over all devices.
        num_masked: masked cells of an image in training.

    Raises:
        ValueError: the cells do not tile the image.
    """

    channels: int
    size: tuple[int, int]
    cell: int
    padding_mode: PaddingMode = "zeros"
    batch_size: int = 1
    num_masked: int = 0

    def __post_init__(self) -> None:
        if self.cell < 1 or any(side < self.cell or side % self.cell for side in self.size):
            raise ValueError(
                f"image size {self.size[0]} x {self.size[1]} is not divisible by the mask cell of {self.cell}: "
                "change data.size or model.cell"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of mask cells."""
        return self.size[0] // self.cell, self.size[1] // self.cell

    def blank(self, batch: int = 1, device: torch.device | None = None) -> View:
        """A view of zeros, masked as in training, with all that an indicator may ask for: what costs are measured on."""
        pixels = torch.zeros(batch, self.channels, *self.size, device=device)
        external = torch.zeros(batch, 1, *self.size, dtype=torch.bool, device=device)  # of classes or of values
        rows, columns = self.grid
        mask = (torch.arange(rows * columns, device=device) < self.num_masked).view(1, rows, columns).expand(batch, -1, -1)
        return View(pixels, mask, self.num_masked, external=external)


class Encoding(NamedTuple):
    """The output of an encoder for a view."""

    features: Tensor  # b d sh sw: one vector per site; zeros where none stands
    valid: Tensor | None = None  # bool b sh sw: where a vector stands; None means everywhere
    prefix: Tensor | None = None  # b t d: vectors of no place, as a class token
    finer: tuple["Encoding", ...] = ()  # of earlier stages, from coarse to fine: for decoders that read a pyramid


class TimmModel(NamedTuple):
    """A model of timm's that has an encoder's features of whole images."""

    architecture: str  # timm's name
    arguments: dict[str, Any]  # besides images and classes
    state: Mapping[str, Tensor]  # by timm's names, without a classifier
    note: str  # on its use, in Markdown
    module: Path | None = None  # file that registers the architecture with timm; None: timm's own


class Encoder(nn.Module, ABC):
    """From a view to features. A subclass is built as `subclass(geometry, size, **its own arguments)`.

    Attributes:
        num_features: length of a feature vector.
        stride: pixels from one site to the next.
        num_prefix_tokens: vectors of no place.
        drops_masked: whether masked sites are left without a vector.
        finer: features and stride of each of the finer encodings that come with its encoding.
        conveys: kinds of information that it is conditioned on.
        part: what the network is in a model; its weights are drawn from it.
    """

    part: ClassVar[str] = "encoder"
    num_features: int
    stride: int
    num_prefix_tokens: int = 0
    drops_masked: bool = False
    finer: tuple[tuple[int, int], ...] = ()
    conveys: frozenset[Information] = frozenset()

    @abstractmethod
    def forward(self, view: View) -> Encoding:
        """Encode a view of `b c h w` pixels."""

    def encode_stages(self, view: View) -> list[Encoding]:
        """Features after each stage of the network, the last being what `forward` gives: by default that alone."""
        return [self(view)]

    def as_timm(self) -> TimmModel | str:
        """The model of timm's that has the same features where nothing is masked; as text: why there is none."""
        return f"its {type(self).__name__} is none of timm's architectures"

    @abstractmethod
    def init_weights(self, module: nn.Module) -> None:
        """Draw the weights that `module`, one of this network's own, holds itself."""


def with_finer(stages: Sequence[Encoding]) -> Encoding:
    """The last of all stages, with the last one of every higher resolution as its finer encodings."""
    *finer, last = {stage.features.shape[2:]: stage for stage in stages}.values()
    return last._replace(finer=tuple(reversed(finer)))


def initialise(network: nn.Module, seed: int) -> None:
    """Draw all weights anew, those of each module from (seed, encoder or decoder, its path).

    So modules of one path and shape start alike in every variant, whatever stands beside them. Norms, and what starts at zero, are
    left as they were built.

    Args:
        network: an `Encoder` or `Decoder`: it says by `init_weights` how each of its modules is drawn.
        seed: the run's seed.
    """
    for path, module in network.named_modules():
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed other devices too, and keep a traceback for each kind of which there is none
            torch.default_generator.manual_seed(make_seed(seed, "weights", network.part, path))  # type: ignore[arg-type]
            network.init_weights(module)  # type: ignore[operator]


def count_parameters(module: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
