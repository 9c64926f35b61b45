"""Decoding of image files and Pillow images into uint8 tensors."""

import io

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from semconv.data.errors import BadImage

PILLOW_MODES = {1: "L", 3: "RGB"}


def decode(encoded: bytes, channels: int, name: str) -> Tensor:
    """Decode an image file: 1, 8 or 16 bits, or floats from 0 to 1; grey, colour, palette or CMYK; transparency is dropped.

    An image that is stored turned, as its EXIF orientation says, is turned upright.

    Args:
        encoded: the file's content.
        channels: 1 (grey) or 3 (RGB).
        name: the image's name in error messages.

    Returns:
        c h w, uint8.

    Raises:
        BadImage: Pillow cannot read it as an image.
    """
    try:
        return from_pillow(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))), channels)
    except UnidentifiedImageError as error:
        raise BadImage(f"{name} is not an image: replace or remove it, or set on_bad_image to skip") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises any of these
        raise BadImage(f"{name} cannot be decoded ({error}): replace or remove it, or set on_bad_image to skip") from error


def from_pillow(image: Image.Image, channels: int) -> Tensor:
    """Convert a Pillow image to c h w, uint8."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a palette's transparency is dropped in one go
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_eight_bits(image)
    pixels = torch.from_numpy(np.array(image.convert(PILLOW_MODES[channels])))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit integers (which Pillow may hold as 32 bits) and floats from 0 to 1 to 0..255; Pillow would clip them."""
    values = np.asarray(image, dtype=np.float64)
    scaled = values * 255 if image.mode == "F" else values / 257
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
