"""The LightningDataModule of images."""

import math
import os
import sys
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from platformdirs import user_cache_path
from torch import Tensor

from semconv.configuration import require
from semconv.data.augmentation import Augmentation, augment
from semconv.data.batch import Batch, normalise
from semconv.data.cache import CachedImages, cached
from semconv.data.decoding import MAX_PIXELS, Range, guess_range
from semconv.data.folders import shown
from semconv.data.images import Images
from semconv.data.loading import BatchReader, Loader
from semconv.data.maps import MapKind, Maps, open_maps
from semconv.data.order import Ticket, Tickets, check_shares, evaluation_batches, is_held_out, train_batches
from semconv.data.sources import FIRST_TEST_SCENE, Moments, Source, open_first
from semconv.data.streams import StreamImages
from semconv.files import user_path

GUESSED_FROM = 16  # images
FEW = 100  # validation images
MOST = FIRST_TEST_SCENE  # images of a split; of more scenes, some for training would be those for the test
Part = Literal["train", "validation", "test"]


class ImageData(LightningDataModule):
    """Images for training, validation, test and prediction (of the test images).

    Order and augmentation are functions of (seed, epoch, index) only: they are equal for any number of devices and workers, and a
    resumed run continues with the batch after the last one trained. Evaluation reads in order, without augmentation: each image is
    resized until it just covers `size` (bicubic, antialiased) and its centre is cropped; each image counts once on any number of
    devices.

    Args:
        source: `scenes` (synthetic images, drawn into memory; with a known answer: `scenes/layout`, `scenes/stationary`,
            `scenes/dark`), a folder of images (with or without a folder per split and per class), `torch/NAME` (torchvision, such
            as torch/cifar10), `hfds/PATH or NAME` (Hugging Face datasets, also a local folder of Parquet), `hfids/…` (streamed),
            `wds/FOLDER` (webdataset) or `npy/FOLDER` (arrays train.npy, test.npy, train_labels.npy, …). Of a list, the first
            source that exists.
        size: height and width in pixels.
        channels: 3 (RGB) or 1 (grey), to which images are converted; any number for arrays.
        batch_size: images per batch, over all devices together.
        mean: mean per channel, on the scale of 0 to 1, for normalisation. Default: the scenes' own; for other sources ImageNet's,
            or that of the train split if there are neither 1 nor 3 channels.
        std: standard deviation per channel, with the same defaults.
        crop_scale: smallest and largest share of the area that a random resized crop keeps (aspect ratio 3/4 to 4/3). null: the
            crop of evaluation.
        flip: flip half of the training images horizontally.
        validation_fraction: share of the train split held out for validation, by a hash of the index, the same for every seed.
        train_split: split to train on. For webdataset also tars and their number of images, such as
            `train-{0000..0009}.tar|10000`.
        test_split: split to test on, such as val for folders without test.
        validation_split: split to validate on, in place of validation_fraction.
        test_fraction: share of a folder without splits that is held out for the test, by a hash of the name of each image, the same
            for every seed; images that are added later move no other. null: the folder has splits.
        labels: classes of a folder of images: its folders, or none; then labels are -1, and there are no probes of classes.
        image_column: for hfds and hfids. Default: the first column of images.
        label_column: for hfds and hfids. Default: the first column of classes, else label or labels; without any, labels are -1.
        maps: a map for each image, used by `ExternalMap` only: `source` for the class of every pixel of scenes; or a folder with
            the structure of the image folder, in which a map has the name and the size of its image; another suffix will do where
            only one map fits. Maps are cropped and flipped with the images. null: no maps.
        map_kind: content of a folder of maps: classes, 0 to 255 (8-bit grey or palette), or values (grey), on the scale of 0 to 1.
        root: folder of torch/ data.
        download: download torch/ data that are missing.
        range: values of images of more than 8 bits, or of floats, that become black and white, such as [0, 4095] for 12 bits.
            Default: guessed from some images of the train split, with a warning where it is not the whole range of their type;
            streams need it.
        max_pixels: pixels of an image file above which it is not read, as it could fill the memory. Default: Pillow's limit.
        num_images: length of the train split of scenes (default 4096), and of streams of unknown length.
        num_test_images: length of the test split of scenes (default 1024), and of streams of unknown length.
        num_workers: processes that read ahead, per device. Default: 0 for images in memory or in the cache, else the number of
            cores minus one, at most 8; for streams 1, as every process reads the whole stream and decodes its share.
        cache_folder: folder for small data sets in decoded form, which are read as fast as memory. Default: semconv in
            the user's cache folder ($XDG_CACHE_HOME or ~/.cache on Linux).
        cache_limit: bytes of decoded pixels above which a split is not cached; 0 turns the cache off.
        on_bad_image: an unreadable image stops the run, or is skipped: then its batch is smaller, all other images stay the same,
            and the summary lists it.
        seed: seed of order and augmentation.

    Raises:
        ValueError: mean or std do not fit channels, or a fraction is out of range; see `setup` for errors of the source.
    """

    def __init__(
        self,
        source: str | list[str] = "scenes",
        *,
        size: tuple[int, int] = (32, 32),
        channels: PositiveInt = 3,
        batch_size: int = 256,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        crop_scale: tuple[float, float] | None = (0.2, 1.0),
        flip: bool = True,
        validation_fraction: float = 0.05,
        train_split: str = "train",
        test_split: str = "test",
        validation_split: str | None = None,
        test_fraction: float | None = None,
        labels: Literal["folders", "none"] = "folders",
        image_column: str | None = None,
        label_column: str | None = None,
        maps: str | None = None,
        map_kind: MapKind = "classes",
        root: str = "data",
        download: bool = False,
        range: tuple[float, float] | None = None,
        max_pixels: PositiveInt = MAX_PIXELS,
        num_images: int | None = None,
        num_test_images: int | None = None,
        num_workers: int | None = None,
        cache_folder: str | None = None,
        cache_limit: int = 2 * 2**30,
        on_bad_image: Literal["stop", "skip"] = "stop",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) != channels:
                raise ValueError(f"{name} is {values} for {channels} channels: give one number per channel")
        for value in mean or ():
            require("mean", value)
        for value in std or ():
            require("std", value, 0, exclude="low")
        require("validation_fraction", validation_fraction, 0, 1, exclude="high")
        if test_fraction is not None:
            require("test_fraction", test_fraction, 0, 1, exclude="low high")
            if test_split == train_split:
                raise ValueError(f"test_split is {test_split}, as train_split: leave it out beside test_fraction")
        for name, split in (("train_split", train_split), ("test_split", test_split)):
            if validation_split == split:
                raise ValueError(f"validation_split is {split}, as {name}: give another split, or leave it out")
        if crop_scale is not None and not 0 < crop_scale[0] <= crop_scale[1] <= 1:
            raise ValueError(f"crop_scale is {list(crop_scale)}: give two rising shares above 0, of 1 at most, or null")
        for name, number, least, most in (
            *(("num_images", num_images, 1, MOST), ("num_test_images", num_test_images, 1, MOST)),
            *(("num_workers", num_workers, 0, math.inf), ("cache_limit", cache_limit, 0, math.inf), ("seed", seed, 0, math.inf)),
        ):
            if number is not None:
                require(name, number, least, most)
        self.candidates = [
            Source(
                *(name, (size[0], size[1]), channels, root, image_column, label_column, download),
                *(tuple(filter(None, (train_split, test_split, validation_split))), on_bad_image == "skip"),
                *(test_fraction, labels == "folders"),
            )
            for name in ([source] if isinstance(source, str) else source)
        ]
        self.size = (size[0], size[1])
        self.channels = channels
        self.batch_size = batch_size
        self.given_mean = mean
        self.given_std = std
        self.augmentation = Augmentation(seed, crop_scale, flip)
        self.validation_fraction = validation_fraction
        self.train_split = train_split
        self.test_split = test_split
        self.validation_split = validation_split
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: give at least 1")
        if range is not None and not range[0] < range[1]:
            raise ValueError(f"range is {list(range)}: give two rising numbers, such as [0, 4095]")
        self.given_range: Range | None = range and (float(range[0]), float(range[1]))
        self.max_pixels = max_pixels
        self.num_images = num_images
        self.num_test_images = num_test_images
        self.num_workers = num_workers
        self.cache_folder = user_path(cache_folder) if cache_folder else user_cache_path("semconv", appauthor=False)
        self.cache_limit = cache_limit
        self.skip = on_bad_image == "skip"
        self.seed = seed
        self.skipped: dict[str, list[str]] = {}  # names by split of the images that this process has left out
        self.opened: dict[str, Images] = {}
        self.listed: dict[str, Images] = {}  # not opened yet
        self.maps, self.map_kind = maps, map_kind
        self.opened_maps: dict[str, Maps] = {}
        self.chosen: Source | None = None
        self._guessed = False

    def prepare_data(self) -> None:
        """Download, once per machine."""
        if self.candidates[0].download:
            self.setup("fit")
            self.setup("test")

    def setup(self, stage: str) -> None:
        """Open the splits that a stage needs.

        Raises:
            ValueError: the source, a split, a column or a package is missing.
        """
        if stage in ("fit", "validate"):
            self.select("train")
            _, validation = self.select("validation")
            for part in ("train", "validation"):
                self._maps_of(self.select(part)[0])
            if self.trainer is not None and stage == "fit" and not len(validation):
                self.trainer.limit_val_batches = 0  # Lightning warns of an empty loader
        else:
            self._maps_of(self.select("test")[0])

    def select(self, part: Part) -> tuple[Images, Tensor]:
        """The images that a part is taken from, and the indices of the part: n, int64, ascending."""
        if part == "test":
            images = self._open(self.test_split)
        elif part == "validation" and self.validation_split:
            images = self._open(self.validation_split)
        else:
            images = self._open(self.train_split)
        index = torch.arange(images.num_images)
        if part == "test" or self.validation_split:
            return images, index
        held_out = is_held_out("validation", index, self.validation_fraction)
        return images, index[held_out if part == "validation" else ~held_out]

    def train_dataloader(self) -> Loader:
        """Shuffled and augmented batches; an incomplete last batch is dropped from the epoch.

        Raises:
            ValueError: a batch is larger than the data, or cannot be divided equally among the devices.
        """
        images, index = self.select("train")
        _, world_size = self._devices()
        if self.batch_size % world_size:
            raise ValueError(f"batch_size {self.batch_size} over {world_size} devices: give a multiple of {world_size}")
        if len(index) < self.batch_size:
            raise ValueError(f"batch_size is {self.batch_size} for {len(index)} training images: give {len(index)} or less")
        batches = partial(train_batches, index, self.seed, batch_size=self.batch_size, block=images.block)
        return Loader(
            BatchReader(copy(images), self.size, self.augmentation, self.skip, self._maps_of(images)),
            self._tickets(images, batches),
            len(index) // self.batch_size,
            self._num_workers(images),
            self._position,
            self._protocol(len(index)),
            partial(self._note_skipped, images),
        )

    def evaluation_dataloader(self, part: Part, count: int | None = None) -> Loader:
        """A part in order, without augmentation.

        Args:
            part: train, validation or test.
            count: maximal number of images, spread evenly over the part (for a stream, over its first block); None: all.

        Raises:
            ValueError: the part is empty, or a device would get no image of some batch.
        """
        images, index = self.select(part)
        if not len(index):
            raise ValueError(f"{part} has no images: give a validation_fraction above 0 or a validation_split")
        if count is not None:
            index = _spread(index, images, count)
        batches = evaluation_batches(index, self.batch_size)
        check_shares(batches, self._devices()[1])
        tickets = self._tickets(images, lambda epoch: batches)
        reader = BatchReader(copy(images), self.size, skip=self.skip, maps=self._maps_of(images))
        return Loader(reader, tickets, len(batches), self._num_workers(images), note=partial(self._note_skipped, images))

    def val_dataloader(self) -> Loader:
        return self.evaluation_dataloader("validation")

    def test_dataloader(self) -> Loader:
        return self.evaluation_dataloader("test")

    def predict_dataloader(self) -> Loader:
        return self.evaluation_dataloader("test")

    def sample(self, part: Part, count: int) -> Batch:
        """`count` images spread evenly over a part (over the first block of a stream), the same for every run; uint8, as loaded."""
        images, index = self.select(part)
        reader = BatchReader(copy(images), self.size, skip=self.skip, maps=self._maps_of(images))
        members = _spread(index, images, count)
        return reader[Ticket(0, members, ahead=members)]

    def label_maps(self, part: Part, index: Tensor) -> Tensor:
        """The class of every pixel: uint8 `b h w`, of images by their indices in the data set.

        Raises:
            ValueError: the source has no such maps.
        """
        images, _ = self.select(part)
        maps = images.label_maps(index)
        if maps is None:
            raise ValueError(f"{self._source().name} has no label maps: scenes have")
        return maps

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> Batch:
        """Crop, flip and normalise the images, on the device."""
        if not isinstance(batch, Batch):  # the example that Lightning's summary of a model sends the same way
            return batch
        batch = augment(batch, self.size)
        return batch._replace(images=normalise(batch.images, *self.moments))

    @property
    def moments(self) -> Moments:
        """Channel mean and standard deviation for normalisation, on the scale of 0 to 1."""
        if self.given_mean and self.given_std:
            return tuple(self.given_mean), tuple(self.given_std)
        known = {source.moments for source in self.candidates} if self.channels in (1, 3) else set()
        # if all sources have the same moments, none has to exist
        mean, std = known.pop() if len(known) == 1 else self._moments_of_source
        return tuple(self.given_mean or mean), tuple(self.given_std or std)

    @property
    def _moments_of_source(self) -> Moments:
        return self._source().moments if self.channels in (1, 3) else self._measured_moments

    @cached_property
    def _measured_moments(self) -> Moments:
        """Channel mean and standard deviation of the train split."""
        images, index = self.select("train")
        if not len(index):
            raise ValueError(f"validation_fraction {self.validation_fraction} leaves no training image: give less, or mean and std")
        reader = BatchReader(images, self.size, skip=self.skip)
        total, squares, count = torch.zeros(self.channels), torch.zeros(self.channels), 0
        total, squares = total.double(), squares.double()
        for part in index.split(256):
            for pixels in reader.read(part)[1]:
                values = pixels.double().flatten(1) / 255
                total, squares, count = total + values.sum(1), squares + values.square().sum(1), count + values.shape[1]
        mean = total / count
        return tuple(mean.tolist()), tuple((squares / count - mean**2).clamp(min=1e-6).sqrt().tolist())

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names in the order of the labels; None without labels or names."""
        return self._open(self.train_split).class_names

    @property
    def num_classes(self) -> int | None:
        """The number of classes; None without labels, or for a stream that does not state it."""
        return self._open(self.train_split).num_classes

    def describe(self) -> str:
        """One line for the log: source, number of images, size and normalisation."""
        parts: list[Part] = ["train", "validation"]
        if self.test_split in self.opened:
            parts.append("test")
        numbers = {part: len(self.select(part)[1]) for part in parts}
        counts = ", ".join(f"{number:,} {part}" for part, number in numbers.items())
        noisy = "; choices by so few validation images are noisy" if 0 < numbers["validation"] < FEW else ""
        mean, std = (" ".join(f"{value:.4g}" for value in values) for values in self.moments)
        return f"{self._source().name}: {counts} images of {self._shape}, mean {mean}, std {std}{noisy}"

    def __str__(self) -> str:
        """As `describe`, once the images are open; opening may take long, and fail."""
        if self.train_split in self.opened:
            return self.describe()
        names = " or ".join(source.name for source in self.candidates)
        return f"{names}: images of {self._shape}, not opened"

    @property
    def _shape(self) -> str:
        return " x ".join(map(str, (*self.size, self.channels)))

    def _source(self) -> Source:
        if self.chosen is None and len(self.candidates) == 1:
            self.chosen = self.candidates[0]
        if self.chosen is None:
            self.chosen, images = open_first(self.candidates, self.train_split, self.num_images)
            self.opened[self.train_split] = self._cached(self.chosen, self.train_split, images)
        return self.chosen

    def _open(self, split: str) -> Images:
        source = self._source()
        if split not in self.opened:
            lengths = {self.test_split: self.num_test_images, self.train_split: self.num_images}
            images = self.listed.pop(split, None) or source.open(split, lengths.get(split))
            self.opened[split] = self._cached(source, split, images)
        return self.opened[split]

    def _cached(self, source: Source, split: str, images: Images) -> Images:
        source.refuse_unused({"num_images": self.num_images, "num_test_images": self.num_test_images})
        images.max_pixels = self.max_pixels
        images.values = self._range(source, split, images)
        if not self.cache_limit:
            return images
        fraction = [] if source.test_fraction is None else [str(source.test_fraction)]
        choice = [split, *fraction, *([] if source.labelled else ["unlabelled"])]
        depends = {
            **asdict(source),
            "split": "-".join(choice),
            "root": str(Path(source.root).resolve()),
            "size": None,
            "download": None,
            "splits": None,
            "skip": None,
        }
        del depends["test_fraction"], depends["labelled"]  # of what was cached before these options, the name stays
        if images.values is not None:
            depends["range"] = images.values
        if self.max_pixels != MAX_PIXELS:  # then others may be left out
            depends["max_pixels"] = self.max_pixels
        kept = cached(images, self.cache_folder, self.cache_limit, depends, self.skip)
        if self.skip and isinstance(kept, CachedImages) and kept.bad:  # known before they are read
            self._leave_out(split, {kept.name(place) for place in kept.bad})
        return kept

    def _range(self, source: Source, split: str, images: Images) -> Range | None:
        """The range of values, the same for all splits: the given one, or a guess from images of the train split."""
        if self.given_range is None and not self._guessed:
            if split != self.train_split and images.may_be_deep:
                images = self._list_training(source) or images
            some = torch.linspace(0, images.num_images - 1, min(GUESSED_FROM, images.num_images)).long().tolist()
            stored = (images.stored(position) for position in some)
            self.given_range, self._guessed = guess_range([each for each in stored if each is not None], source.name), True
        return self.given_range

    def _list_training(self, source: Source) -> Images | None:
        """The images of the train split, to be opened later; None if it cannot be opened, as where data are for testing only."""
        try:
            images = source.open(self.train_split, self.num_images)
        except ValueError:
            return None
        images.max_pixels = self.max_pixels
        self.listed[self.train_split] = images
        return images

    def _maps_of(self, images: Images) -> Maps | None:
        if self.maps is None:
            return None
        split = self._split(images)
        if split not in self.opened_maps:
            self.opened_maps[split] = open_maps(self.maps, self.map_kind, self._source().name, images)
        return self.opened_maps[split]

    def _split(self, images: Images) -> str:
        return next(name for name, opened in self.opened.items() if opened is images)

    def _note_skipped(self, images: Images, places: set[int]) -> None:
        self._leave_out(self._split(images), {images.name(place) for place in places}, " so far")

    def _leave_out(self, split: str, names: set[str], known: str = "") -> None:
        """Keep the names of images that cannot be read, and say so once for a split."""
        before = self.skipped.get(split, [])
        self.skipped[split] = sorted(names.union(before))
        if names and not before:
            said = f"{len(names)} images of {split} cannot be read{known}, and are left out ({shown(self.skipped[split])})"
            print(f"{said}: the summary of the run lists all", file=sys.stderr)  # an address may hold a password

    def _devices(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _tickets(self, images: Images, batches: Callable[[int], Iterable[Tensor]]) -> Tickets:
        block = images.block if isinstance(images, StreamImages) else None
        return Tickets(batches, *self._devices(), block, max(1, self._num_workers(images)))

    def _num_workers(self, images: Images) -> int:
        if self.num_workers is not None:
            return self.num_workers
        if isinstance(images, StreamImages):
            return 1  # each would read the whole stream
        return 0 if images.is_fast else min(8, (os.cpu_count() or 1) - 1)

    def _position(self) -> tuple[int, int]:
        """The current epoch and batch of training, also right after a resume."""
        trainer = self.trainer
        if trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return 0, 0
        return trainer.current_epoch, trainer.fit_loop.batch_idx + 1

    def _protocol(self, num_images: int) -> dict[str, int | float]:
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "validation_fraction": self.validation_fraction,
            "num_images": num_images,
        }


def _spread(index: Tensor, images: Images, count: int) -> Tensor:
    """Up to `count` indices, spread evenly over a part, or over the first block of a stream."""
    first = int(index[0]) // images.block if len(index) else 0
    reach = int((index < (first + 1) * images.block).sum())
    return index[torch.linspace(0, reach - 1, min(count, reach), dtype=torch.float64).long()]
