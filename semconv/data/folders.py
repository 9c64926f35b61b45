"""Folders of image files, with or without a folder per split and per class."""

import os
import re
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from semconv.data.errors import SourceMissing
from semconv.data.images import FileImages, printable
from semconv.data.order import is_held_out
from semconv.files import user_path

SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "eval", "test", "testing"}
# files that Pillow reads; the same for listing, training, maps and prediction
SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".jp2"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
}
METADATA = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}  # of archives and file systems
SHOWN = 3  # names in a message
NUMBER = re.compile(r"\d+")


@dataclass
class Listing:
    """The images below a folder, and everything else that is there.

    Args:
        images: paths in natural order.
        unused: paths by the reason why they are no images of the data set.
    """

    images: list[str] = field(default_factory=list)
    unused: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def open_folder(
    folder: str,
    split: str,
    channels: int,
    splits: Sequence[str] = ("train", "test"),
    skip: bool = False,
    test_fraction: float | None = None,
    labelled: bool = True,
) -> FileImages:
    """The images of `folder/split/class`. Class folders are optional, and so are split folders for the first split.

    Classes are those of the first split, so that labels agree; images of other splits in other folders have no label. What is not
    used is counted, and named on stderr.

    Args:
        folder: the folder.
        split: the split to open.
        channels: 1 or 3.
        splits: names of all splits that are used: for training, for testing and, if there is a third, for validation.
        skip: leave out a folder that cannot be read.
        test_fraction: share of the images of a folder without splits that is the second split, chosen by a hash of the name.
        labelled: folders are classes.

    Raises:
        ValueError: the folder, the split or its images are missing, a folder cannot be read, or there are splits and a fraction.
    """
    root = user_path(folder)
    if not root.is_dir():
        raise SourceMissing(f"there is no folder {folder}: give a folder of images, scenes, torch/…, hfds/…, hfids/… or wds/…")
    base = _find_base(root, split, splits, test_fraction)
    beside = [root / name for name in _subfolders(root) if _is_split(name, splits)] if base != root else []
    others = [other for other in beside if not base.samefile(other)]
    found = list_images(base, skip, others)
    if not found.images:
        raise SourceMissing(f"{base} holds no images: {', '.join(sorted(SUFFIXES))} are read")
    first = _named(splits[0], _subfolders(root))
    if first is None or base in (root, root / first):
        classes = _classes(base, found.images)
    else:
        classes = _classes_of_split(root / first, skip, [other for other in beside if not other.samefile(root / first)])
    if test_fraction is not None:
        _keep_part(found, base, split, splits, test_fraction)
    labels = {name: number for number, name in enumerate(classes if labelled else [])}
    numbers = [labels.get(_class_of(path, base), -1) for path in found.images]
    if labels and (unlabelled := [path for path, number in zip(found.images, numbers, strict=True) if number < 0]):
        found.unused[f"images of no class of {splits[0]}, which get no label"] += unlabelled
    if base != root and split == splits[0]:
        _report(root, *_beside(root, splits))
    if split == splits[0] or test_fraction is None:  # the other part of a folder has been said
        _report(base, f"{len(found.images):,} images", found.unused)
    return FileImages(zip(found.images, numbers, strict=True), list(labels) or None, channels)


def _keep_part(found: Listing, base: Path, split: str, splits: Sequence[str], test_fraction: float) -> None:
    """Keep the images of one split of a folder without splits.

    A hash of its name, relative to the folder, decides on each image, so that an image stays where it is when others are added.
    """
    if split not in splits[:2]:
        raise ValueError(f"{base} has no split {split!r}: with test_fraction there are {splits[0]} and {splits[1]}")
    names = [zlib.crc32(os.fsencode(os.path.relpath(path, base))) for path in found.images]
    held_out = is_held_out("test", torch.tensor(names), test_fraction).tolist()
    number = len(found.images)
    found.images = [path for path, held in zip(found.images, held_out, strict=True) if held == (split == splits[1])]
    if not found.images:
        raise ValueError(f"test_fraction {test_fraction} of {number} images leaves none for {split}: give another, or more images")


def list_images(base: Path, skip: bool = False, others: Sequence[Path] = ()) -> Listing:
    """List the images below a folder, each once, whatever links there are.

    Args:
        base: the folder.
        skip: leave out a folder that cannot be read.
        others: folders whose images are not taken through a link, as they are those of other splits.

    Raises:
        ValueError: a folder cannot be read, and `skip` is False.
    """
    # a link to a folder that holds this one, and so has been entered already, would bring what is beside it
    closed = {_identity(folder) for folder in (base, *base.resolve().parents)}
    walk = _Walk(skip, closed, [Path(os.path.realpath(other)) for other in others])
    found = Listing(unused=walk.unused)
    links: set[str] = set()
    for path, is_link in walk.images(base):
        found.images.append(path)
        if is_link:
            links.add(path)
    found.images.sort()  # names that differ in case alone have an order too
    found.images.sort(key=lambda path: natural_key(path[len(str(base)) :]))
    if links:
        _drop_repeated(found, links)
    if empty := _without_images(walk.entered, found.images):
        found.unused["folders without images"] = empty
    return found


