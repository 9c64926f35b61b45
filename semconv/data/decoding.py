"""Decoding of image files and Pillow images into uint8 tensors."""

import io
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from semconv.configuration import one_line
from semconv.data.errors import BadImage

FULL = 65535.0  # of 16 bits
MAX_PIXELS = 178_956_970  # of an image, as Pillow has it
_PILLOW = threading.Lock()  # for its limit, which is one for the whole process
PILLOW_MODES = {1: "L", 3: "RGB"}
TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
REMEDY = "replace or remove it, or set on_bad_image to skip"

Range = tuple[float, float]  # values that become 0 and 255


def decode(encoded: bytes, channels: int, name: str, values: Range | None = None, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode an image file: 1, 8 or 16 bits, or floats from 0 to 1; grey, colour, palette or CMYK; transparency is dropped.

    An image that is stored turned, as its EXIF orientation says, is turned upright.

    Args:
        encoded: the file's content.
        channels: 1 (grey) or 3 (RGB).
        name: the image's name in error messages.
        values: range of images of more than 8 bits; None: that of 16 bits, and 0 to 1 for floats.
        max_pixels: of an image; a larger one is not read.

    Returns:
        c h w, uint8.

    Raises:
        BadImage: Pillow cannot read it as an image, it is too large, or its values are not finite.
    """
    return from_pillow(open_upright(encoded, name, max_pixels), channels, name, values)


def open_upright(encoded: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file and turn it as its EXIF orientation says; a damaged EXIF part neither turns an image nor loses it.

    Raises:
        BadImage: Pillow cannot read it as an image, or it is too large.
    """
    with _named(name):
        image = open_image(encoded, name, max_pixels)
        image.load()
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises almost any
        turn = None
    return image if turn is None else image.transpose(turn)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Raise an error of Pillow as a BadImage with the name of the image."""
    try:
        yield
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BadImage(f"{name} is not an image", REMEDY) from error
    except Exception as error:  # Pillow raises almost any
        raise BadImage(f"{name} cannot be decoded ({one_line(error)})", REMEDY) from error


def open_image(encoded: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image file; its pixels are read later.

    Raises:
        BadImage: it is too large.
    """
    with _PILLOW:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(encoded))
            if image.width * image.height > max_pixels:
                raise BadImage(
                    f"{name} has {image.width} x {image.height} pixels, more than {max_pixels:,}",
                    f"give a larger max_pixels if you trust it, {REMEDY}",
                )
            if before is not None and image.width * image.height > before:
                image.load()  # which asks again
            return image
        finally:
            Image.MAX_IMAGE_PIXELS = before


def from_pillow(image: Image.Image, channels: int, name: str, values: Range | None = None) -> Tensor:
    """Convert a Pillow image to c h w, uint8. See `decode`."""
    with _named(name):
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # Pillow warns when a palette's transparency is dropped in one go
        if is_deep(image):
            full = (0.0, 1.0) if image.mode == "F" else (0.0, FULL)
            image = Image.fromarray(to_eight_bits(np.asarray(image), values or full, name))
        pixels = torch.from_numpy(np.array(image.convert(PILLOW_MODES[channels])))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def is_deep(image: Image.Image) -> bool:
    """True for 16-bit integers, which Pillow may hold as 32 bits, and floats."""
    return image.mode == "F" or image.mode.startswith("I")


def to_eight_bits(pixels: np.ndarray, values: Range, name: str) -> np.ndarray:
    """Scale a range of an image's values to 0..255; values beyond it are clipped.

    Raises:
        BadImage: a value is infinite or not a number.
    """
    if not np.isfinite(pixels).all():
        raise BadImage(f"{name} has values that are infinite or not a number", REMEDY)
    low, high = values
    return ((pixels.astype(np.float64) - low) * (255 / (high - low))).round().clip(0, 255).astype(np.uint8)


def guess_range(pixels: Sequence[np.ndarray], name: str) -> Range | None:
    """The range of images of more than 8 bits: from 0 to the largest value of as many bits as they need, or to 1 or 255 for floats.

    Args:
        pixels: some images; those of 8 bits say nothing, and those with values that are not finite are bad, see `to_eight_bits`.
        name: of their source, for messages.

    Returns:
        None if none has more than 8 bits.

    Raises:
        ValueError: floats are negative, or above 255.
    """
    deep = [each for each in pixels if each.dtype != np.uint8 and np.isfinite(each).all()]
    if not deep:
        return None
    low, high = min(float(each.min()) for each in deep), max(float(each.max()) for each in deep)
    tops = (1.0, 255.0) if deep[0].dtype.kind == "f" else (255.0, 1023.0, 4095.0, 16383.0, FULL)
    if low < 0 or not high <= tops[-1]:
        raise ValueError(f"{name}: values go from {low:.4g} to {high:.4g}: say by --data.range which become black and white")
    top = next(top for top in tops if high <= top)
    if top != (tops[0] if deep[0].dtype.kind == "f" else FULL):
        print(
            f"{name}: values reach {high:.6g}, and 0 to {top:.0f} is taken for black to white: state it by --data.range",
            file=sys.stderr,
        )
    return 0.0, top
