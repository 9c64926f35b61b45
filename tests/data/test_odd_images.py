"""Images of all kinds, and those that are none."""

import io
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps

from semconv.data import ImageData
from semconv.data.decoding import decode, guess_range
from tests.data.test_cache import write_images
from tests.pairwise import pairwise, together


def encoded(image: Image.Image, kind: str = "png") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((4, 5), 128 * 257, np.uint16))


KINDS = {
    "1 bit": (Image.new("1", (5, 4), 1), "png", (255, 255, 255)),
    "grey": (Image.new("L", (5, 4), 70), "png", (70, 70, 70)),
    "grey, transparent": (Image.new("LA", (5, 4), (70, 9)), "png", (70, 70, 70)),
    "16 bits": (sixteen_bits(), "png", (128, 128, 128)),
    "16 bits, tiff": (sixteen_bits(), "tiff", (128, 128, 128)),
    "floats": (Image.fromarray(np.full((4, 5), 0.5, np.float32)), "tiff", (128, 128, 128)),
    "colour": (Image.new("RGB", (5, 4), (10, 20, 30)), "png", (10, 20, 30)),
    "colour, transparent": (Image.new("RGBA", (5, 4), (10, 20, 30, 0)), "png", (10, 20, 30)),
    "palette": (Image.new("RGB", (5, 4), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE), "png", (10, 20, 30)),
    "cmyk": (Image.new("CMYK", (5, 4), (0, 255, 255, 0)), "tiff", (255, 0, 0)),
}


@together("kind", KINDS)
def test_every_kind_of_image_becomes_the_channels_asked_for(kind: str) -> None:
    image, suffix, colour = KINDS[kind]
    grey = round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])
    for expected in (torch.tensor([grey]), torch.tensor(colour)):
        pixels = decode(encoded(image, suffix), len(expected), "it")
        assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (len(expected), 4, 5))
        assert ((pixels.int() - expected[:, None, None]).abs() <= 1).all()  # Pillow rounds grey in whole numbers


CONTENTS = {
    "empty": b"",
    "text": b"no image",
    "half a png": encoded(KINDS["colour"][0])[:45],
    "half a jpeg": encoded(KINDS["colour"][0], "jpeg")[:300],
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_what_is_no_image_is_named(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"the image .*: replace or remove it, or set on_bad_image to skip"):
        decode(content, 3, "the image")


@pytest.mark.parametrize(("channels", "last", "dtype"), pairwise([1, 2, 4, 13], [True, False], [np.uint8, np.uint16, np.float32]))
def test_arrays_have_any_number_of_channels(channels: int, last: bool, dtype: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, channels, 9, 8)).astype(np.uint8)
    stored: np.ndarray = pixels.astype(dtype) * dtype({np.uint16: 257, np.float32: 1 / 255}.get(dtype, 1))
    np.save(tmp_path / "train.npy", stored.transpose(0, 2, 3, 1) if last else stored)
    np.save(tmp_path / "train_labels.npy", np.arange(30) % 3)
    data = ImageData(f"npy/{tmp_path}", size=(9, 8), channels=channels, batch_size=5, crop_scale=None, flip=False)
    batch = next(iter(data.train_dataloader()))
    assert np.array_equal(batch.images.numpy(), pixels[batch.index.numpy()])
    assert torch.equal(batch.labels, batch.index % 3)
    images = data.on_after_batch_transfer(batch).images
    mean, std = data.moments
    assert len(mean) == channels
    if channels not in (1, 3):
        train = pixels[data.select("train")[1].numpy()] / 255
        np.testing.assert_allclose(mean, train.mean((0, 2, 3)))
        np.testing.assert_allclose(std, train.std((0, 2, 3)))
    assert images.isfinite().all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 8, 8, 3), np.int32), "holds int32: save it as uint8"),
        (np.zeros((4, 8, 8, 3), np.uint8), "for 4 channels, save it as n h w 4 or n 4 h w"),
        (np.zeros((4, 8), np.uint8), "for 4 channels"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", array)
    with pytest.raises(ValueError, match=message):
        ImageData(f"npy/{tmp_path}", channels=4).setup("fit")


NO_ARRAYS = [  # how a file is written, and how a message goes on after its name
    (lambda file: np.save(file, np.array([{}] * 4)), " cannot be read (Array can't be memory-mapped"),
    (lambda file: np.savez(file, np.zeros(4)), " cannot be read (the magic string is not correct"),
    (lambda file: file.write(b"\x93NUMPY\x01\x00\x05\x00{\x27a"), " cannot be read (EOF"),
]
NO_LABELS = [
    (lambda file: np.save(file, np.zeros(4)), ": labels are float64 (4,) for images (4, 8, 8, 3): save one integer per image"),
    (lambda file: np.save(file, np.array([0, 1, 2**20, 3])), " has the label 1048576: number the classes from 0, below 1,048,576"),
    (lambda file: np.save(file, np.array([0, 2**63, 1, 2], np.uint64)), f" has the label {2**63}: number the classes"),
]


def test_files_of_arrays_that_hold_something_else_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.zeros((4, 8, 8, 3), np.uint8))
    for name, cases in (("train_labels.npy", [*NO_ARRAYS, *NO_LABELS]), ("train.npy", NO_ARRAYS)):
        path = tmp_path / name
        for write, said in cases:
            with open(path, "wb") as file:
                write(file)
            with pytest.raises(ValueError, match=f"^{re.escape(f'{path}{said}')}"):
                ImageData(f"npy/{tmp_path}").setup("fit")


