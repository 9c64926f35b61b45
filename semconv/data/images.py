"""Collections of images that are read by index."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from semconv.data.decoding import decode, from_pillow

Channels = Literal[1, 3]


class Images(ABC):
    """Images and labels by index, 0 to `num_images` - 1."""

    num_images: int
    class_names: tuple[str, ...] | None = None
    num_classes: int | None = None  # None where unlabelled or unknown

    @property
    def block(self) -> int:
        """How many neighbours may change places when shuffled: all, where access is random."""
        return self.num_images

    @abstractmethod
    def read(self, index: Tensor) -> tuple[Tensor | Sequence[Tensor], Tensor]:
        """The images (each c h w, uint8; a stacked tensor where sizes agree) and labels (b, int64, -1 unlabelled)."""


class MemoryImages(Images):
    """Images held as one tensor.

    Args:
        images: n c h w, uint8.
        labels: n, int64.
        class_names: in the order of the labels.
    """

    def __init__(self, images: Tensor, labels: Tensor, class_names: Sequence[str]) -> None:
        self.images = images
        self.labels = labels
        self.num_images = len(images)
        self.class_names = tuple(class_names)
        self.num_classes = len(class_names)

    def read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]


class FileImages(Images):
    """Image files on disk.

    Args:
        samples: path and label of each.
        class_names: in the order of the labels; None where there are none.
        channels: 1 or 3.
    """

    def __init__(self, samples: Sequence[tuple[str, int]], class_names: Sequence[str] | None, channels: Channels) -> None:
        self.samples = samples
        self.channels = channels
        self.num_images = len(samples)
        if class_names is not None:
            self.class_names = tuple(class_names)
            self.num_classes = len(class_names)

    def read(self, index: Tensor) -> tuple[list[Tensor], Tensor]:
        samples = [self.samples[i] for i in index.tolist()]
        pixels = [decode(Path(path).read_bytes(), self.channels, path) for path, _ in samples]
        return pixels, torch.tensor([label for _, label in samples])


class TorchvisionImages(Images):
    """A data set of torchvision.

    Args:
        dataset: yields a Pillow image and a label.
        channels: 1 or 3.
    """

    def __init__(self, dataset: Any, channels: Channels) -> None:
        self.dataset = dataset
        self.channels = channels
        self.num_images = len(dataset)
        if hasattr(dataset, "classes"):
            self.class_names = tuple(str(name) for name in dataset.classes)
            self.num_classes = len(self.class_names)

    def read(self, index: Tensor) -> tuple[list[Tensor], Tensor]:
        images, labels = zip(*(self.dataset[i] for i in index.tolist()), strict=True)
        return [from_pillow(image, self.channels) for image in images], torch.tensor(labels)


class HubImages(Images):
    """A table of Hugging Face `datasets`.

    Args:
        table: random access, its image column not decoded.
        image_column: holds bytes or a path.
        label_column: integers; None where unlabelled.
        channels: 1 or 3.
    """

    def __init__(self, table: Any, image_column: str, label_column: str | None, channels: Channels) -> None:
        self.table = table
        self.image_column = image_column
        self.label_column = label_column
        self.channels = channels
        self.num_images = len(table)
        if label_column is not None:
            self.class_names, self.num_classes = _classes(table, label_column)

    def read(self, index: Tensor) -> tuple[list[Tensor], Tensor]:
        positions = index.tolist()
        rows = self.table[positions]  # one look-up for the batch
        pixels = [
            decode(encoded_bytes(image), self.channels, f"image {i} of the table")
            for i, image in zip(positions, rows[self.image_column], strict=True)
        ]
        if self.label_column is None:
            return pixels, torch.full_like(index, -1)
        return pixels, torch.tensor([-1 if label is None else label for label in rows[self.label_column]])


def encoded_bytes(image: dict[str, Any]) -> bytes:
    """The file's content of an undecoded image of `datasets`."""
    return image["bytes"] or Path(image["path"]).read_bytes()


def _classes(table: Any, label_column: str) -> tuple[tuple[str, ...] | None, int]:
    names = getattr(table.features[label_column], "names", None)
    if names is not None:
        return tuple(names), len(names)
    return None, 1 + max(label for label in table[label_column] if label is not None)
