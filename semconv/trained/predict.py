"""Reconstructions of a user's own images by a trained network."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import reduce
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from semconv.data import Batch
from semconv.data.augmentation import centre_boxes, centre_crops, crop_frames
from semconv.data.batch import normalise
from semconv.data.decoding import MAX_PIXELS, Range, decode
from semconv.data.errors import BadImage
from semconv.data.folders import SUFFIXES
from semconv.data.images import printable, read_file
from semconv.data.sources import Moments
from semconv.masking import Masker
from semconv.pictures import CAPTION, GAP, contact_sheet, save_picture
from semconv.tasks import MaskedReconstruction
from semconv.trained.run import LoadedRun, moments_of

ORDER = {"seen": "seen", "predicted": "reconstruction", "pasted": "pasted", "original": "original"}
SHEET = 64  # images on the contact sheet at most


class GivenMask:
    """One mask for all images, in the place of a `Masker`.

    Args:
        mask: bool `gh gw`, True = masked.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def count(self, num_cells: int, key: Tensor | None = None) -> int:
        return int(self.mask.sum())

    def __call__(self, keys: Tensor, grid: tuple[int, int], count: int) -> Tensor:
        return self.mask.to(keys.device).expand(len(keys), *grid)


class Read(NamedTuple):
    """Images that could be read, and why the others could not."""

    paths: list[Path]
    images: list[Tensor]  # uint8 c h w each, of one size
    frames: list[Tensor]  # 5 each: the view in its file's image, see `View`
    bad: list[str]  # reasons


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, without those of folders within, in the order of their names.

    Raises:
        ValueError: there is no folder, or no image in it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give a folder of images by --images")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    if not found:
        raise ValueError(f"{folder} holds no image: PNG, JPEG and other files that Pillow reads; folders within are not searched")
    return found


def read_images(
    paths: Sequence[Path], channels: int, size: tuple[int, int], values: Range | None = None, max_pixels: int = MAX_PIXELS
) -> Read:
    """Resize each image until it just covers `size`, and cut out the centre; values and max_pixels as in `decode`.

    Raises:
        ValueError: images of that many channels are no files.
    """
    if channels not in (1, 3):
        raise ValueError(f"the run's images have {channels} channels, and image files have 1 (grey) or 3 (RGB)")
    read = Read([], [], [], [])
    for path in paths:
        try:
            image = _decode(path, channels, values, max_pixels)
        except BadImage as error:
            read.bad.append(error.reason)
            continue
        read.paths.append(path)
        read.images.append(centre_crops([image], size)[0])
        sides = torch.tensor([image.shape[1:]])
        read.frames.append(crop_frames(sides, centre_boxes(sides, size), None, size)[0])
    return read


def read_mask(path: Path, size: tuple[int, int], cell: int) -> tuple[Tensor, int]:
    """A mask from an image whose white is masked, and how many pixels became others when it was snapped to cells.

    A cell is masked where at least half of its pixels are lighter than middle grey, 32,768 in 16 bits and .5 in floats.

    Args:
        path: the image, of exactly the size of the run's images.
        size: that size, height and width.
        cell: side of a cell in pixels.

    Returns:
        bool `gh gw`; pixels.

    Raises:
        ValueError: it is no image, of another size, or masks nothing or everything.
    """
    if not path.is_file():
        raise ValueError(f"there is no mask {path}: give an image, white where masked")
    try:
        pixels = _decode(path, 1)[0] >= 128
    except BadImage as error:
        raise ValueError(f"{error.reason}: give an image, white where masked") from error
    if tuple(pixels.shape) != size:
        given, wanted = (f"{width} x {height}" for height, width in (pixels.shape, size))
        raise ValueError(f"{path} is {given} pixels wide and high, and the run's images are {wanted}: draw the mask in that size")
    mask = reduce(pixels.float(), "(gh p) (gw q) -> gh gw", "mean", p=cell, q=cell) >= 0.5
    count = int(mask.sum())
    if count in (0, mask.numel()):
        what = "nothing" if count == 0 else "everything"
        raise ValueError(f"{path} masks {what}, in cells of {cell} pixels: at least one must be masked (white) and one visible")
    snapped = mask.repeat_interleave(cell, 0).repeat_interleave(cell, 1)
    return mask, int((snapped != pixels).sum())


def _decode(path: Path, channels: int, values: Range | None = None, max_pixels: int = MAX_PIXELS) -> Tensor:
    return decode(read_file(str(path)), channels, printable(str(path)), values, max_pixels)


def predict(
    run: LoadedRun, read: Read, output: Path, masker: Masker | GivenMask | None = None, seed: int = 0, batch_size: int = 32
) -> Iterator[Path]:
    """Write a picture seen | predicted | pasted | original of each image, and of the first ones together `contact_sheet.png`.

    Args:
        run: whose network predicts; it is changed: its masker and evaluation seed are those given.
        read: the images.
        output: folder of `images/<file name>.png` and the sheet.
        masker: draws the masks; None: the run's own.
        seed: of the masks.
        batch_size: images at a time.

    Yields:
        each picture's path once it is written.

    Raises:
        ValueError: the network is conditioned on an external map, or the run's data have no moments.
    """
    task, moments = run.task, moments_of(run)
    assert isinstance(task, MaskedReconstruction)
    if "oracle" in task.encoder.conveys:
        raise ValueError(
            "the run's network is conditioned on a map that comes with each image, and images alone have none: take another run"
        )
    task.evaluation_seed = seed
    if masker is not None:
        task.masker = masker  # type: ignore[assignment]
    sheet: list[dict[str, Tensor]] = []
    note = ""
    for first in range(0, len(read.images), batch_size):
        columns, note = _columns(task, read, range(first, min(first + batch_size, len(read.images))), moments)
        if first < SHEET:
            sheet.append(columns)
        for i, path in enumerate(read.paths[first : first + batch_size]):
            picture = contact_sheet({caption: images[i : i + 1] for caption, images in columns.items()}, note)
            place = output / "images" / f"{path.name}.png"
            save_picture(picture, place)
            yield place
    together = {caption: torch.cat([columns[caption] for columns in sheet])[:SHEET] for caption in ORDER}
    save_picture(_named(contact_sheet(together, note), [path.name for path in read.paths[:SHEET]]), output / "contact_sheet.png")
    yield output / "contact_sheet.png"


@torch.no_grad()
def _columns(task: Any, read: Read, places: range, moments: Moments) -> tuple[dict[str, Tensor], str]:
    """Pictures of some of the images by caption, on the CPU, and the note below them."""
    images, frames = (torch.stack([each[place] for place in places]).to(task.device) for each in (read.images, read.frames))
    index = torch.tensor(places, device=task.device)
    made = task.reconstruct(Batch(normalise(images, *moments), torch.full_like(index, -1), index, frame=frames), moments)
    return {caption: made.columns[kind].cpu() for caption, kind in ORDER.items()}, made.note


def _named(sheet: Image.Image, names: Sequence[str]) -> Image.Image:
    """A contact sheet with the name of each row's image on its right."""
    font = ImageFont.load_default(12)
    wide = max(int(font.getlength(name)) for name in names) + 2 * GAP
    whole = Image.new("RGB", (sheet.width + wide, sheet.height), "white")
    whole.paste(sheet)
    draw = ImageDraw.Draw(whole)
    step = (sheet.height - GAP - 2 * CAPTION) / len(names)
    for i, name in enumerate(names):
        draw.text((sheet.width + GAP, CAPTION + GAP + i * step), name, fill="black", font=font)
    return whole
