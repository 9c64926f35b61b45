"""Folders of image files, with or without a folder per split and per class."""

import os
from pathlib import Path

import timm.data
from timm.utils.misc import natural_key

from semconv.configuration import one_line
from semconv.data.errors import SourceMissing
from semconv.data.images import FileImages

SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "eval", "test", "testing"}


def open_folder(folder: str, split: str, channels: int) -> FileImages:
    """The images of `folder/split/class`. Class folders are optional, and so are split folders for the split `train`.

    Classes are numbered over all splits together, so that labels agree even if a split lacks a class.

    Raises:
        ValueError: the folder, the split or its images are missing.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise SourceMissing(f"there is no folder {folder}: give a folder of images, scenes, torch/…, hfds/…, hfids/… or wds/…")
    base = _find_split(root, split)
    classes = _list_classes(root, base)
    labels = {name: number for number, name in enumerate(classes)}
    samples = [(path, labels.get(_class_of(path, base), -1)) for path in _list_images(base)]
    return FileImages(samples, classes or None, channels)


def _find_split(root: Path, split: str) -> Path:
    if (root / split).is_dir():
        return root / split
    splits = [name for name in _subfolders(root) if name in SPLIT_NAMES]
    if splits:
        raise ValueError(f"{root} has no split {split!r}: choose among {', '.join(splits)}")
    if split != "train":
        raise ValueError(f"{root} has no split {split!r}, only images to train with: add folders train and {split}")
    return root


def _list_classes(root: Path, base: Path) -> list[str]:
    """The class folders of every split, in the order of their labels."""
    splits = [base] if base == root else [root / name for name in _subfolders(root) if name in SPLIT_NAMES]
    return sorted({name for split in {base, *splits} for name in _subfolders(split)}, key=natural_key)


def _list_images(base: Path) -> list[str]:
    try:
        reader = timm.data.create_dataset("", root=str(base), search_split=False).reader
    except RuntimeError as error:
        raise SourceMissing(f"{base} holds no images ({one_line(error)})") from error
    return [path for path, _ in reader.samples]


def _class_of(path: str, base: Path) -> str:
    return path[len(str(base)) + 1 :].partition(os.sep)[0]


def _subfolders(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir() if child.is_dir())