def _without_images(folders: Sequence[str], images: Sequence[str]) -> list[str]:
    """The uppermost folders below which no image lies."""
    full: set[str] = set()
    for path in images:
        while (path := os.path.dirname(path)) and path not in full:
            full.add(path)
    return [folder for folder in folders if folder not in full and os.path.dirname(folder) in full]


def _drop_repeated(found: Listing, links: set[str]) -> None:
    """Drop links to images that are listed already; a link to nothing stays, as an image that cannot be read."""
    targets = {path: os.path.realpath(path) for path in links if os.path.exists(path)}
    wanted, used = set(targets.values()), set()
    folders: dict[str, str] = {}
    for path in found.images:
        if path not in links:
            folder, name = os.path.split(path)
            folders[folder] = folders.get(folder) or os.path.realpath(folder)
            used |= {os.path.join(folders[folder], name)} & wanted
    images = []
    for path in found.images:
        target = targets.get(path)
        if target is None or target not in used:
            images.append(path)
        else:
            found.unused["links to images that are used already"].append(path)
        if target is not None:
            used.add(target)
    found.images = images


def natural_key(name: str) -> str:
    """A key that sorts names by the values of their numbers, and without regard to case; a string, as it takes least memory."""
    return NUMBER.sub(_by_value, name.lower())


def _by_value(digits: re.Match[str]) -> str:
    number = str(int(digits[0]))
    return f"\0{chr(len(number))}{number}"  # a number comes before all letters, a shorter one before longer ones


@dataclass
class _Walk:
    """A walk that enters each folder once: links after all folders, so that an image counts where it lies.

    Of links, those with the shorter path come first, and a link to a folder inside another link's folder keeps its images.
    """

    skip: bool = True  # leave out a folder that cannot be read
    visited: set[tuple[int, int]] = field(default_factory=set)
    forbidden: Sequence[Path] = ()  # resolved folders that are not entered through a link
    unused: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    links: list[str] = field(default_factory=list)  # to folders, not followed yet
    entered: list[str] = field(default_factory=list)

    def images(self, base: str | Path) -> Iterator[tuple[str, bool]]:
        """The images below a folder, each with whether it is a link."""
        self.visited.add(_identity(base))
        folders = [str(base)]
        while folders:
            for folder in folders:
                yield from self.enter(folder)
            links, self.links = sorted(self.links, key=lambda path: (path.count(os.sep), natural_key(path))), []
            folders = [link for link in links if self._is_new(link)]

    def enter(self, folder: str | Path) -> Iterator[tuple[str, bool]]:
        """The same, but links to folders wait in `links`."""
        try:
            entries = os.scandir(folder)
        except OSError as error:
            self._leave_out(folder, error)
            return
        self.entered.append(str(folder))
        others = []
        with entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and _is_image(entry.name) and not _is_hidden(entry.name):
                    yield entry.path, False
                else:
                    others.append(entry)
        for entry in sorted(others, key=lambda entry: entry.name):
            if _is_hidden(entry.name):
                self.unused["hidden entries"].append(entry.path)
            elif entry.is_symlink():
                yield from self._follow(entry.path)
            elif entry.is_dir():
                if self._is_new(entry.path):
                    yield from self.enter(entry.path)
            elif _is_image(entry.name):
                self.unused["entries that are no files"].append(entry.path)
            else:
                self.unused["files that are no images"].append(entry.path)

    def _follow(self, link: str) -> Iterator[tuple[str, bool]]:
        if any(Path(os.path.realpath(link)).is_relative_to(other) for other in self.forbidden):
            self.unused["links to images of other splits"].append(link)
        elif os.path.isdir(link):
            self.links.append(link)
        elif not _is_image(link):
            self.unused["files that are no images" if os.path.exists(link) else "links that cannot be followed"].append(link)
        elif os.path.isfile(link) or not os.path.exists(link):
            yield link, True
        else:
            self.unused["entries that are no files"].append(link)

    def _is_new(self, folder: str) -> bool:
        try:
            identity = _identity(folder)
        except OSError as error:
            self._leave_out(folder, error)
            return False
        if identity in self.visited:
            self.unused["links to folders that are read already"].append(folder)
        elif identity in map(_identity, self.forbidden):
            self.unused["links to images of other splits"].append(folder)
        else:
            self.visited.add(identity)
            return True
        return False

    def _leave_out(self, folder: str | Path, error: OSError) -> None:
        if not self.skip:
            raise ValueError(
                f"{printable(str(folder))} cannot be read ({error.strerror}): give access, remove it, or set on_bad_image to skip"
            ) from error
        self.unused["folders that cannot be read"].append(str(folder))