def test_files_have_one_or_three_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"channels is 4: .* has 1 \(grey\) or 3 \(RGB\); arrays of npy/FOLDER have any number"):
        ImageData(str(tmp_path), channels=4).setup("fit")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """40 images, of which two are none."""
    folder = write_images(tmp_path / "images", [(10, 12)] * 40)
    for path in ("train/a/04.png", "train/b/07.png"):
        (folder / path).write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("cache_limit", [0, 2**30], ids=["decoded", "cached"])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_bad_images_are_left_out_and_all_others_as_they_would_be(damaged: Path, cache_limit: int, num_workers: int) -> None:
    seen = {}
    for state in ("damaged", "mended"):
        if state == "mended":
            for path in ("train/a/04.png", "train/b/07.png"):
                Image.new("RGB", (12, 10)).save(damaged / path)
        data = ImageData(
            str(damaged),
            size=(8, 8),
            batch_size=8,
            validation_fraction=0.0,
            num_workers=num_workers,
            cache_limit=cache_limit,
            cache_folder=str(damaged.parent / "cache"),
            on_bad_image="skip",
        )
        batches = [data.on_after_batch_transfer(batch) for batch in data.train_dataloader()]
        seen[state] = {int(i): image for batch in batches for i, image in zip(batch.index, batch.images, strict=True)}
        order = [batch.index.tolist() for batch in batches]
        names = data.skipped.get("train", [])
        if state == "damaged":
            first = order
            assert [name[-8:] for name in names] == ["a/04.png", "b/07.png"]
        else:
            assert names == []
            missing = {i for batch in order for i in batch} - {i for batch in first for i in batch}
            assert len(missing) == 2
            assert [[i for i in batch if i not in missing] for batch in order] == first
            assert all(torch.equal(image, seen["mended"][i]) for i, image in seen["damaged"].items())


def test_by_default_a_bad_image_stops_and_is_named(damaged: Path) -> None:
    with pytest.raises(ValueError, match=r"04\.png is not an image: replace or remove it, or set on_bad_image to skip"):
        ImageData(str(damaged), size=(8, 8), cache_folder=str(damaged.parent / "cache")).setup("fit")


def test_a_batch_of_bad_images_alone_is_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", [(10, 12)] * 8)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    data = ImageData(str(folder), size=(8, 8), batch_size=4, cache_limit=0, num_workers=0, on_bad_image="skip")
    with pytest.raises(ValueError, match="no image of a batch of 4 can be read"):
        next(iter(data.train_dataloader()))


