"""Folders, tables, streams and what is said when they are not there."""

import fcntl
import io
import os
import random
import sys
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.utils.misc import natural_key as timms_key

from semconv.data import ImageData
from semconv.data.folders import natural_key, open_folder
from semconv.data.images import Images
from semconv.data.motifs import CLASS_NAMES
from semconv.data.scenes import draw_scenes
from semconv.data.sources import FIRST_TEST_SCENE, SCENES_SEED, open_torchvision

datasets = pytest.importorskip("datasets")


def picture(number: int, mode: str = "RGB", side: int = 8) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def png(number: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    picture(number, mode).save(file, "PNG")
    return file.getvalue()


def pixels_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def write_folder(root: Path, *paths: str) -> None:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(png(number))


def write_parquet(root: Path, count: int = 6, split: str = "train", **columns: Any) -> None:
    root.mkdir(exist_ok=True)
    table = datasets.Dataset.from_dict({"img": [{"bytes": png(i), "path": None} for i in range(count)], **columns})
    features = table.features.copy() | {"img": datasets.Image()}
    table.cast(datasets.Features(features)).to_parquet(str(root / f"{split}-00000-of-00001.parquet"))


def write_tar(path: Path, count: int, labelled: bool = True) -> None:
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            files = {"png": png(i)} | ({"cls": str(i % 3).encode()} if labelled else {})
            for suffix, content in files.items():
                info = tarfile.TarInfo(f"{i:04d}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def make(source: str | list[str], **arguments: Any) -> ImageData:
    options: dict[str, Any] = {"size": (8, 8), "batch_size": 2, "validation_fraction": 0.0, **arguments}
    return ImageData(source, **options)


def read_all(images: Images) -> tuple[list[torch.Tensor], list[int]]:
    pixels, labels = images.read(torch.arange(images.num_images))
    return list(pixels), labels.tolist()


@pytest.fixture(autouse=True)
def cached_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def test_scenes_are_drawn_by_their_index_and_test_scenes_lie_beyond_the_train_set() -> None:
    data = make("scenes/layout", num_images=5, num_test_images=4)
    train, test = data.select("train")[0], data.select("test")[0]
    for images, first in ((train, 0), (test, FIRST_TEST_SCENE)):
        expected = draw_scenes(SCENES_SEED, torch.arange(first, first + images.num_images), (8, 8), "layout")
        pixels, labels = images.read(torch.arange(images.num_images))
        assert torch.equal(torch.as_tensor(pixels), expected.images)
        assert torch.equal(labels, expected.labels)
    assert (train.num_images, test.num_images) == (5, 4)
    assert data.class_names == tuple(CLASS_NAMES)


def test_scenes_come_in_grey_too() -> None:
    data = make("scenes", num_images=3, channels=1)
    pixels, _ = data.select("train")[0].read(torch.arange(3))
    colour = draw_scenes(SCENES_SEED, torch.arange(3), (8, 8)).images.float()
    expected = torch.einsum("bchw,c->bhw", colour, torch.tensor([0.299, 0.587, 0.114]))
    torch.testing.assert_close(torch.as_tensor(pixels)[:, 0].float(), expected, atol=1.1, rtol=0)  # truncated, with rounded weights
    assert [len(values) for values in data.moments] == [1, 1]


def test_folders_of_splits_and_classes_are_read_in_natural_order(tmp_path: Path) -> None:
    write_folder(tmp_path, "train/cat/2.png", "train/cat/10.png", "train/dog/1.png", "val/dog/1.png", "val/dog/2.png")
    data = make(str(tmp_path), test_split="val")
    pixels, labels = read_all(data.select("train")[0])
    assert labels == [0, 0, 1]
    assert torch.equal(torch.stack(pixels), torch.stack([pixels_of(picture(i)) for i in range(3)]))
    assert read_all(data.select("test")[0])[1] == [1, 1]  # dog keeps its number where there is no cat
    assert data.class_names == ("cat", "dog")
    assert data.num_classes == 2


def test_a_folder_without_splits_is_the_train_set(tmp_path: Path) -> None:
    write_folder(tmp_path, "cat/1.png", "dog/1.png")
    data = make(str(tmp_path))
    assert read_all(data.select("train")[0])[1] == [0, 1]
    with pytest.raises(ValueError, match=r"add folders train and test, or give --data.test_fraction 0\.2"):
        data.setup("test")


def test_a_folder_of_train_and_val_names_the_split_that_can_be_tested(tmp_path: Path) -> None:
    write_folder(tmp_path, "train/1.png", "val/1.png")
    with pytest.raises(ValueError, match=r"no split 'test': give --data\.test_split val$"):
        make(str(tmp_path)).setup("test")


def parts_of(folder: Path, fraction: float, **arguments: Any) -> dict[str, set[str]]:
    """The names of the images of each part, as they are read through the cache and without it."""
    found = []
    for limit in (0, 2**20):
        data = make(str(folder), test_fraction=fraction, cache_limit=limit, validation_fraction=0.3, **arguments)
        parts = {}
        for part in ("train", "validation", "test"):
            images, index = data.select(part)
            parts[part] = {str(Path(images.name(position)).relative_to(folder)) for position in index.tolist()}
        found.append(parts)
    assert found[0] == found[1]
    return found[0]


def test_a_share_of_a_folder_is_tested_and_stays_so_when_images_are_added(tmp_path: Path) -> None:
    names = [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(40)]
    write_folder(tmp_path, *names)
    before, more = parts_of(tmp_path, 0.2), parts_of(tmp_path, 0.4)
    assert set.union(*before.values()) == set(names)
    assert sum(map(len, before.values())) == len(names)
    assert 8 <= len(before["test"]) <= 24
    assert before["validation"]
    assert before["test"] < more["test"]
    added = [f"ant/{number}.png" for number in range(40)]
    write_folder(tmp_path, *added)
    after = parts_of(tmp_path, 0.2)
    assert after["test"] - set(added) == before["test"]
    assert after["test"] & set(added)
    moved = tmp_path.rename(tmp_path.with_name("elsewhere"))
    assert parts_of(moved, 0.2) == after
    assert read_all(make(str(moved), test_fraction=0.2).select("test")[0])[1] == [
        ("ant", "cat", "dog").index(name.partition("/")[0]) for name in sorted(after["test"], key=timms_key)
    ]


def test_folders_that_are_no_classes_give_no_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path, *(f"{month}/{number}.png" for month in ("may", "june") for number in range(4)), "1.png")
    data = make(str(tmp_path), labels="none")
    assert read_all(data.select("train")[0])[1] == [-1] * 9
    assert (data.num_classes, data.class_names) == (None, None)
    assert "no class" not in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_images_without_class_folders_are_unlabelled(tmp_path: Path, prefix: str) -> None:
    write_folder(tmp_path, f"{prefix}1.png", f"{prefix}2.png")
    data = make(str(tmp_path))
    assert read_all(data.select("train")[0])[1] == [-1, -1]
    assert data.class_names is None
    assert data.num_classes is None


def test_folders_that_are_links_are_followed(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", "cat/1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(tmp_path / "elsewhere")
    assert make(str(tmp_path / "data")).select("train")[0].num_images == 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_images_of_every_mode_become_the_channels_asked_for(tmp_path: Path, mode: str, channels: int) -> None:
    image = picture(0, mode)
    if mode == "P":
        image.info["transparency"] = b"\0\1\2"
    image.save(tmp_path / "1.png")
    pixels, _ = read_all(make(str(tmp_path), channels=channels).select("train")[0])
    if channels == 3:
        assert torch.equal(pixels[0], pixels_of(image.convert("RGBA")))
    else:
        assert torch.equal(pixels[0][0], torch.from_numpy(np.array(image.convert("RGBA").convert("L"))))


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1\.png is not an image: replace or remove it, or set on_bad_image to skip"):
        read_all(make(str(tmp_path)).select("train")[0])


def test_a_local_table_is_read_whatever_its_image_column_is_called(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data", label=[0, 1, 2, 0, 1, 2])
    data = make(f"hfds/{tmp_path}/data")
    pixels, labels = read_all(data.select("train")[0])
    assert labels == [0, 1, 2, 0, 1, 2]
    assert torch.equal(torch.stack(pixels), torch.stack([pixels_of(picture(i)) for i in range(6)]))
    assert data.num_classes == 3


def test_a_table_without_labels_is_unlabelled(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data", title=list("abcdef"))
    data = make(f"hfds/{tmp_path}/data")
    assert read_all(data.select("train")[0])[1] == [-1] * 6
    assert data.num_classes is None


def test_a_stream_equals_the_table(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data", label=[0, 1, 2, 0, 1, 2])
    table, stream = (make(f"{kind}/{tmp_path}/data").select("train")[0] for kind in ("hfds", "hfids"))
    (pixels, labels), (streamed, streamed_labels) = read_all(table), read_all(stream)
    assert torch.equal(torch.stack(pixels), torch.stack(streamed))
    assert labels == streamed_labels


@pytest.mark.parametrize("labelled", [True, False])
def test_tars_are_streamed(
    tmp_path: Path, labelled: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("webdataset")
    monkeypatch.setenv("HOME", str(tmp_path))
    write_tar(tmp_path / "a-0.tar", 4, labelled)
    write_tar(tmp_path / "a-1.tar", 3, labelled)
    for folder in (tmp_path, "~"):
        pixels, labels = read_all(make(f"wds/{folder}", train_split="a-{0..1}.tar|7").select("train")[0])
        assert torch.equal(torch.stack(pixels), torch.stack([pixels_of(picture(i)) for i in (0, 1, 2, 3, 0, 1, 2)]))
        assert labels == ([0, 1, 2, 0, 0, 1, 2] if labelled else [-1] * 7)
    assert not caplog.text  # timm's warnings show the login of an address


def test_of_several_sources_the_first_that_is_there_is_taken_for_every_split(tmp_path: Path) -> None:
    write_folder(tmp_path, "train/1.png", "train/2.png", "test/1.png")
    data = make([f"hfds/{tmp_path}/none", str(tmp_path / "none"), "torch/cifar10", str(tmp_path), "scenes"], root=str(tmp_path))
    assert data.select("test")[0].num_images == 1
    assert data.describe().startswith(str(tmp_path))
    assert data.moments[0] == (0.485, 0.456, 0.406)


def errors(tmp_path: Path) -> list[tuple[ImageData, str]]:
    write_folder(tmp_path, "splits/train/1.png", "splits/val/1.png", "empty/train/readme.txt")
    others: dict[str, Any] = {"name": list("abcdef"), "large": [2**20] * 6, "lists": [[0]] * 6, "struct": [{"int": 0}] * 6}
    write_parquet(tmp_path / "table", label=[0] * 6, **others)
    (tmp_path / "empty").mkdir(exist_ok=True)
    np.save(tmp_path / "empty" / "train.npy", np.zeros((0, 8, 8, 3), np.uint8))
    table = f"hfds/{tmp_path}/table"
    return [
        (make(str(tmp_path / "none")), "there is no folder .*none: give a folder of images, scenes"),
        (make(str(tmp_path / "empty")), "empty.* holds no images"),
        (make(str(tmp_path / "splits"), train_split="training"), "no split 'training': give --data.train_split train or val"),
        (make(str(tmp_path / "splits"), test_fraction=0.2), "test_fraction is 0.2, and .*splits has splits: leave it out"),
        (make("scenes", test_fraction=0.2), "test_fraction is 0.2, and scenes is no folder of images: leave it out"),
        (make("scenes", labels="none"), "labels is none, and scenes is no folder of images: leave it out"),
        (make(str(tmp_path / "splits" / "val"), test_fraction=0.999), "test_fraction 0.999 of 1 images leaves none for train"),
        (make([str(tmp_path / "none"), "wds/none"]), "no folder .*none: .*; there is no folder none"),
        (make("scenes", train_split="val"), "no split 'val': choose among train, test"),
        (make("scenes/moon"), "world is 'moon': choose one of"),
        (make("torch/cifar10", root=str(tmp_path)), "torch/cifar10 is not in .*: set download or root"),
        (make("torch/cifar10", train_split="val"), "torch/cifar10 has no split 'val': choose among train, test"),
        (make("torch/cifar11", root=str(tmp_path)), "torch/cifar11: Unknown torchvision dataset"),
        (make(f"hfds/{tmp_path}/none"), "there is no folder .*none: correct the path"),
        (make(table, train_split="val"), 'table cannot be loaded: Unknown split "val". Should be one of'),
        (make(table, image_column="image"), "no column 'image': choose among img, label, name, large, lists, struct"),
        (make(table, image_column=None, label_column="name"), "label column 'name' is .*: cast it to ClassLabel"),
        (make(f"wds/{tmp_path}", train_split="a-0.tar"), "length of the stream is unknown: give num_images"),
        (make(f"wds/{tmp_path}"), "cannot be loaded: split train not found.*name the tars as the split"),
        (make(f"wds/{tmp_path}", train_split="a-{0..1}.tar|9"), "there is no file .*/a-0.tar: restore it, or name other tars"),
        (make(table, image_column="label"), r"image column 'label' is Value\('int64'\): name a column of image files"),
        (make(table, label_column="lists"), r"label column 'lists' is List\(Value\('int64'\)\): cast it to ClassLabel"),
        (make(table, label_column="struct"), "label column 'struct' is .*: cast it to ClassLabel"),
        (
            make(table, label_column="large"),
            "label column 'large' has the label 1048576: number the classes from 0, below 1,048,576",
        ),
        (make(f"npy/{tmp_path}/empty"), "split 'train' of npy/.*/empty holds no images: add some, or choose another split"),
    ]


@pytest.mark.parametrize("case", range(25))
def test_what_cannot_be_opened_is_said_in_one_line_with_a_remedy(tmp_path: Path, case: int) -> None:
    data, message = errors(tmp_path)[case]
    with pytest.raises(ValueError, match=message) as caught:
        data.setup("fit")
    assert "\n" not in str(caught.value)


def test_options_that_a_source_does_not_take_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, "train/1.png", "test/1.png")
    np.save(tmp_path / "train.npy", np.zeros((2, 8, 8, 3), np.uint8))
    for source, reason, options in (
        (str(tmp_path), "has its own length", {"num_images": 1}),
        (f"npy/{tmp_path}", "has its own length", {"num_test_images": 1}),
        (str(tmp_path), "has no columns", {"image_column": "img"}),
        ("scenes", "has no columns", {"label_column": "label"}),
    ):
        ((name, value),) = options.items()
        with pytest.raises(ValueError, match=f"{name} is {value}, and {source} {reason}: leave it out"):
            make(source, **options).setup("fit")
    assert make([f"hfds/{tmp_path}/none", "scenes"], num_images=3).select("train")[0].num_images == 3


def test_two_processes_do_not_download_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, root: str, **__: object) -> list[object]:
        if root != "/dev/null/new":  # a folder that cannot be made
            descriptor = os.open(root, os.O_RDONLY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)
        return []

    monkeypatch.setattr("timm.data.create_dataset", download)
    for root in (str(tmp_path / "new"), "/dev/null/new"):
        assert open_torchvision("cifar10", root, "train", 3, download=True).num_images == 0


def test_a_missing_package_is_said_with_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs the package datasets: pip install datasets"):
        make(f"hfds/{tmp_path}").setup("fit")


def test_a_stream_that_ends_early_says_how_long_it_was(tmp_path: Path) -> None:
    write_tar(tmp_path / "a-0.tar", 4)
    images = make(f"wds/{tmp_path}", train_split="a-0.tar|9").select("train")[0]
    with pytest.raises(ValueError, match="after 4 images where 9 were announced: restore what is missing, or give num_images"):
        read_all(images)
    with pytest.raises(ValueError, match=r"a-0\.tar\|-3 announces -3 images: give the number behind \| as 1 or more"):
        make(f"wds/{tmp_path}", train_split="a-0.tar|-3").select("train")


def test_names_are_sorted_by_the_values_of_their_numbers() -> None:
    letters = random.Random(0)
    names = ["".join(letters.choices("aA/b.-_0019٣é", k=letters.randrange(1, 12))) for _ in range(3000)]
    assert sorted(names, key=natural_key) == sorted(names, key=timms_key)
    assert sorted(["a1²10", "a1²9"], key=natural_key) == ["a1²9", "a1²10"]  # a digit that is no number


def test_a_folder_takes_little_more_memory_than_its_names(tmp_path: Path) -> None:
    names = [f"n{number % 7:08d}/n{number % 7:08d}_{number}.jpg" for number in range(1500)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    open_folder(str(tmp_path), "train", 3)  # what is imported and cached is not counted
    tracemalloc.start()
    images = open_folder(str(tmp_path), "train", 3)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    length = len(str(tmp_path / names[-1]))
    assert kept < 1500 * 1.3 * (length + 16)
    assert peak < 1500 * 4.5 * length
    assert [path for path, _ in images.samples] == [str(tmp_path / name) for name in sorted(names, key=timms_key)]


@pytest.mark.parametrize("kind", ["hfds", "hfids"])
def test_cells_without_an_image_are_bad_images(kind: str, tmp_path: Path) -> None:
    images = [{"bytes": png(0), "path": None}, None, {"bytes": None, "path": None}, {"bytes": b"", "path": "x.png"}]
    table = datasets.Dataset.from_dict({"image": images, "label": [None] * 4}).cast_column("label", datasets.Value("int64"))
    (tmp_path / "data").mkdir()
    table.to_parquet(str(tmp_path / "data" / "train-00000-of-00001.parquet"))
    length = {"num_images": 4} if kind == "hfids" else {}
    data = make(f"{kind}/{tmp_path}/data", **length, cache_limit=0, num_workers=0, batch_size=4, on_bad_image="skip")
    assert data.num_classes is None
    (batch,) = data.evaluation_dataloader("train")
    assert (batch.index.tolist(), batch.labels.tolist()) == ([0], [-1])
    assert len(data.skipped["train"]) == 3
    with pytest.raises(ValueError, match=r"image 3 of the \w+ is empty: replace or remove it, or set on_bad_image to skip"):
        data.select("train")[0].read(torch.tensor([3]))


@pytest.mark.parametrize("source", ["scenes15", "scenes15/images"])
def test_a_folder_of_photographs_may_be_called_scenes(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / source, "train/1.png", "train/2.png")
    data = make(source)
    assert data.select("train")[0].num_images == 2
    assert data.moments[0] == (0.485, 0.456, 0.406)
