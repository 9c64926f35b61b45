"""Collections of images that are read by index."""

import hashlib
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semconv.data.decoding import FULL, MAX_PIXELS, REMEDY, Range, decode, from_pillow, is_deep, open_image, to_eight_bits
from semconv.data.errors import BadImage

MAX_CLASSES = 2**20  # probes hold weights for every class up to the largest label


class Images(ABC):
    """Images and labels by index, 0 to `num_images` - 1."""

    num_images: int
    class_names: tuple[str, ...] | None = None
    num_classes: int | None = None  # None if unlabelled or unknown

    values: Range | None = None  # of images of more than 8 bits; None: the whole range of their type
    max_pixels = MAX_PIXELS  # of an image
    may_be_deep = False  # of more than 8 bits, which `stored` shows before training
    is_fast = False  # whether the time of reading is negligible

    @property
    def block(self) -> int:
        """The number of neighbouring images that are shuffled together: all, if any image can be read at any time."""
        return self.num_images

    @property
    def fingerprint(self) -> str | None:
        """A hash that changes if the images do; None if they are in memory already, or are a stream."""
        return None

    def name(self, position: int) -> str:
        """The name of an image in messages."""
        return f"image {position}"

    def stored(self, position: int) -> np.ndarray | None:
        """An image as it is stored, of any type; None where it has 8 bits, or cannot be read."""
        return None

    def _stored(self, read: Callable[[], bytes]) -> np.ndarray | None:
        try:
            image = open_image(read(), "", self.max_pixels)
            return np.asarray(image) if is_deep(image) else None
        except Exception:  # Pillow raises almost any
            return None  # it is named where it is read

    def label_maps(self, index: Tensor) -> Tensor | None:
        """The class of every pixel of the views of evaluation, uint8 `b h w`; None if unknown."""
        return None

    def expect(self, ahead: Tensor | None) -> None:  # noqa: B027
        """Learn which images will be asked for next, so that a stream holds no others; None: any."""

    @abstractmethod
    def read(self, index: Tensor) -> tuple[Tensor | Sequence[Tensor], Tensor]:
        """Read images (each c h w, uint8; a stacked tensor if sizes agree) and labels (b, int64, -1 if unlabelled).

        Raises:
            BadImage: an image cannot be read.
        """


class MemoryImages(Images):
    """Images held as one tensor.

    Args:
        images: n c h w, uint8.
        labels: n, int64.
        class_names: in the order of the labels.
        draw_maps: from indices to label maps (b h w, uint8).
    """

    is_fast = True

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        class_names: Sequence[str],
        draw_maps: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.draw_maps = draw_maps
        self.images = images
        self.labels = labels
        self.num_images = len(images)
        self.class_names = tuple(class_names)
        self.num_classes = len(class_names)

    def label_maps(self, index: Tensor) -> Tensor | None:
        return self.draw_maps(index) if self.draw_maps else None

    def read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]


class Samples:
    """Path and label of each image, packed: as objects, a million of them would fill every worker that looks at them.

    Args:
        samples: path and label of each image.
    """

    def __init__(self, samples: Iterable[tuple[str, int]]) -> None:
        self.paths, self.ends, self.labels = bytearray(), array("q", [0]), array("q")
        for path, label in samples:
            self.paths += os.fsencode(path)
            self.ends.append(len(self.paths))
            self.labels.append(label)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[str, int]:
        path = bytes(self.paths[self.ends[position] : self.ends[position + 1]])
        return os.fsdecode(path), self.labels[position]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return (self[position] for position in range(len(self)))


class FileImages(Images):
    """Image files on disk.

    Args:
        samples: path and label of each image.
        class_names: in the order of the labels; None if unlabelled.
        channels: 1 or 3.
    """

    may_be_deep = True

    def __init__(self, samples: Iterable[tuple[str, int]], class_names: Sequence[str] | None, channels: int) -> None:
        self.samples = Samples(samples)
        self.channels = channels
        self.num_images = len(self.samples)
        if class_names is not None:
            self.class_names = tuple(class_names)
            self.num_classes = len(class_names)

    @property
    def fingerprint(self) -> str:
        return fingerprint_files((path for path, _ in self.samples), self.samples.labels)

    def name(self, position: int) -> str:
        return printable(self.samples[position][0])

    def stored(self, position: int) -> np.ndarray | None:
        return self._stored(lambda: read_file(self.samples[position][0]))

    def read(self, index: Tensor) -> tuple[list[Tensor], Tensor]:
        samples = [self.samples[i] for i in index.tolist()]
        pixels = [decode(read_file(path), self.channels, printable(path), self.values, self.max_pixels) for path, _ in samples]
        return pixels, torch.tensor([label for _, label in samples])


class TorchvisionImages(Images):
    """A torchvision data set.

    Args:
        dataset: the data set, of pairs of a Pillow image and a label.
        channels: 1 or 3.
    """

    def __init__(self, dataset: Any, channels: int) -> None:
        self.dataset = dataset
        self.channels = channels
        self.num_images = len(dataset)
        if hasattr(dataset, "classes"):
            self.class_names = tuple(str(name) for name in dataset.classes)
            self.num_classes = len(self.class_names)

    @property
    def fingerprint(self) -> str | None:
        root = Path(self.dataset.root)
        return fingerprint_files([str(path) for path in sorted(root.rglob("*")) if path.is_file()], [self.num_images])

    def read(self, index: Tensor) -> tuple[list[Tensor], Tensor]:
        images, labels = zip(*(self.dataset[i] for i in index.tolist()), strict=True)
        named = zip(map(self.name, index.tolist()), images, strict=True)
        return [from_pillow(image, self.channels, name) for name, image in named], torch.tensor(labels)