def _find_base(root: Path, split: str, splits: Sequence[str], test_fraction: float | None) -> Path:
    """The folder of a split, or the root, if there are none: then all folders are classes.

    Folders are splits where all that hold images have names of splits; where several have, and one of them holds folders of images;
    or where an option gives one a name of its own.
    """
    names = _subfolders(root)
    known = [name for name in names if _is_split(name, splits)]
    others = [name for name in names if name not in known and _has_images(root / name)] if known else []
    stated = any(name.lower() not in SPLIT_NAMES for name in known)
    if known and (not others or stated or (len(known) > 1 and any(_has_folders_of_images(root / name) for name in known))):
        if test_fraction is not None:
            raise ValueError(f"test_fraction is {test_fraction}, and {root} has splits: leave it out")
        name = _named(split, known)
        if name is None:
            raise ValueError(f"{root} has no split {split!r}: {_choices(known, split, splits)}")
        return root / name
    if split != splits[0] and test_fraction is None:
        what, remedy = "images to train with", f"add folders {splits[0]} and {split}"
        if _named(split, known):
            what, remedy = f"classes ({shown(known)} beside {shown(others)})", f"move {shown(others)} elsewhere if those are splits"
        raise ValueError(f"{root} has no split {split!r}, only {what}: {remedy}, or give --data.test_fraction 0.2")
    if known and split == splits[0]:
        print(f"{root}: no splits but classes: {shown(known)} (beside {shown(others)})", file=sys.stderr)
    return root


def _named(split: str, names: Sequence[str]) -> str | None:
    """The folder of a split: of the same name, else of the same name in other case."""
    return split if split in names else next((name for name in names if name.lower() == split.lower()), None)


def _is_split(name: str, splits: Sequence[str]) -> bool:
    return name.lower() in SPLIT_NAMES.union(each.lower() for each in splits)


def _beside(root: Path, splits: Sequence[str]) -> tuple[str, dict[str, list[str]]]:
    """The splits that are used, and all else that is beside them."""
    folders = _subfolders(root)
    used = [name for name in (_named(split, folders) for split in splits) if name is not None]
    unused = defaultdict(list)
    for name in sorted(os.listdir(root)):
        path = root / name
        if _is_hidden(name):
            unused["hidden entries"].append(str(path))
        elif name not in folders:
            unused["images in no split" if _is_image(name) else "files that are no images"].append(str(path))
        elif not any(path.samefile(root / other) for other in used):
            unused[_kind(path, splits)].append(str(path))
    return f"the splits are {' and '.join(used)}", unused


def _kind(folder: Path, splits: Sequence[str]) -> str:
    if not os.access(folder, os.R_OK | os.X_OK):
        return "folders that cannot be read"
    if not _has_images(folder):
        return "folders without images"
    return "splits that are not used" if _is_split(folder.name, splits) else "folders of images in no split"


def _choices(known: Sequence[str], split: str, splits: Sequence[str]) -> str:
    """The option that takes one of the splits that are there."""
    option = dict(zip(splits, ("train_split", "test_split", "validation_split"), strict=False)).get(split)
    used = [_named(each, known) for each in splits]
    unused = [name for name in known if name not in used]
    if option is None or not unused:
        return f"choose among {', '.join(known)}"
    return f"give --data.{option} {' or '.join(unused)}"


def _classes(base: Path, images: Sequence[str]) -> list[str]:
    """The class folders that hold images, in the order of their labels."""
    return sorted(sorted({_class_of(path, base) for path in images} - {""}), key=natural_key)


def _classes_of_split(base: Path, skip: bool, others: Sequence[Path]) -> list[str]:
    """The class folders of a split, without the whole list of its images where each class holds one that is no link."""
    names = _subfolders(base)
    if any((base / name).is_symlink() for name in names) or not all(_holds_file(base / name, skip) for name in names):
        return _classes(base, list_images(base, skip, others).images)
    return sorted(names, key=natural_key)


def _holds_file(folder: Path, skip: bool) -> bool:
    return any(not is_link for _, is_link in _Walk(skip).enter(folder))


def _has_images(folder: Path) -> bool:
    return next(_Walk().images(folder), None) is not None


def _has_folders_of_images(folder: Path) -> bool:
    return any(_has_images(folder / name) for name in _subfolders(folder))


def _class_of(path: str, base: Path) -> str:
    """The folder below the base that holds an image; '' for an image in the base itself."""
    name, inside, _ = path[len(str(base)) + 1 :].partition(os.sep)
    return name if inside else ""


def _subfolders(folder: Path) -> list[str]:
    """Names of folders, but for hidden ones; none if the folder cannot be read."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return []
    folders = (entry for entry in entries if (os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()))
    return sorted(entry.name for entry in folders if not _is_hidden(entry.name))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in METADATA


def _identity(folder: str | Path) -> tuple[int, int]:
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def _report(base: Path, what: str, unused: dict[str, list[str]]) -> None:
    if unused:
        parts = [
            f"{len(paths)} {reason} ({shown([os.path.relpath(path, base) for path in paths])})" for reason, paths in unused.items()
        ]
        print(f"{base}: {what}; besides: {', '.join(parts)}", file=sys.stderr)


def shown(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return ", ".join([*map(printable, names[:SHOWN]), *(["…"] if len(names) > SHOWN else [])])
