"""Sources: from a name and a split to images."""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import timm.data
import torch
from torchvision.transforms.v2 import functional as transforms

from semconv.configuration import one_line
from semconv.data.errors import SourceMissing
from semconv.data.folders import open_folder
from semconv.data.hub import open_hub, open_hub_stream
from semconv.data.images import ArrayImages, Images, MemoryImages, TorchvisionImages, checked_label
from semconv.data.motifs import CLASS_NAMES
from semconv.data.scenes import World, channel_moments, draw_scenes
from semconv.data.streams import open_webdataset
from semconv.files import user_path

SCENES_SEED = 0  # of the data set, independent of the run's seed
FIRST_TEST_SCENE = 2**32  # beyond any train set, so that the test set does not depend on the number of training images
SCHEMES = ("scenes", "torch", "npy", "hfds", "hfids", "wds")  # first parts of names; of all others, a folder's
NUM_SCENES = {"train": 4096, "test": 1024}
IMAGENET_MOMENTS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = (0.299, 0.587, 0.114)  # ITU-R 601-2, as Pillow and torchvision
# timm treats any split other than train as the test split
TORCHVISION_SPLITS = dict.fromkeys(("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist"), ("train", "test"))

Moments = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Source:
    """A source of images. See `ImageData` for the fields."""

    name: str
    size: tuple[int, int]
    channels: int
    root: str
    image_column: str | None = None
    label_column: str | None = None
    download: bool = False
    splits: tuple[str, ...] = ("train", "test")  # that for training first
    skip: bool = False
    test_fraction: float | None = None
    labelled: bool = True

    def open(self, split: str, num_images: int | None = None) -> Images:
        """Open the images of a split.

        Raises:
            SourceMissing: the data are missing.
            ValueError: the data exist, but not the split or any image in it, or an option does not fit them.
        """
        prefix, _, rest = self.name.partition("/")
        if self.channels not in (1, 3) and prefix != "npy":
            raise ValueError(
                f"channels is {self.channels}: {self.name} has 1 (grey) or 3 (RGB); arrays of npy/FOLDER have any number"
            )
        if prefix in SCHEMES and (self.test_fraction is not None or not self.labelled):
            option = "labels is none" if self.test_fraction is None else f"test_fraction is {self.test_fraction}"
            raise ValueError(f"{option}, and {self.name} is no folder of images: leave it out")
        images = self._open(prefix, rest, split, num_images)
        if not images.num_images:
            raise ValueError(f"split {split!r} of {self.name} holds no images: add some, or choose another split")
        return images

    def _open(self, prefix: str, rest: str, split: str, num_images: int | None) -> Images:
        columns = (self.channels, self.image_column, self.label_column)
        match prefix:
            case "scenes":
                return open_scenes(self.world, split, self.size, self.channels, num_images)
            case "torch":
                return open_torchvision(rest, self.root, split, self.channels, self.download)
            case "npy":
                return open_arrays(rest, split, self.channels)
            case "hfds":
                return open_hub(rest, split, *columns)
            case "hfids":
                return open_hub_stream(rest, split, *columns, num_images)
            case "wds":
                return open_webdataset(rest, split, self.channels, num_images)
        return open_folder(self.name, split, self.channels, self.splits, self.skip, self.test_fraction, self.labelled)

    def refuse_unused(self, lengths: Mapping[str, int | None]) -> None:
        """Refuse options that leave the images as they are, because the protocol of a run would name them.

        Args:
            lengths: `num_images` and `num_test_images`.

        Raises:
            ValueError: there is one.
        """
        prefix = self.name.partition("/")[0]
        columns = {"image_column": self.image_column, "label_column": self.label_column}
        for options, users, reason in (
            (columns, ("hfds", "hfids"), "has no columns"),
            (lengths, ("scenes", "hfids", "wds"), "has its own length"),
        ):
            for name, value in options.items():
                if value is not None and prefix not in users:
                    raise ValueError(f"{name} is {value}, and {self.name} {reason}: leave it out")

    @property
    def world(self) -> World:
        """The kind of scenes: the part after the slash, or `scenes`."""
        return self.name.partition("/")[2] or "scenes"  # type: ignore[return-value]  # draw_scenes checks it

    @property
    def moments(self) -> Moments:
        """Channel mean and standard deviation (0 to 1) for normalisation: the scenes' own; for other sources ImageNet's."""
        mean, std = channel_moments(self.world) if self.name.partition("/")[0] == "scenes" else IMAGENET_MOMENTS
        if self.channels == 3:
            return mean, std
        # channels are strongly correlated, so that their deviations add up as their means do
        return _grey(mean), _grey(std)


