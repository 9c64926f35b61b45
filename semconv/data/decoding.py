"""From files and Pillow images to uint8 tensors of the channels asked for."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

PILLOW_MODES = {1: "L", 3: "RGB"}


def decode(encoded: bytes, channels: int, name: str) -> Tensor:
    """Decode an image file: grey, colour, palette or with transparency (which is dropped).

    Args:
        encoded: the file's content.
        channels: 1 (grey) or 3 (RGB).
        name: what an error calls the image.

    Returns:
        c h w, uint8.

    Raises:
        ValueError: when it is no image that Pillow can read.
    """
    try:
        return from_pillow(Image.open(io.BytesIO(encoded)), channels)
    except OSError as error:
        raise ValueError(f"{name} cannot be decoded ({error}): replace or remove it") from error


def from_pillow(image: Image.Image, channels: int) -> Tensor:
    """A Pillow image as c h w, uint8."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a palette's transparency is dropped in one go
    pixels = torch.from_numpy(np.array(image.convert(PILLOW_MODES[channels])))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()
