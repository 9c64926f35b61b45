"""Maps that come with images, such as segmentations and depth maps."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from semconv.data.augmentation import centre_boxes, centre_crops, crop_each, crop_nearest
from semconv.data.cache import CachedImages
from semconv.data.decoding import MAX_PIXELS, decode, open_upright
from semconv.data.errors import BadImage
from semconv.data.folders import list_images, shown
from semconv.data.images import FileImages, Images, read_file
from semconv.files import user_path

MapKind = Literal["classes", "values"]


class Maps(ABC):
    """A map of each image, by the image's index in its split.

    Args:
        kind: classes, 0 to 255, or values, 0 to 1.
    """

    def __init__(self, kind: MapKind) -> None:
        self.kind = kind

    @abstractmethod
    def read(self, index: Tensor) -> Sequence[Tensor]:
        """Read maps as they are stored: each 1 h w, uint8."""

    def cut(self, index: Tensor, sides: Tensor, boxes: Tensor | None, flipped: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Crop, resize and flip maps as their images: classes by the nearest pixel, values as colours.

        Args:
            index: indices of the images.
            sides: their heights and widths: n 2.
            boxes: their crop boxes, n 4; None: the crop of evaluation.
            flipped: True for flipped images: n, bool; None: no image is flipped.
            size: height and width of the result.

        Returns:
            `n 1` and `size`: uint8 classes, or float32 values.

        Raises:
            ValueError: a map differs in size from its image, or cannot be read.
        """
        maps = self.read(index)
        for position, one, side in zip(index.tolist(), maps, sides.tolist(), strict=True):
            if list(one.shape[-2:]) != side:
                said = " x ".join(map(str, one.shape[-2:])), " x ".join(map(str, side))
                raise ValueError(
                    f"the map of image {position} is {said[0]} pixels, the image {said[1]}: give maps of the images' size"
                )
        if self.kind == "classes":
            cut = crop_nearest(maps, centre_boxes(sides, size) if boxes is None else boxes, size)
        else:
            cut = (centre_crops(maps, size) if boxes is None else crop_each(maps, boxes, size)).float() / 255
        return cut if flipped is None else torch.where(flipped[:, None, None, None], cut.flip(-1), cut)


class StackedMaps(Maps):
    """Maps of classes in memory.

    Args:
        maps: n h w, uint8.
    """

    def __init__(self, maps: Tensor) -> None:
        super().__init__("classes")
        self.maps = maps

    def read(self, index: Tensor) -> Sequence[Tensor]:
        return list(self.maps[index][:, None])


class MapFiles(Maps):
    """Map files on disk.

    Args:
        paths: one per image.
        kind: classes (8-bit grey, or the numbers of a palette), or values (grey, of 8 or 16 bits, kept as 8).
        max_pixels: of a map.
    """

    def __init__(self, paths: Sequence[str], kind: MapKind, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(kind)
        self.paths, self.max_pixels = paths, max_pixels

    def read(self, index: Tensor) -> Sequence[Tensor]:
        return [self._read(self.paths[position]) for position in index.tolist()]

    def _read(self, path: str) -> Tensor:
        try:
            if self.kind == "values":
                return decode(read_file(path), 1, path, max_pixels=self.max_pixels)
            image = open_upright(read_file(path), path, self.max_pixels)
            if image.mode not in ("1", "L", "P"):
                raise ValueError(f"{path} is {image.mode}: save a map of classes as 8-bit grey or palette")
            return torch.from_numpy(np.array(image, dtype=np.uint8))[None]
        except BadImage as error:
            raise ValueError(f"the map {path} cannot be read: replace it") from error


def open_maps(maps: str, kind: MapKind, folder: str, images: Images) -> Maps:
    """Open the maps of a split.

    Args:
        maps: `source` for the class maps of the images' own source; or a folder.
        kind: the kind of the folder's maps.
        folder: the folder of the images. In the folder of maps, a map has the relative path of its image; where none has the same
            suffix, any other.
        images: the images of the split.

    Raises:
        ValueError: the source has no maps, the images are not files, or an image has no map, or several.
    """
    if maps == "source":
        known = images.label_maps(torch.arange(images.num_images))
        if known is None:
            raise ValueError(f"data.maps is source, and {folder} has no maps of its own (scenes have): give a folder of maps")
        return StackedMaps(known)
    files = images.source if isinstance(images, CachedImages) else images
    root = user_path(maps)
    if not isinstance(files, FileImages):
        raise ValueError(f"a folder of maps needs images in files, and {folder} is not a folder of images: give one")
    if not root.is_dir():
        raise ValueError(f"data.maps: there is no folder {maps}: correct the path")
    found: dict[Path, list[str]] = defaultdict(list)
    for path in list_images(root).images:
        found[Path(path).relative_to(root).with_suffix("")].append(path)
    names = [Path(path).relative_to(user_path(folder)) for path, _ in files.samples]
    return MapFiles([_map_of(name, found, maps) for name in names], kind, files.max_pixels)


def _map_of(name: Path, found: Mapping[Path, Sequence[str]], maps: str) -> str:
    """The path of the map of an image: that of the same name, else the only one with another suffix."""
    fitting = found.get(name.with_suffix(""), [])
    fitting = [path for path in fitting if Path(path).name == name.name] or fitting
    if not fitting:
        raise ValueError(f"{maps} has no map of {name}: save it there as {name.with_suffix('.png')}")
    if len(fitting) > 1:
        raise ValueError(f"{maps} has {len(fitting)} maps of {name} ({shown(fitting)}): keep one, or name it {name}")
    return fitting[0]
