"""Folders of images as users have them: nothing is used, or left out, in silence."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semconv.data import ImageData
from semconv.data.augmentation import centre_crops, resize
from semconv.data.decoding import decode
from semconv.data.maps import open_maps


def put(path, number=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path, **options)
    return path


def two_classes(root, classes=("a", "b"), train=10, test=4):
    for split, count in (("train", train), ("test", test)):
        for name in classes:
            for number in range(count):
                put(root / split / name / f"{number}.png", number)
    return root


def make(root, **options):
    return ImageData(str(root), size=(8, 8), **{"batch_size": 4, "num_workers": 0, "cache_limit": 0, **options})


def count(data, part="train"):
    return data.select(part)[0].num_images


def labels(data, part="train"):
    images = data.select(part)[0]
    return set(images.read(torch.arange(images.num_images))[1].tolist())


def test_every_kind_of_image_is_read_and_every_other_entry_named(tmp_path, capsys):
    two_classes(tmp_path)
    for suffix in ("webp", "tif", "bmp", "gif", "ppm", "JPG", "jfif"):
        put(tmp_path / "train" / "a" / f"more.{suffix}", 1, **({"format": "JPEG"} if suffix == "jfif" else {}))
    (tmp_path / "train" / "a" / "notes.txt").write_text("none")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    shutil.copytree(tmp_path / "train" / "b", tmp_path / "train" / "__MACOSX" / "c")
    put(tmp_path / "train" / "b" / "._1.png")
    os.mkfifo(tmp_path / "train" / "b" / "pipe.png")
    data = make(tmp_path)
    data.setup("fit")
    assert (count(data), data.class_names) == (27, ("a", "b"))
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{tmp_path / 'train'}: 27 images; besides: ")
    assert "3 hidden entries (.ipynb_checkpoints, __MACOSX, b/._1.png)" in said
    assert "1 files that are no images (a/notes.txt)" in said
    assert "1 entries that are no files (b/pipe.png)" in said
    data.setup("test")
    assert capsys.readouterr().err == ""


def test_links_bring_no_image_twice(tmp_path, capsys):
    root = two_classes(tmp_path / "data")
    (root / "train" / "a" / "up").symlink_to(root / "train")
    (root / "train" / "again").symlink_to(root / "train" / "b")
    (root / "train" / "a" / "same.png").symlink_to(root / "train" / "b" / "0.png")
    put(tmp_path / "elsewhere" / "0.png", 30)
    (root / "train" / "b" / "linked").symlink_to(tmp_path / "elsewhere")
    data = make(root)
    assert (count(data), data.class_names) == (21, ("a", "b"))
    said = capsys.readouterr().err
    assert "2 links to folders that are read already (" in said
    assert "1 links to images that are used already (a/same.png)" in said


@pytest.mark.parametrize("limit", [0, 10**9], ids=["decoded", "cached"])
def test_images_that_cannot_be_read_are_named_once(limit, tmp_path, capsys, monkeypatch):
    root, read = two_classes(tmp_path / "data"), Path.read_bytes

    def refuse(path):
        if path.name == "3.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    (root / "test" / "a" / "0.png").write_bytes(b"no image")
    options = {"cache_limit": limit, "cache_folder": str(tmp_path / "cache"), "validation_fraction": 0, "batch_size": 32}
    for _ in range(2):  # the second time from the cache
        data = make(root, on_bad_image="skip", **options)
        for part in ("train", "train", "test"):
            assert sum(len(batch.index) for batch in data.evaluation_dataloader(part)) == {"train": 18, "test": 5}[part]
        train, test = (line for line in capsys.readouterr().err.splitlines() if "left out" in line)
        assert "2 images of train cannot be read" in train
        assert f"({root}/train/a/3.png, {root}/train/b/3.png): the summary of the run lists all" in train
        assert "3 images of test cannot be read" in test


def test_an_image_has_the_class_of_the_folder_where_it_lies(tmp_path, capsys):
    root = two_classes(tmp_path / "data", ("a", "b", "c"))
    store = tmp_path / "store"
    for number, name in enumerate(("x.png", "d/x.png", "e/x.png", "e/y.png")):
        put(store / name, number)
    (root / "train" / "a" / "deep").mkdir()
    (root / "train" / "a" / "deep" / "over").symlink_to(root / "train" / "b")  # read before b, in the order of names
    (root / "train" / "c" / "up").symlink_to(root / "train" / "a" / "deep")
    (root / "train" / "b" / "e").symlink_to(store / "e")  # of two links to one folder, the one higher up
    (root / "train" / "e").symlink_to(store / "e")
    (root / "train" / "d").symlink_to(store / "d")
    (root / "train" / "all").symlink_to(store)  # keeps what no other link names
    (root / "train" / "loop").symlink_to("loop")
    expected = {"a": 10, "all": 1, "b": 10, "c": 10, "d": 1, "e": 2}
    data = make(root)
    data.setup("test")
    assert data.class_names == tuple(expected)
    images = data.select("train")[0]
    found = images.read(torch.arange(images.num_images))[1].bincount()
    assert found.tolist() == list(expected.values())
    assert labels(data, "test") == {0, 2, 3}  # of the same classes
    said = capsys.readouterr().err
    assert "5 links to folders that are read already (" in said
    assert "1 links that cannot be followed (loop)" in said


def test_a_folder_that_cannot_be_read_stops_or_is_named(tmp_path, capsys, monkeypatch):
    two_classes(tmp_path)
    closed, scandir = str(tmp_path / "train" / "b"), os.scandir

    def refuse(folder):
        if str(folder) == closed:
            raise PermissionError(13, "Permission denied", closed)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"train/b cannot be read \(Permission denied\): give access"):
        make(tmp_path).setup("fit")
    data = make(tmp_path, on_bad_image="skip")
    assert count(data) == 10
    assert "1 folders that cannot be read (b)" in capsys.readouterr().err


def test_a_class_may_have_the_name_of_a_split(tmp_path, capsys):
    for name in ("bus", "car", "train"):
        put(tmp_path / name / "0.png")
    data = make(tmp_path)
    assert (count(data), data.class_names) == (3, ("bus", "car", "train"))
    assert "no splits but classes: train (beside bus, car)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no split 'test', only images to train with"):
        data.setup("test")


def test_folders_are_splits_where_all_are(tmp_path, capsys):
    for name in ("bus", "test", "train"):
        put(tmp_path / name / "0.png")
    data = make(tmp_path)
    assert (count(data), data.class_names) == (3, ("bus", "test", "train"))
    assert "no splits but classes: test, train (beside bus)" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"no split 'test', only classes \(test, train beside bus\): move bus elsewhere if"):
        data.setup("test")
    parts = make(tmp_path, test_fraction=0.5, validation_fraction=0)
    assert count(parts) + count(parts, "test") == 3
    assert capsys.readouterr().err.count("no splits but classes") == 1
    put(tmp_path / "train" / "red" / "0.png")  # folders of classes: then it is a split
    assert count(make(tmp_path)) == 2


def test_names_of_splits_have_any_case(tmp_path, capsys):
    for name in ("Train/b", "Train/a", "TEST/b", "Val/a"):
        put(tmp_path / name / "0.png")
    data = make(tmp_path)
    assert (data.class_names, labels(data), labels(data, "test")) == (("a", "b"), {0, 1}, {1})
    assert "the splits are Train and TEST; besides: 1 splits that are not used (Val)" in capsys.readouterr().err
    assert labels(make(tmp_path, test_split="val"), "test") == {0}
    with pytest.raises(ValueError, match=r"no split 'validation': give --data.validation_split Val$"):
        make(tmp_path, validation_split="validation").select("validation")


def test_what_is_beside_splits_or_empty_is_named(tmp_path, capsys):
    two_classes(tmp_path)
    make(tmp_path).setup("fit")
    assert capsys.readouterr().err == ""
    for name in ("0.png", "val/0.png", "extra/1.png", "extra/2.png"):
        put(tmp_path / name)
    for name in ("empty", "train/c/d", "train/a/e"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("annotations/a.json", "labels.csv", ".hidden", "train/e/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    data = make(tmp_path)
    data.setup("test")
    data.setup("fit")
    assert (count(data), data.class_names) == (20, ("a", "b"))
    beside, below = capsys.readouterr().err.splitlines()
    assert beside == (
        f"{tmp_path}: the splits are train and test; besides: 1 hidden entries (.hidden), 1 images in no split (0.png), 2 folders "
        "without images (annotations, empty), 1 folders of images in no split (extra), 1 files that are no images (labels.csv), "
        "1 splits that are not used (val)"
    )
    assert below.endswith(
        "train: 20 images; besides: 1 files that are no images (e/notes.txt), 3 folders without images (a/e, c, e)"
    )
    assert count(make(tmp_path, test_split="extra"), "test") == 2


def test_classes_are_those_of_the_training_split(tmp_path, capsys):
    two_classes(tmp_path, test=0)
    put(tmp_path / "test" / "a" / "0.png")
    put(tmp_path / "test" / "images" / "0.png")
    data = make(tmp_path)
    assert (data.class_names, labels(data)) == (("a", "b"), {0, 1})
    assert labels(data, "test") == {0, -1}
    assert "1 images of no class of train, which get no label (images/0.png)" in capsys.readouterr().err


def test_an_image_that_is_stored_turned_is_turned_upright(tmp_path):
    root = tmp_path / "data"
    upright = Image.new("RGB", (8, 4), "red")
    upright.paste("blue", (4, 0, 8, 4))
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter, clockwise
    turned = (upright.rotate(90, expand=True), {"exif": exif})
    images: dict[str, tuple[Any, dict[str, Any]]] = {"turned": turned, "upright": (upright, {})}
    for name, (image, options) in images.items():
        (root / "train").mkdir(exist_ok=True, parents=True)
        image.save(root / "train" / f"{name}.png", **options)
        grey = image.convert("L").point(lambda value: value > 50)
        (tmp_path / "maps" / "train").mkdir(parents=True, exist_ok=True)
        grey.save(tmp_path / "maps" / "train" / f"{name}.png", **options)
    first, second = (decode((root / "train" / f"{name}.png").read_bytes(), 3, name) for name in ("turned", "upright"))
    assert torch.equal(first, second)
    files = make(root).select("train")[0]
    maps = open_maps(str(tmp_path / "maps"), "classes", str(root), files).read(torch.arange(2))
    assert torch.equal(maps[0], maps[1])


def test_a_link_brings_no_image_of_another_split(tmp_path, capsys):
    two_classes(tmp_path)
    put(tmp_path / "pool" / "x.png", 7)
    (tmp_path / "test" / "a" / "pooled.png").symlink_to(tmp_path / "pool" / "x.png")
    (tmp_path / "test" / "a" / "trained.png").symlink_to(tmp_path / "train" / "a" / "0.png")
    (tmp_path / "test" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "test" / "b" / "over").symlink_to(tmp_path / "train" / "b")
    data = make(tmp_path)
    data.setup("test")
    assert count(data, "test") == 9  # eight, and that of the pool
    said = capsys.readouterr().err
    assert "2 links to images of other splits (a/trained.png, b/over)" in said
    assert "1 links to folders that are read already (b/up)" in said


def test_names_that_are_no_text_and_links_to_nothing(tmp_path, capsys):
    root = two_classes(tmp_path / "data")
    os.rename(root / "train" / "a" / "0.png", os.fsencode(root / "train" / "a") + b"/caf\xe9.png")
    data = make(root, cache_limit=10**9, cache_folder=str(tmp_path / "cache"))
    assert count(data) == 20
    (root / "train" / "a" / "gone.png").symlink_to("nowhere.png")
    (root / "train" / "a" / "\udce9-gone.png").symlink_to("nowhere.png")
    for limit in (0, 10**9):
        data = make(root, cache_limit=limit, cache_folder=str(tmp_path / "cache"), on_bad_image="skip", validation_fraction=0)
        assert sum(len(batch.index) for batch in data.evaluation_dataloader("train")) == 20
        assert len(data.skipped["train"]) == 2
        assert all(name.isprintable() for name in data.skipped["train"])
    with pytest.raises(ValueError, match=r"gone.png cannot be read \(No such file or directory\): restore it"):
        list(make(root, validation_fraction=0).evaluation_dataloader("train"))


@pytest.mark.parametrize("name", ["pixels.bin", "labels.npy", "sides.npy"])
def test_decoded_images_that_were_changed_are_not_used(name, tmp_path):
    root = two_classes(tmp_path / "data")
    options = {"cache_limit": 10**9, "cache_folder": str(tmp_path / "cache"), "validation_fraction": 0}
    before = [batch.images for batch in make(root, **options).evaluation_dataloader("train")]
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    data = make(root, **options)
    if name == "pixels.bin":
        with pytest.raises(ValueError, match=r"are damaged: delete this folder, and they are decoded again"):
            list(data.evaluation_dataloader("train"))
    else:  # decoded again
        after = [batch.images for batch in data.evaluation_dataloader("train")]
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize(("top", "guess"), [(4095, 4095), (1000, 1023), (40000, 65535), (65535, 65535)])
def test_images_of_more_than_eight_bits_are_scaled_by_their_range(top, guess, tmp_path, capsys):
    grey = np.linspace(0, 1, 64).reshape(8, 8)
    for split, share in (("train", 1.0), ("test", 0.2)):  # a guess from a dark test split would be another
        (tmp_path / split).mkdir()
        for number in range(4):
            Image.fromarray((grey * top * share).astype(np.uint16)).save(tmp_path / split / f"{number}.png")
    (tmp_path / "train" / "notes.txt").write_text("none")
    data = make(tmp_path, channels=1)
    data.setup("test")
    data.setup("fit")
    said = capsys.readouterr().err
    assert said.count("notes.txt") == 1  # although the train split is listed for its range, too
    assert (f"values reach {top}, and 0 to {guess} is taken for black to white" in said) == (guess != 65535)
    for part, share in (("train", 1.0), ("test", 0.2)):
        images = data.select(part)[0]
        assert int(torch.stack(list(images.read(torch.arange(4))[0])).max()) == round(int(top * share) * 255 / guess)
    (tmp_path / "train" / "notes.txt").unlink()
    stated = make(tmp_path, channels=1, range=(0, top))
    assert int(torch.stack(list(stated.select("train")[0].read(torch.arange(4))[0])).max()) == 255
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match=r"range is .*: give two rising numbers"):
        make(tmp_path, range=(5, 5))


def test_a_large_image_is_read_up_to_the_limit_that_is_given(tmp_path, monkeypatch):
    root = two_classes(tmp_path / "data")
    for kind in ("png", "tif", "gif", "jpg"):
        Image.new("RGB", (40, 30), "red").save(root / "train" / "a" / f"large.{kind}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses above twice as many, and warns above
    options = {"cache_limit": 10**9, "cache_folder": str(tmp_path / "cache"), "validation_fraction": 0}
    with pytest.raises(ValueError, match=r"large\.\w+ has 40 x 30 pixels, more than 1,000: give a larger max_pixels"):
        list(make(root, max_pixels=1000, **options).evaluation_dataloader("train"))
    for limit, skip, number in ((1000, "skip", 20), (1200, "stop", 24)):  # the cache of the first is not the second's
        loader = make(root, max_pixels=limit, on_bad_image=skip, **options).evaluation_dataloader("train")
        assert sum(len(batch.index) for batch in loader) == number
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("side", [0, 1])
def test_a_strip_takes_the_memory_of_its_crop(side):
    def strip(length, height=3):
        shape = (3, height, length) if side else (3, length, height)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    assert centre_crops([strip(2_000_000)], (224, 224)).shape == (1, 3, 224, 224)  # resized whole it has 10^11 values
    for length, height in ((400, 3), (401, 40), (3000, 7)):
        image = strip(length, height)
        whole = resize(image, (32, round(length * 32 / height)) if side else (round(length * 32 / height), 32))
        start = (max(whole.shape) - 32) // 2
        cut = whole[:, :, start : start + 32] if side else whole[:, start : start + 32]
        difference = (centre_crops([image], (32, 32))[0].int() - cut.int()).abs()
        assert difference.max() <= 2  # ties of rounding, twice
        assert (difference > 0).float().mean() < 0.02
