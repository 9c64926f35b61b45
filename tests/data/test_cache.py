"""Sets that are decoded once."""

import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semconv.data import ImageData, cache
from semconv.data.cache import CachedImages, build
from semconv.data.folders import open_folder
from semconv.data.images import FileImages, Images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 images in two classes, of one size."""
    return write_images(tmp_path / "images", [(10, 12)] * 40)


def write_images(folder: Path, sides: list[tuple[int, int]]) -> Path:
    generator = np.random.default_rng(0)
    for i, (height, width) in enumerate(sides):
        path = folder / "train" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return folder


def open_cached(folder: Path, **options: object) -> Images:
    data = ImageData(str(folder), size=(8, 8), cache_folder=str(folder.parent / "cache"), **options)  # type: ignore[arg-type]
    return data.select("train")[0]


def places(folder: Path) -> list[Path]:
    return sorted((folder.parent / "cache").iterdir())


@pytest.mark.parametrize("sides", [[(10, 12)] * 40, [(10 + i, 30 - i) for i in range(20)]], ids=["equal", "mixed"])
def test_a_cache_holds_what_was_decoded(sides: list[tuple[int, int]], tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", sides)
    plain, kept = open_folder(str(folder), "train", 3), open_cached(folder)
    assert isinstance(kept, CachedImages)
    index = torch.tensor([3, 0, 17, 8])
    (ours, labels), (theirs, other_labels) = kept.read(index), plain.read(index)
    assert all(torch.equal(left, right) for left, right in zip(ours, theirs, strict=True))
    assert torch.equal(labels, other_labels)
    assert (kept.num_images, kept.class_names, kept.num_classes) == (len(sides), ("a", "b"), 2)


def test_a_second_run_decodes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_cached(folder)
    monkeypatch.setattr(FileImages, "read", None)
    assert open_cached(folder).read(torch.tensor([1]))[0][0].shape == (3, 10, 12)


def test_an_image_that_changes_is_decoded_again_and_the_old_cache_goes(folder: Path) -> None:
    open_cached(folder)
    before = places(folder)
    Image.new("RGB", (12, 10), (9, 9, 9)).save(folder / "train" / "a" / "00.png")
    assert (open_cached(folder).read(torch.tensor([0]))[0][0] == 9).all()
    assert len(places(folder)) == 1
    assert places(folder) != before


def test_other_channels_have_a_cache_of_their_own(folder: Path) -> None:
    assert open_cached(folder, channels=1).read(torch.tensor([0]))[0][0].shape == (1, 10, 12)
    assert open_cached(folder).read(torch.tensor([0]))[0][0].shape == (3, 10, 12)
    assert len(places(folder)) == 2


@pytest.mark.parametrize("damage", ["pixels.bin", "sides.npy", "labels.npy", "about.json"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_cache_is_built_anew(damage: str, how: str, folder: Path) -> None:
    whole = open_cached(folder).read(torch.arange(40))[0]
    victim = places(folder)[0] / damage
    if how == "cut":
        os.truncate(victim, victim.stat().st_size // 2)
    else:
        victim.unlink()
    again = open_cached(folder).read(torch.arange(40))[0]
    assert torch.equal(torch.as_tensor(whole), torch.as_tensor(again))
    assert isinstance(open_cached(folder), CachedImages)


def test_of_two_that_build_at_once_both_have_the_whole(folder: Path) -> None:
    context = multiprocessing.get_context("fork")  # without importing anything anew
    builders = [context.Process(target=open_cached, args=(folder,)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0, 0]
    assert len(places(folder)) == 1  # nothing is left aside
    assert isinstance(open_cached(folder), CachedImages)


def test_who_comes_second_keeps_what_is_there(folder: Path) -> None:
    images = open_folder(str(folder), "train", 3)
    place = folder.parent / "cache" / "place"
    build(images, place, "test", skip=False)
    before = (place / "pixels.bin").stat().st_ino
    build(images, place, "test", skip=False)
    assert (place / "pixels.bin").stat().st_ino == before


def test_large_sets_are_left_as_they_are(folder: Path) -> None:
    assert isinstance(open_cached(folder, cache_limit=40 * 3 * 120 - 1), FileImages)
    assert isinstance(open_cached(folder, cache_limit=0), FileImages)
    assert isinstance(open_cached(folder, cache_limit=40 * 3 * 120), CachedImages)


def test_without_room_the_run_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.parent / "cache").write_text("a file where the folder should be")
    assert isinstance(open_cached(folder), FileImages)
    assert "cannot hold the decoded images" in capsys.readouterr().err


def test_cached_and_decoded_batches_are_the_same(folder: Path) -> None:
    shutil.rmtree(folder.parent / "cache", ignore_errors=True)
    batches = []
    for limit in (0, 2**30):
        data = ImageData(
            str(folder), size=(8, 8), batch_size=8, num_workers=0, cache_limit=limit, cache_folder=str(folder.parent / "cache")
        )
        batches.append([data.on_after_batch_transfer(batch) for batch in data.train_dataloader()])
    for left, right in zip(*batches, strict=True):
        assert torch.equal(left.index, right.index)
        assert torch.equal(left.images, right.images)


def test_an_image_that_can_be_read_again_is_used_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, read = folder / "train" / "a" / "04.png", Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == victim:
            raise OSError(116, "Stale file handle", str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        kept = open_cached(folder, on_bad_image="skip")
        assert isinstance(kept, CachedImages)
        assert list(kept.bad) == [2]
        patch.setattr(cache, "build", None)  # it is not built again as long as the image cannot be read
        assert isinstance(open_cached(folder, on_bad_image="skip"), CachedImages)
    for _ in range(2):
        kept = open_cached(folder)
        assert isinstance(kept, CachedImages)
        assert kept.bad == {}
        expected = open_folder(str(folder), "train", 3).read(torch.arange(40))[0]
        assert all(torch.equal(left, right) for left, right in zip(kept.read(torch.arange(40))[0], expected, strict=True))
    assert len(places(folder)) == 1
