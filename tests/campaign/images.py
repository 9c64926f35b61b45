"""Folders of images as nobody would make them: every entry is used, or named, and nothing leaves its split."""

import contextlib
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from semconv.data import ImageData
from semconv.data.folders import METADATA, SUFFIXES
from tests.campaign.trial import Trial, attempt

NAMES = (
    "a",
    "b",
    "B",
    "10",
    "9",
    "test",
    "val",
    "train",
    "ü",
    "a b",
    "x.png",
    ".hidden",
    "__MACOSX",
    "@eaDir",
    "semi;colon",
    "q'uote",
)
OTHERS = ("notes.txt", "Thumbs.db", "labels.csv", "a.png.part", "._1.png", "b.npy", "c")


def image_folders(random: Random, folder: Path) -> Iterator[Trial]:
    """Trees of folders drawn at random: what is opened is counted against an independent count of what is there."""
    while True:
        root = folder / "images"
        shutil.rmtree(root, ignore_errors=True)
        splits = random.choice((("train", "test"), ("train", "test", "extra"), ("training", "val"), ("",), ("", "train")))
        for split in splits:
            for name in random.sample(NAMES, random.randint(1, 4)) if random.random() < 0.8 else [""]:
                _fill(root / split / name, random)
        case = f"seed of the tree: {' '.join(sorted(str(path.relative_to(root)) for path in root.rglob('*'))[:12])} …"
        yield _try(root, "val" if "val" in splits else "test", case)


def _fill(folder: Path, random: Random) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(random.randint(0, 12)):
        suffix = random.choice((".png", ".png", ".jpg", ".JPEG", ".webp", ".bmp", ".gif", ".tif", ".ppm"))
        pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}{suffix}")
    for name in random.sample(OTHERS, random.choice((0, 0, 1, 2))):
        (folder / name).write_text("nothing")
    links = {"loop": folder, "again": folder.parent}
    links = {name: target for name, target in links.items() if random.random() < 0.2 and not (folder / name).is_symlink()}
    for name, target in links.items():  # a folder may be filled twice
        (folder / name).symlink_to(target)
    if random.random() < 0.1 and not (folder / "pipe.png").exists():
        os.mkfifo(folder / "pipe.png")
    images = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    if images and random.random() < 0.2 and not (folder / "copy.png").is_symlink():
        (folder / "copy.png").symlink_to(random.choice(images))


def _try(root: Path, test_split: str, case: str) -> Trial:
    data = ImageData(str(root), size=(8, 8), batch_size=1, test_split=test_split, num_workers=0, cache_limit=0)
    found: list[str] = []
    err = io.StringIO()

    def open_all() -> None:
        with contextlib.redirect_stderr(err):
            data.setup("fit")
            data.setup("test")
            for part in ("train", "test"):
                images, index = data.select(part)
                images.read(index)
                found.extend(path for path, _ in images.samples)  # type: ignore[attr-defined]

    trial = attempt(open_all, case)
    if trial.outcome != "accepted":
        return trial
    twice = len(found) != len({os.path.realpath(path) for path in found})
    named = sum(
        int(number) for number in re.findall(r"(\d+) (?:images of no class|hidden|links|files|entries|folders)", err.getvalue())
    )
    there = {path for split in {*_used(data)} for path in _images(split)}
    missing = there - {os.path.realpath(path) for path in found}
    if twice or (missing and not named):
        return Trial("used twice, or left out in silence", False, case, f"{sorted(missing)[:5]} {err.getvalue()}")
    return Trial("opened, and the rest named", True, case)


def _used(data: ImageData) -> list[Path]:
    """The folders that the splits were read from."""
    return [Path(os.path.commonpath([path for path, _ in images.samples])) for images in data.opened.values()]  # type: ignore[attr-defined]


def _images(folder: Path) -> Iterator[str]:
    """Real files of images below a folder, each once, without what is hidden."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in METADATA]
        for name in files:
            path = Path(place) / name
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES and path.is_file():
                yield os.path.realpath(path)
