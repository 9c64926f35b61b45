"""Sizes of networks: by name, or written out."""

from dataclasses import dataclass
from typing import Literal

from semconv import timm_models

SizeName = Literal["micro", "test", "mini", "tiny", "small", "base", "large", "huge"]
GROUP = 8  # channels of a group of a group norm


@dataclass(frozen=True)
class ViTSize:
    """The size of a vision transformer.

    Args:
        width: length of a token, which 4 and the heads divide.
        depth: number of blocks.
        heads: attention heads of a block.
    """

    width: int
    depth: int
    heads: int


@dataclass(frozen=True)
class CNNSize:
    """The size of a CNN of four stages.

    Args:
        widths: channels of each stage, multiples of 8.
        depths: blocks of each stage.
    """

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


@dataclass(frozen=True)
class DecoderSize:
    """The size of a decoder.

    Args:
        width: length of a token, which 4 and the heads divide; channels of a CNN.
        depth: number of blocks.
        heads: attention heads of a block of a transformer.
        conv_depth: number of blocks of a CNN. Default: as depth.
    """

    width: int
    depth: int
    heads: int
    conv_depth: int | None = None

    @property
    def conv_blocks(self) -> int:
        """The number of blocks of a CNN."""
        return self.depth if self.conv_depth is None else self.conv_depth


@dataclass(frozen=True)
class Dimensions:
    """A size written out: that of every network that a variant may have.

    Args:
        vit: of a transformer encoder, whose number of parameters a CNN is matched to.
        cnn: of a CNN encoder.
        decoder: of the decoder.
    """

    vit: ViTSize
    cnn: CNNSize
    decoder: DecoderSize

    def __str__(self) -> str:
        widths, depths = (" ".join(map(str, values)) for values in (self.cnn.widths, self.cnn.depths))
        return f"vit {self.vit.width} x {self.vit.depth}, cnn {widths} x {depths}, decoder {self.decoder.width}"


Size = SizeName | Dimensions


def _sized(name: SizeName, vit: ViTSize, decoder: DecoderSize) -> Dimensions:
    return Dimensions(vit, CNNSize(*timm_models.SIZES[name]), decoder)


# base, large and huge as published (He et al., 2022; Dosovitskiy et al., 2021), tiny and small as in DeiT
SIZES: dict[SizeName, Dimensions] = {
    "micro": _sized("micro", ViTSize(32, 4, 4), DecoderSize(32, 1, 4)),
    "test": _sized("test", ViTSize(64, 4, 4), DecoderSize(64, 2, 4)),
    "mini": _sized("mini", ViTSize(128, 6, 4), DecoderSize(96, 3, 4)),
    "tiny": _sized("tiny", ViTSize(192, 12, 3), DecoderSize(128, 4, 4)),
    "small": _sized("small", ViTSize(384, 12, 6), DecoderSize(256, 6, 8, conv_depth=4)),
    "base": _sized("base", ViTSize(768, 12, 12), DecoderSize(512, 8, 16, conv_depth=4)),
    "large": _sized("large", ViTSize(1024, 24, 16), DecoderSize(512, 8, 16, conv_depth=4)),
    "huge": _sized("huge", ViTSize(1280, 32, 16), DecoderSize(512, 8, 16, conv_depth=4)),
}


def dimensions(size: Size) -> Dimensions:
    """A size, written out.

    Raises:
        ValueError: there is no such size, or a number of it cannot be built.
    """
    if isinstance(size, str):
        if size not in SIZES:
            raise ValueError(f"size is {size}: choose among {', '.join(SIZES)}, or write it out")
        return SIZES[size]
    for name, part in (("vit", size.vit), ("decoder", size.decoder)):
        if part.heads < 1 or part.width < 1 or part.width % 4 or part.width % part.heads:
            raise ValueError(f"size.{name}.width is {part.width} with {part.heads} heads: give a width that 4 and the heads divide")
    if any(width < 1 or width % GROUP for width in size.cnn.widths):
        raise ValueError(f"size.cnn.widths are {list(size.cnn.widths)}: give multiples of {GROUP}")
    depths = {"vit": (size.vit.depth,), "cnn": size.cnn.depths, "decoder": (size.decoder.depth, size.decoder.conv_blocks)}
    for name, given in depths.items():
        if min(given) < 1:
            raise ValueError(f"size.{name} has a depth of {min(given)}: give 1 block or more")
    return size
