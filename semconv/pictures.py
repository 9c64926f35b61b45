"""Pictures of reconstructions."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from semconv.files import write_whole

GAP, CAPTION = 4, 18


class Reconstruction(NamedTuple):
    """Pictures of a batch and of its reconstruction."""

    columns: dict[str, Tensor]  # b c h w in [0, 1], by caption: original, seen, reconstruction, pasted
    mask: Tensor  # bool b h w, True = hidden
    numbers: Tensor  # int64 b: the images' places in the data set
    note: str = ""  # a line below the pictures


def contact_sheet(columns: Mapping[str, Tensor], note: str = "", height: int = 96) -> Image.Image:
    """A picture with one row per image and one captioned column per kind.

    Args:
        columns: images by caption, each `b c h w` in [0, 1]; values beyond are cut.
        note: a line below the images.
        height: least height of an image on the sheet; small ones are enlarged in whole steps, without smoothing.
    """
    images = [enlarge(to_rgb(column), height) for column in columns.values()]
    rows, columns_wide = len(images[0]), len(images)
    tall, wide = images[0].shape[2:]
    sheet = Image.new("RGB", (columns_wide * (wide + GAP) + GAP, rows * (tall + GAP) + GAP + 2 * CAPTION), "white")
    for j, column in enumerate(images):
        for i, image in enumerate(column):
            sheet.paste(to_picture(image), (GAP + j * (wide + GAP), CAPTION + GAP + i * (tall + GAP)))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for j, caption in enumerate(columns):
        draw.text((GAP + j * (wide + GAP), 2), caption, fill="black", font=font)
    draw.text((GAP, sheet.height - CAPTION), note, fill="black", font=font)
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    """Save as PNG, with the folders that the path needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: picture.save(file, "PNG"))


def to_rgb(images: Tensor) -> Tensor:
    """`b c h w` in [0, 1] to uint8 `b 3 h w` on the CPU; of channels other than 1 and 3 the first is shown, in grey."""
    images = images.detach().float().cpu().clamp(0, 1).nan_to_num()
    if images.shape[1] != 3:
        images = images[:, :1].expand(-1, 3, -1, -1)
    return (images * 255).round().to(torch.uint8)


def to_picture(image: Tensor) -> Image.Image:
    """A picture of uint8 `3 h w`."""
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def enlarge(images: Tensor, height: int) -> Tensor:
    """`b c h w` to at least `height` pixels, in whole steps, without smoothing."""
    scale = max(1, -(-height // images.shape[2]))
    return images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
