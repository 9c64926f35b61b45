"""Streams, which are read from their beginning: Hugging Face streams and webdataset tars."""

import logging
import os
import re
import tarfile
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm.data
import torch
from torch import Tensor

from semconv.configuration import one_line
from semconv.data.decoding import from_pillow, is_deep, open_upright
from semconv.data.errors import SourceMissing
from semconv.data.images import Images, checked_label, encoded_bytes
from semconv.files import user_path

SHELL = re.compile(r"""['"`$;&<>\\\n]""")
IMAGE_KEYS = ("jpg", "jpeg", "png", "webp")


class StreamImages(Images):
    """A stream, read by position. Successive requests stay in a block or go to the next; an earlier position restarts the stream.

    Encoded images from the current block on are held in memory, so that requests within a block may have any order: all of them,
    or those that are expected. Any number of readers, each with a share of the batches, hold no more than one does.

    Args:
        start: starts the stream, which yields an image, see `encoded_bytes`, and its label (-1 if unlabelled).
        num_images: number of images.
        channels: 1 or 3.
        class_names: in the order of the labels; None if unknown.
        block: number of neighbouring images that are shuffled together, and held in memory.

    Raises:
        ValueError: num_images is None.
    """

    def __init__(
        self,
        start: Callable[[], Iterator[tuple[Any, int]]],
        num_images: int | None,
        channels: int,
        class_names: Sequence[str] | None = None,
        block: int = 4096,
    ) -> None:
        if num_images is None:
            raise ValueError("the length of the stream is unknown: give num_images (and num_test_images)")
        self.start = start
        self.num_images = num_images
        self.channels = channels
        self.stream_block = block
        if class_names is not None:
            self.class_names = tuple(class_names)
            self.num_classes = len(class_names)
        self.expected: set[int] | None = None
        self.held: dict[int, tuple[Any, int]] = {}
        self.position = 0
        self.stream: Iterator[tuple[Any, int]] | None = None  # opened by the process that reads, a worker

    @property
    def block(self) -> int:
        return self.stream_block

    def name(self, position: int) -> str:
        return f"image {position} of the stream"

    def expect(self, ahead: Tensor | None) -> None:
        # what lies in one block is kept for all epochs
        self.expected = None if ahead is None or self.num_images <= self.block else set(ahead.tolist())

    def __copy__(self) -> "StreamImages":
        copied: StreamImages = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        copied._restart()  # two readers cannot share a stream
        return copied

    def read(self, index: Tensor) -> tuple[list[Tensor], Tensor]:
        """Read on, or from the beginning, until all images are there; otherwise as `Images.read`.

        Raises:
            ValueError: the stream ends before `num_images`, an image has more than 8 bits and `values` is None, or a label is too
            large.
        """
        positions = index.tolist()
        missing = [i for i in positions if i not in self.held]
        if missing and min(missing) < self.position:
            self._restart()
        oldest = min(positions) // self.block * self.block
        needed = range(oldest, self.num_images) if self.expected is None else self.expected.union(positions)
        self.held = {i: sample for i, sample in self.held.items() if i in needed}
        while self.position <= max(positions):
            self._read_on(needed)
        samples = [self.held[i] for i in positions]
        pixels = [self._decode(image, self.name(i)) for i, (image, _) in zip(positions, samples, strict=True)]
        labels = [checked_label(label, self.name(i)) for i, (_, label) in zip(positions, samples, strict=True)]
        return pixels, torch.tensor(labels)

    def _decode(self, image: Any, name: str) -> Tensor:
        opened = open_upright(encoded_bytes(image, name), name, self.max_pixels)
        if self.values is None and is_deep(opened):
            raise ValueError(f"{name} has more than 8 bits: state by --data.range which values become black and white")
        return from_pillow(opened, self.channels, name, self.values)

    def _restart(self) -> None:
        self.held, self.position, self.stream = {}, 0, None

    def _read_on(self, needed: Container[int]) -> None:
        self.stream = self.stream or iter(self.start())
        try:
            sample = next(self.stream)
        except StopIteration:
            raise ValueError(
                f"the stream ended after {self.position} images where {self.num_images} were announced: "
                f"restore what is missing, or give num_images (or num_test_images) {self.position}"
            ) from None
        if self.position in needed:
            self.held[self.position] = sample
        self.position += 1


