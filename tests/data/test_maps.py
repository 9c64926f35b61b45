"""Maps that come with images are cut as the images are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from semconv.data import Batch, ImageData
from semconv.data.augmentation import augment
from semconv.data.maps import open_maps

SIZE = (16, 24)
COLOURS = np.array([0, 37, 101, 200])  # none is halfway between two others


def write(folder: Path, sides: list[tuple[int, int]], kind: str) -> None:
    """Images of four coloured quarters, or smooth ones, and maps of the same beside them."""
    for i, (height, width) in enumerate(sides):
        y, x = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
        quarters = (2 * (y >= 0.5) + (x >= 0.5)).astype(np.uint8)
        picture = COLOURS[quarters] + i if kind == "classes" else (120 * (y + x * x)).round()
        for split in ("train", "test"):
            image, one = (folder / part / split / f"{i}{suffix}" for part, suffix in (("images", ".png"), ("maps", ".tiff")))
            for path in (image, one):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.astype(np.uint8)).convert("RGB").save(image)
            Image.fromarray(quarters if kind == "classes" else picture.astype(np.uint8)).save(one)


def make(folder: Path, cache: bool = False, **options: Any) -> ImageData:
    options = {"maps": str(folder / "maps"), "num_workers": 0, "cache_limit": 2**30 if cache else 0, **options}
    return ImageData(
        str(folder / "images"), size=SIZE, batch_size=8, validation_fraction=0.0, cache_folder=str(folder / "cache"), **options
    )


def arrive(data: ImageData, part: str) -> tuple[Batch, Tensor, Tensor]:
    """A batch on the device, its images as bytes, and its maps."""
    data.setup("fit")
    loader = data.train_dataloader() if part == "train" else data.evaluation_dataloader("test")
    batch = augment(next(iter(loader)), SIZE)
    assert batch.external is not None
    return batch, batch.images, batch.external


every_part = pytest.mark.parametrize("part", ["train", "test"])
every_way = pytest.mark.parametrize(
    ("sides", "cache"), [([(20, 30), (40, 31), (64, 64)] * 3, False), ([(40, 40)] * 9, True)], ids=["files", "cached"]
)


@every_part
@every_way
def test_values_are_what_the_same_picture_shows(tmp_path, sides, cache, part):
    write(tmp_path, sides, "values")
    _, images, external = arrive(make(tmp_path, cache, map_kind="values"), part)
    assert external.dtype == torch.float32
    assert torch.equal((external * 255).round().to(torch.uint8), images[:, :1])


@every_part
@every_way
def test_classes_are_those_of_the_nearest_pixel(tmp_path, sides, cache, part):
    write(tmp_path, sides, "classes")
    batch, images, external = arrive(make(tmp_path, cache), part)
    assert external.dtype == torch.uint8
    assert external.shape == (len(images), 1, *SIZE)
    assert set(external.unique().tolist()) <= {0, 1, 2, 3}
    apart = (images.int() - batch.index[:, None, None, None])[:, :1] - torch.from_numpy(COLOURS)[:, None, None]
    inside = (apart == 0).any(1)  # at the borders of quarters colours are mixed
    assert inside.float().mean() > 0.5
    assert torch.equal(apart.abs().argmin(1)[inside], external[:, 0].long()[inside])


def test_scenes_know_their_own_classes():
    data = ImageData("scenes", size=(32, 48), batch_size=8, num_images=50, num_test_images=9, maps="source")
    data.setup("test")
    batch = next(iter(data.evaluation_dataloader("test")))
    assert batch.external is not None
    assert torch.equal(batch.external[:, 0], data.label_maps("test", batch.index))


def test_nothing_is_carried_that_nobody_asks_for():
    data = ImageData("scenes", num_images=64, batch_size=8)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.external is None
    assert batch.frame is not None
    assert batch.frame.shape == (8, 5)
    assert batch.frame.dtype == torch.float32


def test_what_is_wrong_with_maps_is_said_in_one_line(tmp_path):
    write(tmp_path, [(20, 30), (40, 31)], "classes")

    def refuses(message: str, source: str | None = None, **options: Any) -> None:
        data = make(tmp_path, **options)
        if source:
            data = ImageData(source, size=SIZE, num_images=40, batch_size=2, **options)
        with pytest.raises(ValueError, match=message) as caught:
            arrive(data, "test")
        assert "\n" not in str(caught.value)

    refuses("there is no folder", maps=str(tmp_path / "nowhere"))
    refuses("no maps of its own", maps="source")
    refuses("is not a folder of images", "scenes", maps=str(tmp_path / "maps"))
    path = tmp_path / "maps" / "test" / "1.tiff"
    Image.new("L", (40, 31)).save(path)
    refuses("the map of image 1 is 31 x 40 pixels, the image 40 x 31")
    Image.new("RGB", (31, 40)).save(path)
    refuses("save a map of classes as 8-bit grey or palette")
    path.write_bytes(b"no image")
    refuses("cannot be read: replace it")
    path.unlink()
    refuses(r"has no map of test/1.png: save it there as test/1.png")


def test_a_palette_says_numbers_and_not_colours(tmp_path):
    write(tmp_path, [(16, 24)] * 8, "classes")
    for path in (tmp_path / "maps").rglob("*.tiff"):
        indexed = Image.new("P", (24, 16), 7)
        indexed.putpalette([255 - i // 3 for i in range(768)])
        indexed.save(path)
    _, _, external = arrive(make(tmp_path), "test")
    assert (external == 7).all()


def test_a_map_has_the_name_of_its_image_or_is_the_only_one(tmp_path):
    images, maps = tmp_path / "images", tmp_path / "maps"
    images.mkdir()
    maps.mkdir()
    for name in ("1.jpg", "1.png", "2.jpg"):
        Image.new("RGB", (24, 16)).save(images / name)
    for value, name in enumerate(("1.jpg", "1.png", "1.tif", "2.png")):
        Image.new("L", (24, 16), value).save(maps / name)

    def values() -> list[int]:
        files = make(tmp_path).select("train")[0]
        return [int(one.max()) for one in open_maps(str(maps), "classes", str(images), files).read(torch.arange(3))]

    assert values() == [0, 1, 3]
    Image.new("L", (24, 16), 9).save(maps / "2.tif")
    with pytest.raises(ValueError, match=r"has 2 maps of 2\.jpg \(.*2\.png, .*2\.tif\): keep one, or name it 2\.jpg$"):
        values()