@pytest.mark.parametrize("error", [RuntimeError, struct.error, TypeError, KeyError, ZeroDivisionError])
def test_whatever_pillow_raises_names_the_image(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise error("two\nlines")  # as of an AVIF file with a damaged header

    content = encoded(KINDS["colour"][0])
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(ValueError, match=r"^the image cannot be decoded \('?two.+lines'?\): replace or remove it"):
        decode(content, 3, "the image")


def photograph(exif: bytes = b"") -> bytes:
    """A JPEG of 8 x 16 pixels, all different, with a given EXIF part, which Pillow does not open for the resolution."""
    file = io.BytesIO()
    Image.fromarray(np.arange(128, dtype=np.uint8).reshape(8, 16)).save(file, "jpeg", exif=exif, dpi=(72, 72))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
def test_images_are_turned_as_pillow_does(kind: str) -> None:
    for orientation in range(1, 9):
        exif, file = Image.Exif(), io.BytesIO()
        exif[ExifTags.Base.Orientation] = orientation
        Image.fromarray(np.arange(128, dtype=np.uint8).reshape(8, 16)).save(file, kind, exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("L"))
        assert np.array_equal(decode(file.getvalue(), 1, "it")[0], expected)


EXIF = b"Exif\0\0II*\0\x08\0\0\0"
UPSIDE_DOWN = b"\x12\x01\x03\0\x01\0\0\0\x03\0\0\0"
NEGATIVE_LENGTH = b"\x01\x01\x09\0\x01\0\0\0\0\0\0\x80"  # Pillow can read it, and not write it
DAMAGED_EXIF = {
    "no header": (b"Exif\0\0nonsense", False),
    "cut": (EXIF[:-2], False),
    "one entry": (EXIF + b"\x02\0" + UPSIDE_DOWN + NEGATIVE_LENGTH + bytes(4), True),
}


@pytest.mark.parametrize(("exif", "turned"), DAMAGED_EXIF.values(), ids=DAMAGED_EXIF)
def test_a_damaged_exif_part_loses_no_image(exif: bytes, turned: bool) -> None:
    upright = decode(photograph(), 1, "it")
    assert torch.equal(decode(photograph(exif), 1, "it"), upright.flip((1, 2)) if turned else upright)


def as_file(values: Any) -> bytes:
    return encoded(Image.fromarray(np.asarray(values, np.float32)), "tiff")


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("cache_limit", [0, 2**30], ids=["decoded", "cached"])
def test_values_that_are_no_numbers_are_a_bad_image(odd: float, cache_limit: int, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    values = np.random.default_rng(0).random((6, 8, 8), np.float32)
    values[3, 2, 5] = odd
    for i, each in enumerate(values):
        (tmp_path / "train" / f"{i}.tiff").write_bytes(as_file(each))
    np.save(tmp_path / "train.npy", values)
    for source, name in ((str(tmp_path), "train/3.tiff"), (f"npy/{tmp_path}", "train.npy[3]")):
        options: dict[str, Any] = {"size": (8, 8), "channels": 1, "validation_fraction": 0.0, "num_workers": 0, "batch_size": 6}
        options |= {"cache_folder": str(tmp_path / "cache"), "cache_limit": cache_limit}
        message = f"{tmp_path}/{name} has values that are infinite or not a number: replace or remove it"
        with pytest.raises(ValueError, match=re.escape(message)):
            ImageData(source, **options).sample("train", 6)
        data = ImageData(source, on_bad_image="skip", **options)
        (batch,) = data.evaluation_dataloader("train")
        assert batch.index.tolist() == [0, 1, 2, 4, 5]
        assert data.given_range == (0, 1)
        assert data.skipped["train"] == [f"{tmp_path}/{name}"]


def test_moments_are_those_of_the_images_that_can_be_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((6, 2, 8, 8), np.float32)
    values[3, 0, 2, 5] = np.nan
    np.save(tmp_path / "train.npy", values)
    data = ImageData(f"npy/{tmp_path}", channels=2, validation_fraction=0.0, on_bad_image="skip")
    np.testing.assert_allclose(data.moments[0], np.delete(values, 3, 0).mean((0, 2, 3)), atol=1e-3)  # rounded to 8 bits
    with pytest.raises(ValueError, match=r"validation_fraction 0\.999 leaves no training image: give less, or mean and std"):
        ImageData(f"npy/{tmp_path}", channels=2, validation_fraction=0.999).moments  # noqa: B018


def test_a_range_is_guessed_from_numbers_alone() -> None:
    odd, plain = np.array([np.nan, 200.0]), np.array([0.0, 0.5])
    assert guess_range([odd, plain], "it") == guess_range([plain, odd], "it") == (0, 1)
    assert guess_range([odd], "it") is None