def open_first(sources: Sequence[Source], split: str, num_images: int | None) -> tuple[Source, Images]:
    """Open the first source that exists.

    Raises:
        ValueError: no source exists, or the first existing one has no such split.
    """
    reasons = []
    for source in sources:
        try:
            return source, source.open(split, num_images)
        except SourceMissing as error:
            reasons.append(str(error))
    raise ValueError("; ".join(reasons))


def open_scenes(world: World, split: str, size: tuple[int, int], channels: int, num_images: int | None) -> MemoryImages:
    """Draw scenes into memory.

    Raises:
        ValueError: the split is neither train nor test.
    """
    if split not in NUM_SCENES:
        raise ValueError(f"scenes have no split {split!r}: choose among train, test")
    first = FIRST_TEST_SCENE if split == "test" else 0
    index = torch.arange(first, first + (num_images or NUM_SCENES[split]))
    images, labels, _ = draw_scenes(SCENES_SEED, index, size, world)
    if channels == 1:
        images = transforms.rgb_to_grayscale(images)
    return MemoryImages(images, labels, CLASS_NAMES, partial(_scene_maps, first, size, world))


def _scene_maps(first: int, size: tuple[int, int], world: World, index: torch.Tensor) -> torch.Tensor:
    return draw_scenes(SCENES_SEED, first + index, size, world).class_maps


def open_arrays(folder: str, split: str, channels: int) -> ArrayImages:
    """The images of `folder/split.npy`, with the labels of `folder/split_labels.npy` if it exists. See `ArrayImages`.

    Raises:
        ValueError: the folder or the split is missing, or the array does not fit.
    """
    path = user_path(folder) / f"{split}.npy"
    if not path.is_file():
        there = sorted(other.stem for other in path.parent.glob("*.npy") if not other.stem.endswith("_labels"))
        if not there:
            raise SourceMissing(f"there is no {path}: save one array per split")
        raise ValueError(f"{folder} has no split {split!r}: choose among {', '.join(there)}")
    images = _load_array(path)
    labels = _load_labels(path.with_name(f"{split}_labels.npy"), images.shape)
    try:
        return ArrayImages(images, labels, channels, str(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _load_array(path: Path) -> np.ndarray:
    """The array of a file, of which only what is read is loaded.

    Raises:
        ValueError: the file cannot be read, or is an archive of arrays.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy raises almost any for a damaged file
        raise ValueError(f"{path} cannot be read ({one_line(error)}): save one array by numpy.save") from error


def _load_labels(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The labels of a file for images of a shape, int64; None if there is no file.

    Raises:
        ValueError: the file cannot be read, or holds anything but one number of a class for each image.
    """
    if not path.is_file():
        return None
    labels = _load_array(path)
    if labels.shape != shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(f"{path}: labels are {labels.dtype} {labels.shape} for images {shape}: save one integer per image")
    checked_label(int(labels.max(initial=0)), str(path))
    return labels.astype(np.int64)


def open_torchvision(name: str, root: str, split: str, channels: int, download: bool) -> TorchvisionImages:
    """A torchvision data set, by timm's name for it.

    Raises:
        ValueError: it is unknown, is not downloaded, or has no such split.
    """
    splits = TORCHVISION_SPLITS.get(name, (split,))
    if split not in splits:
        raise ValueError(f"torch/{name} has no split {split!r}: choose among {', '.join(splits)}")
    try:
        with _alone(user_path(root)) if download else nullcontext():
            dataset = timm.data.create_dataset(f"torch/{name}", root=root, split=split, download=download)
    except (RuntimeError, OSError) as error:
        raise SourceMissing(f"torch/{name} is not in {root} ({one_line(error)}): set download or root") from error
    except (AssertionError, ValueError) as error:
        raise ValueError(f"torch/{name}: {one_line(error)}") from error
    return TorchvisionImages(dataset, channels)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Wait for other processes that download into a folder: they would write the same files."""
    with ExitStack() as held:
        with suppress(OSError):  # a folder that cannot be made, or a file system without locks
            root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(root, os.O_RDONLY)
            held.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _grey(values: Sequence[float]) -> tuple[float, ...]:
    return (round(sum(weight * value for weight, value in zip(GREY, values, strict=True)), 4),)