def open_webdataset(folder: str, split: str, channels: int, num_images: int | None) -> StreamImages:
    """A split of tars. See `ImageData` for the arguments.

    Raises:
        ValueError: the folder, the split, a tar or the length is missing, or `webdataset` is not installed.
    """
    if "://" not in folder:
        folder = str(user_path(folder))
    for text in (folder, split):
        _refuse_shell(text)
    if "://" not in folder and not Path(folder).is_dir():
        raise SourceMissing(f"there is no folder {folder}: correct the path or download the data")
    logging.getLogger("timm.data.readers.reader_wds").setLevel(logging.ERROR)  # its warning shows the login of an address
    try:
        reader = timm.data.create_dataset("wds/", root=folder, split=split).reader
    except Exception as error:  # timm raises RuntimeError, webdataset any exception
        remedy = "pip install webdataset, or name the tars as the split, such as train-{0000..0009}.tar|10000"
        raise ValueError(f"{folder} cannot be loaded: {one_line(error)}; {remedy}") from error
    if reader.num_samples < 0:
        raise ValueError(f"{split} announces {reader.num_samples} images: give the number behind | as 1 or more, or leave it out")
    urls = [os.path.join(folder, name) for name in reader.split_info.filenames]
    images = StreamImages(partial(_iterate_tars, urls), num_images or reader.num_samples or None, channels)
    for url in urls:
        if "://" not in url and not os.path.exists(url):
            raise ValueError(f"there is no file {url}: restore it, or name other tars as the split")
    return images


def _refuse_shell(text: str) -> None:
    """Refuse an address that webdataset would hand to a shell, unless $SEMCONV_ALLOW_PIPE is set.

    A configuration may be somebody else's, so that the permission cannot be part of it.
    """
    address = text.partition("|")[0] if "pipe:" not in text else text  # timm's number of images follows the tars
    if ("pipe:" in address or SHELL.search(address)) and not os.environ.get("SEMCONV_ALLOW_PIPE"):
        raise ValueError(f"{text!r} runs a command of the shell: read it, and set SEMCONV_ALLOW_PIPE=1 if you trust it")


def _iterate_tars(urls: list[str]) -> Iterator[tuple[bytes, int]]:
    for url in urls:
        _refuse_shell(url)
        for sample in _samples_of(url):
            yield _image_of(sample), _class_of(sample, url)


def _samples_of(url: str) -> Iterator[dict[str, Any]]:
    import webdataset
    from webdataset.tariterators import group_by_keys, tar_file_expander

    try:
        if "://" not in url and _is_cut(url):
            raise tarfile.TarError("its end is missing")
        with webdataset.gopen(url) as file:
            yield from group_by_keys(tar_file_expander([{"url": url, "stream": file}]))
    except (OSError, ValueError, EOFError, tarfile.TarError) as error:
        # webdataset adds its own objects to the message
        reason = getattr(error, "strerror", None) or str(error.args[0]).partition(" @ ")[0]
        raise ValueError(f"the tar {url} cannot be read ({reason}): restore it, or leave it out of the split") from error


def _is_cut(path: str) -> bool:
    """True for an uncompressed tar without the block of zeros that ends it, which would be read without an error if it was cut
    between two of its files."""
    with open(path, "rb") as file:
        if file.read(tarfile.BLOCKSIZE)[257:262] != b"ustar":
            return False
        file.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
        return any(file.read())


def _class_of(sample: dict[str, Any], url: str) -> int:
    found = sample.get("cls", -1)
    try:
        return int(found)
    except ValueError:
        raise ValueError(
            f"sample {sample['__key__']} of {url} has the class {found.decode(errors='replace')!r}: save its number in the .cls"
        ) from None


def _image_of(sample: dict[str, Any]) -> bytes:
    for key in IMAGE_KEYS:
        if key in sample:
            return sample[key]
    raise ValueError(f"sample {sample['__key__']} has no image: name its file .{', .'.join(IMAGE_KEYS)}")
