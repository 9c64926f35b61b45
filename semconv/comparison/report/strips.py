"""The same images as every variant reconstructs them, cut from the runs' own contact sheets."""

import base64
import io
import json
from typing import Any, NamedTuple

from markupsafe import Markup
from PIL import Image

from semconv.comparison.grouping import Variant, show_level
from semconv.comparison.report.sources import is_local, media
from semconv.comparison.report.svg import tag

IMAGES, SIDE = 6, 96  # images of a strip; pixels of the longer side of one, at most
MOST_BYTES = 4_000_000  # of all pictures of a report
GAP = 2


class Strip(NamedTuple):
    """Some images side by side."""

    label: str
    uri: str
    width: int
    height: int


class Strips(NamedTuple):
    """What there is to be looked at."""

    strips: list[Strip]
    numbers: list[int]
    note: str
    left_out: list[str]  # labels
    size: int  # bytes


class Sheet(NamedTuple):
    """A contact sheet taken apart."""

    columns: dict[str, list[Image.Image]]
    numbers: list[int]
    note: str


def gather(variants: list[Variant]) -> Strips:
    """Original and seen once, and then what each variant pastes into the hidden cells; variants at one level share their images.

    A variant whose images are others, or that would make the report larger than it may be, is left out by name.
    """
    strips: list[Strip] = []
    left_out: list[str] = []
    shown: dict[Any, bytes] = {}  # original by level
    numbers: list[int] = []
    notes: dict[str, None] = {}
    size = 0
    for variant in variants:
        sheet = _of(variant)
        if sheet is None:
            left_out.append(_label(variant))
            continue
        made = [("pasted", _label(variant))]
        original = b"".join(image.tobytes() for image in sheet.columns["original"])
        if variant.level not in shown:
            at = f", {show_level(variant.level)}" if variant.level else ""
            made = [("original", f"original{at}"), ("seen", f"what a network sees{at}"), *made]
        elif shown[variant.level] != original:
            left_out.append(_label(variant))
            continue
        new = [_strip(label, sheet.columns[column]) for column, label in made if column in sheet.columns]
        if size + sum(len(strip.uri) for strip in new) > MOST_BYTES:
            left_out.append(_label(variant))
            continue
        shown[variant.level] = original
        strips += new
        size += sum(len(strip.uri) for strip in new)
        numbers = sheet.numbers
        notes |= {sheet.note: None} if sheet.note else {}
    return Strips(strips, numbers, "; ".join(notes), left_out, size)


def draw(found: Strips) -> Markup:
    """The strips below one another, each with its name."""
    return tag("div", *(_draw(strip, found.numbers) for strip in found.strips), class_="strips")


def read(path: Any) -> Sheet | None:
    """Take a contact sheet apart, by what it says of itself; None where it does not, or cannot be read."""
    try:
        with Image.open(path) as file:
            about = json.loads(file.info["semconv"])
            image = file.convert("RGB")
        (top, left), (down, across), (tall, wide) = about["first"], about["step"], about["tile"]
        if not (0 < tall <= image.height and 0 < wide <= image.width):
            return None
        columns = {
            str(name): [
                image.crop((left + j * across, top + i * down, left + j * across + wide, top + i * down + tall)).resize(
                    _size(*about["size"]),
                    Image.Resampling.NEAREST if tall >= about["size"][0] <= SIDE else Image.Resampling.LANCZOS,
                )
                for i in range(min(IMAGES, int(about["rows"])))
            ]
            for j, name in enumerate(about["columns"])
        }
        return Sheet(columns, [int(number) for number in about["numbers"]][:IMAGES], str(about["note"]))
    except (OSError, KeyError, TypeError, ValueError, Image.DecompressionBombError):
        return None


def _of(variant: Variant) -> Sheet | None:
    """The sheet of the first seed that has one."""
    for _, run in sorted(variant.runs.items()):
        sheet = read(media(run)) if is_local(run) else None
        if sheet is not None and {"original", "pasted"} <= set(sheet.columns):
            return sheet
    return None


def _size(height: int, width: int) -> tuple[int, int]:
    """Width and height of an image in a strip: its own, or less."""
    factor = min(1.0, SIDE / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _strip(label: str, images: list[Image.Image]) -> Strip:
    wide, tall = images[0].size
    strip = Image.new("RGB", (len(images) * (wide + GAP) - GAP, tall), "white")
    for number, image in enumerate(images):
        strip.paste(image, (number * (wide + GAP), 0))
    file = io.BytesIO()
    kind = "png" if max(wide, tall) <= SIDE // 2 else "jpeg"
    strip.save(file, kind, **({"optimize": True} if kind == "png" else {"quality": 90}))
    return Strip(label, f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}", *strip.size)


def _draw(strip: Strip, numbers: list[int]) -> Markup:
    words = f"{strip.label}: test images {', '.join(map(str, numbers))}" if numbers else f"{strip.label}: test images"
    image = tag("img", src=strip.uri, alt=words, width=strip.width, height=strip.height)
    return tag("div", tag("p", strip.label), image, class_="strip")


def _label(variant: Variant) -> str:
    return f"{variant.label} at {show_level(variant.level)}" if variant.level else variant.label