class HubImages(Images):
    """A Hugging Face `datasets` table.

    Args:
        table: the table, its image column not decoded.
        image_column: column of bytes or paths.
        label_column: column of integers; None if unlabelled.
        channels: 1 or 3.

    Raises:
        ValueError: a label is too large for the number of a class.
    """

    may_be_deep = True

    def __init__(self, table: Any, image_column: str, label_column: str | None, channels: int) -> None:
        self.table = table
        self.image_column = image_column
        self.label_column = label_column
        self.channels = channels
        self.num_images = len(table)
        if label_column is not None:
            self.class_names, self.num_classes = _classes(table, label_column)

    @property
    def fingerprint(self) -> str | None:
        return getattr(self.table, "_fingerprint", None)

    def name(self, position: int) -> str:
        return f"image {position} of the table"

    def stored(self, position: int) -> np.ndarray | None:
        return self._stored(lambda: encoded_bytes(self.table[position][self.image_column], self.name(position)))

    def read(self, index: Tensor) -> tuple[list[Tensor], Tensor]:
        positions = index.tolist()
        rows = self.table[positions]  # one look-up for the batch
        pixels = [
            decode(encoded_bytes(image, self.name(i)), self.channels, self.name(i), self.values, self.max_pixels)
            for i, image in zip(positions, rows[self.image_column], strict=True)
        ]
        if self.label_column is None:
            return pixels, torch.full_like(index, -1)
        return pixels, torch.tensor([-1 if label is None else label for label in rows[self.label_column]])


class ArrayImages(Images):
    """Images of any number of channels in a NumPy file, of which only the images that are read are loaded.

    Args:
        images: n h w c, n c h w or (for one channel) n h w; uint8, uint16 or floats.
        labels: n, int64; None if unlabelled.
        channels: number of channels.
        file: the file's name.

    Raises:
        ValueError: the array of images has another shape or type.
    """

    may_be_deep = True
    is_fast = True

    def __init__(self, images: np.ndarray, labels: np.ndarray | None, channels: int, file: str) -> None:
        if images.dtype not in (np.uint8, np.uint16, np.float16, np.float32, np.float64):
            raise ValueError(f"the array holds {images.dtype}: save it as uint8, uint16 or floats")
        if images.ndim == 3 and channels == 1:
            images = images[..., None]
        if images.ndim != 4 or channels not in (images.shape[1], images.shape[3]):
            raise ValueError(
                f"the array is {images.shape}: for {channels} channels, save it as n h w {channels} or n {channels} h w"
            )
        self.images = images if images.shape[1] == channels else images.transpose(0, 3, 1, 2)
        self.labels, self.num_images, self.file = labels, len(images), file
        self.num_classes = _count_classes([] if labels is None else labels.tolist())

    def name(self, position: int) -> str:
        return f"{self.file}[{position}]"

    def stored(self, position: int) -> np.ndarray:
        return np.asarray(self.images[position])

    def read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        pixels = np.ascontiguousarray(self.images[index.numpy()])
        if pixels.dtype != np.uint8:
            values = self.values or (0.0, FULL if pixels.dtype == np.uint16 else 1.0)
            named = zip(map(self.name, index.tolist()), pixels, strict=True)
            pixels = np.stack([to_eight_bits(image, values, name) for name, image in named])
        labels = torch.full_like(index, -1) if self.labels is None else torch.from_numpy(self.labels[index.numpy()])
        return torch.from_numpy(pixels), labels


def checked_label(label: int, where: str) -> int:
    """A label, of which any below 0 becomes -1, unlabelled.

    Args:
        label: the number of a class.
        where: subject of the message.

    Raises:
        ValueError: it is too large for the number of a class.
    """
    if label >= MAX_CLASSES:
        raise ValueError(f"{where} has the label {label}: number the classes from 0, below {MAX_CLASSES:,}")
    return max(label, -1)


def encoded_bytes(image: bytes | dict[str, Any] | None, name: str) -> bytes:
    """The file content of an image: itself, or that of an undecoded image of `datasets`.

    Raises:
        BadImage: there is none, or the file cannot be read.
    """
    content, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
    if content is None and path:
        return read_file(path)
    if not content:
        raise BadImage(f"{name} is empty", REMEDY)
    return content


def read_file(path: str) -> bytes:
    """Read a file's content.

    Raises:
        BadImage: the file cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = f"{printable(path)} cannot be read ({error.strerror})"
        raise BadImage(reason, "restore it, or set on_bad_image to skip") from error


def printable(name: str) -> str:
    """A file name as text that can be printed and saved: names need not be UTF-8."""
    return os.fsencode(name).decode(errors="replace")


def fingerprint_files(paths: Iterable[str], labels: Sequence[int]) -> str:
    """A hash that changes with the files or the labels: of names, sizes and modification times, not of contents."""
    digest = hashlib.sha256(repr(list(labels)).encode())
    for path in paths:
        digest.update(os.fsencode(path))
        try:
            state = os.stat(path)
        except OSError:  # a link to nothing
            continue
        digest.update(f" {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _classes(table: Any, label_column: str) -> tuple[tuple[str, ...] | None, int | None]:
    names = getattr(table.features[label_column], "names", None)
    if names is not None:
        return tuple(names), len(names)
    count = _count_classes(label for label in table[label_column] if label is not None)
    checked_label((count or 0) - 1, f"label column {label_column!r}")
    return None, count


def _count_classes(labels: Iterable[int]) -> int | None:
    """The number of classes up to the largest label; None if there is no label but -1."""
    return max(labels, default=-1) + 1 or None
