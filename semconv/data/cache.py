"""A cache of small data sets, decoded once.

Each cached split has its own folder, `<source>-<split>-<hash>`, where the hash is of all that the pixels depend on: `pixels.bin`
(all images, c h w, one after another), `sides.npy`, `labels.npy`, and `about.json` with checksums. The folder is written
atomically, so that it is complete or absent: if two runs build it at once, one uses the other's. A changed data set has another
hash; its old folder is removed.
"""

import hashlib
import io
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from semconv.data.errors import BadImage
from semconv.data.images import FileImages, Images
from semconv.files import mark, remove_remains, temporary

VERSION = 2  # of what pixels depend on: 2 turns images as their EXIF orientation says
CHUNK = 256  # images that a thread decodes at a time
NUM_TRIED = 32  # images that are decoded to estimate the size of all


class CachedImages(Images):
    """Images of a cache folder that `build` has written.

    Args:
        folder: the cache folder of the split.
        images: the source that was cached.
    """

    is_fast = True

    def __init__(self, folder: Path, images: Images) -> None:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        self.source = images
        self.num_images, self.class_names, self.num_classes = images.num_images, images.class_names, images.num_classes
        self.sides = np.load(folder / "sides.npy")
        self.labels = torch.from_numpy(np.load(folder / "labels.npy"))
        self.bad: dict[int, str] = {int(place): reason for place, reason in about["bad"].items()}
        self.num_channels: int = about["channels"]
        self.pixels = np.memmap(folder / "pixels.bin", np.uint8, "r")
        lengths = self.sides.astype(np.int64).prod(-1) * self.num_channels
        self.ends = lengths.cumsum()
        self.folder, self.sums = folder, about["sums"]
        self.unverified = set(range(len(self.sums["pixels"])))  # blocks
        if len(self.labels) != self.num_images or self.ends[-1] != len(self.pixels):
            raise ValueError("the cache is incomplete")
        if any(zlib.crc32((folder / f"{name}.npy").read_bytes()) != self.sums[name] for name in ("sides", "labels")):
            raise ValueError("the cache is damaged")
        shapes = np.unique(self.sides, axis=0)
        if len(shapes) == 1:  # then one look-up reads a batch
            self.stacked = self.pixels.reshape(self.num_images, self.num_channels, *shapes[0].tolist())

    def name(self, position: int) -> str:
        return self.source.name(position)

    def read(self, index: Tensor) -> tuple[Tensor | list[Tensor], Tensor]:
        positions = index.tolist()
        if self.unverified:
            self._verify({position // CHUNK for position in positions} & self.unverified)
        for position in positions if self.bad else []:
            if position in self.bad:
                raise BadImage(self.bad[position])
        if hasattr(self, "stacked"):
            return torch.from_numpy(self.stacked[index.numpy()]), self.labels[index]
        return [self._image(position) for position in positions], self.labels[index]

    def _verify(self, blocks: set[int]) -> None:
        """Compare blocks of pixels with their checksums, each once in a process."""
        for block in blocks:
            first, last = block * CHUNK, min((block + 1) * CHUNK, self.num_images) - 1
            start, end = int(self.ends[first - 1]) if first else 0, int(self.ends[last])
            if zlib.crc32(self.pixels[start:end].data) != self.sums["pixels"][block]:
                raise ValueError(f"the decoded images in {self.folder} are damaged: delete this folder, and they are decoded again")
            self.unverified.discard(block)

    def _image(self, position: int) -> Tensor:
        height, width = self.sides[position].tolist()
        end = int(self.ends[position])
        pixels = np.array(self.pixels[end - height * width * self.num_channels : end])
        return torch.from_numpy(pixels).view(self.num_channels, height, width)


def cached(images: Images, folder: Path, limit: int, source: Mapping[str, Any], skip: bool) -> Images:
    """Read images from the cache, and build it if needed; uncached images if they are too many, or the disk has no room.

    Args:
        images: the images of a split.
        folder: the folder of all cached splits.
        limit: bytes of pixels above which a split is not cached.
        source: name, split and all else that the pixels depend on.
        skip: note unreadable images and leave them out; otherwise the first one stops the building.

    Raises:
        BadImage: an image cannot be read.
    """
    kind = "".join(letter if letter.isalnum() else "-" for letter in f"{source['name']}-{source['split']}")[-60:].strip("-")
    stem = f"{kind}-{_digest({'version': VERSION, **source})}"
    is_new = next(folder.glob(f"{stem}-*"), None) is None
    if is_new and isinstance(images, FileImages) and _estimate(images) > limit:
        return images  # before the fingerprint asks for the state of every file
    fingerprint = images.fingerprint
    if fingerprint is None:
        return images
    place = folder / f"{stem}-{_digest(fingerprint)}"
    found = _open(place, images)
    if found is not None:
        return found
    if _estimate(images) > limit:
        return images
    try:
        build(images, place, kind, skip)
        for other in folder.glob(f"{stem}-*"):
            if other != place:
                shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        print(
            f"{folder} cannot hold the decoded images ({error.strerror}): each image is decoded when it is needed", file=sys.stderr
        )
        return images
    return _open(place, images) or images


def build(images: Images, place: Path, title: str, skip: bool) -> None:
    """Decode all images into a folder, which appears when it is complete."""
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_remains(place.parent)
    aside = temporary(place)
    aside.mkdir()
    descriptor = os.open(aside, os.O_RDONLY)
    mark(descriptor)
    try:
        sides, labels, bad = [], [], {}
        channels = 0
        sums: dict[str, Any] = {"pixels": []}
        with open(aside / "pixels.bin", "wb") as file:
            for part in track(
                _parts(images, skip), title, -(-images.num_images // CHUNK), console=Console(file=sys.stderr), transient=True
            ):
                total = 0
                for pixels in part.images:
                    channels = len(pixels) or channels
                    content = pixels.contiguous().numpy().tobytes()
                    total = zlib.crc32(content, total)
                    file.write(content)
                sums["pixels"].append(total)
                sides += [pixels.shape[1:] for pixels in part.images]
                labels += part.labels
                bad.update(part.bad)
            _settle(file)
        for name, values in (("sides", np.array(sides, np.int32)), ("labels", np.array(labels, np.int64))):
            with open(aside / f"{name}.npy", "wb") as file:
                array = io.BytesIO()
                np.save(array, values)  # to a file on disk it would hide the reason of a failure
                file.write(array.getvalue())
                _settle(file)
            sums[name] = zlib.crc32(array.getvalue())
        with open(aside / "about.json", "w", encoding="utf-8") as text:
            json.dump({"channels": channels, "bad": bad, "sums": sums}, text)
            _settle(text)
        if _open(place, images):  # another run was faster
            return
        shutil.rmtree(place, ignore_errors=True)  # a damaged one, or one without images that can be read now
        try:
            aside.rename(place)
        except OSError:
            if not _open(place, images):
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(descriptor)


class _Part(NamedTuple):
    """Images in their order; a bad one has no pixels."""

    images: list[Tensor]
    labels: list[int]
    bad: dict[int, str]


def _parts(images: Images, skip: bool) -> Iterator[_Part]:
    """Decode all images in one thread per core; a few parts are held in memory at a time."""
    chunks = torch.arange(images.num_images).split(CHUNK)
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(chunks), threads):
            yield from pool.map(lambda chunk: _decode(images, chunk, skip), chunks[first : first + threads])


def _decode(images: Images, chunk: Tensor, skip: bool) -> _Part:
    try:
        pixels, labels = images.read(chunk)
        return _Part(list(pixels), labels.tolist(), {})
    except BadImage:
        if not skip:
            raise
    part = _Part([], [], {})
    for one in chunk.split(1):
        try:
            pixels, labels = images.read(one)
            part.images.append(pixels[0])
            part.labels.append(int(labels))
        except BadImage as error:
            part.images.append(torch.zeros(0, 0, 0, dtype=torch.uint8))
            part.labels.append(-1)
            part.bad[int(one)] = str(error)
    return part


def _estimate(images: Images) -> float:
    """Estimate the bytes of all decoded images from a few of them."""
    tried = torch.linspace(0, images.num_images - 1, min(NUM_TRIED, images.num_images)).long()
    sizes = [pixels.numel() for one in tried.split(1) for pixels in _decode(images, one, skip=True).images]
    return sum(sizes) / len(sizes) * images.num_images


def _open(place: Path, images: Images) -> CachedImages | None:
    """Open a cache; None if it is absent or incomplete, or lacks an image that can be read by now, such as again from a network."""
    try:
        found = CachedImages(place, images)
    except (OSError, ValueError, KeyError, IndexError, EOFError):
        return None
    return found if all(_decode(images, torch.tensor([position]), skip=True).bad for position in found.bad) else None


def _settle(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
