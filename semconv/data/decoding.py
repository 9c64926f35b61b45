"""From files and Pillow images to uint8 tensors of the channels asked for."""

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from semconv.data.errors import BadImage

PILLOW_MODES = {1: "L", 3: "RGB"}


def decode(encoded: bytes, channels: int, name: str) -> Tensor:
    """Decode an image file: of 1, 8 or 16 bits or of floats from 0 to 1, grey, colour, palette or CMYK; transparency is dropped.

    Args:
        encoded: the file's content.
        channels: 1 (grey) or 3 (RGB).
        name: what an error calls the image.

    Returns:
        c h w, uint8.

    Raises:
        BadImage: it is no image that Pillow can read.
    """
    try:
        return from_pillow(Image.open(io.BytesIO(encoded)), channels)
    except UnidentifiedImageError as error:
        raise BadImage(f"{name} is no image: replace or remove it, or set on_bad_image to skip") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of them
        raise BadImage(f"{name} cannot be decoded ({error}): replace or remove it, or set on_bad_image to skip") from error


def from_pillow(image: Image.Image, channels: int) -> Tensor:
    """A Pillow image as c h w, uint8."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a palette's transparency is dropped in one go
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_eight_bits(image)
    pixels = torch.from_numpy(np.array(image.convert(PILLOW_MODES[channels])))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit integers (which Pillow may hold as 32) and floats from 0 to 1, on the scale of 0 to 255; Pillow would cut them off."""
    values = np.asarray(image, dtype=np.float64)
    scaled = values * 255 if image.mode == "F" else values / 257
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
