"""Small data sets."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from semconv.data import ImageData
from semconv.data.images import MemoryImages


def memory_images(count: int, side: int = 12, seed: int = 0) -> MemoryImages:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return MemoryImages(pixels, torch.arange(count) % 3, ("circle", "cross", "square"))


@pytest.fixture
def make_data() -> Callable[..., ImageData]:
    """ImageData over noise in memory: 23 images of 12 x 12 to train with and 11 to test."""

    def make(num_images: int = 23, num_test_images: int = 11, **arguments: Any) -> ImageData:
        options: dict[str, Any] = {"size": (8, 8), "batch_size": 4, "validation_fraction": 0.0, **arguments}
        data = ImageData("scenes", **options)
        data.opened = {"train": memory_images(num_images), "test": memory_images(num_test_images, seed=1)}
        return data

    return make
