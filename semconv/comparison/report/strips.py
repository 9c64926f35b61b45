"""The same test images as every variant reconstructs them, from the pictures that runs save."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup
from PIL import Image

from semconv.comparison.grouping import Level, Variant, at
from semconv.comparison.report.sources import is_local
from semconv.comparison.report.svg import tag
from semconv.tracking.folder import RunFolder

KINDS = ("original", "seen", "pasted")
IMAGES, SIDE = 6, 96  # images of a strip; pixels of the longer side of one, at most
MOST_PIXELS = 2**24  # of a picture that is opened
MOST_BYTES = 4_000_000  # of all pictures of a report
GAP = 2

Pictures = dict[str, dict[int, Image.Image]]  # by kind and number


class Strip(NamedTuple):
    """Some images side by side."""

    label: str
    uri: str
    width: int
    height: int


class Strips(NamedTuple):
    """All strips of a report."""

    strips: list[Strip]
    numbers: list[int]
    left_out: list[str]  # titles of variants
    size: int  # bytes


def gather(variants: list[Variant]) -> Strips:
    """Original and seen once, then what each variant pastes into the hidden cells; variants at one level share their images.

    A variant without pictures, with other images, or whose pictures would make the report too large is left out by name.
    """
    strips: list[Strip] = []
    left_out: list[str] = []
    originals: dict[Level, bytes] = {}
    numbers: list[int] = []
    size = 0
    for variant in variants:
        new: list[Strip] = []
        pictures = _of(variant)
        if pictures:
            original = b"".join(image.tobytes() for image in pictures["original"].values())
            labels = {"pasted": variant.title}
            if variant.level not in originals:
                labels = {"original": f"original{at(variant.level)}", "seen": f"encoder input{at(variant.level)}", **labels}
            if originals.get(variant.level, original) == original:
                new = [_strip(label, list(pictures[kind].values())) for kind, label in labels.items() if kind in pictures]
        added = sum(len(strip.uri) for strip in new)
        if pictures and new and size + added <= MOST_BYTES:
            originals[variant.level], numbers = original, list(pictures["original"])
            strips += new
            size += added
        else:
            left_out.append(variant.title)
    return Strips(strips, numbers, left_out, size)


def draw(found: Strips) -> Markup:
    """The strips below one another, each with its name."""
    return tag("div", *(_draw(strip, found.numbers) for strip in found.strips), class_="strips")


def read(folder: Path) -> Pictures | None:
    """The pictures `<kind>-<number>.png` of a folder; None where some are missing, of another size, or cannot be read."""
    paths = {kind: sorted(folder.glob(f"{kind}-*.png"))[:IMAGES] for kind in KINDS}
    try:
        found = {kind: {int(path.stem.rpartition("-")[2]): _open(path) for path in own} for kind, own in paths.items() if own}
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    sizes = {image.size for images in found.values() for image in images.values()}
    together = {"original", "pasted"} <= found.keys() and len({tuple(images) for images in found.values()}) == len(sizes) == 1
    return found if together else None


def _of(variant: Variant) -> Pictures | None:
    """The pictures of the first seed that has some."""
    runs = [run for _, run in sorted(variant.runs.items()) if is_local(run)]
    return next((found for run in runs if (found := read(RunFolder(run.folder).media / "test"))), None)


def _open(path: Path) -> Image.Image:
    with Image.open(path) as file:
        if file.width * file.height > MOST_PIXELS:
            raise ValueError(f"{path} has {file.width} x {file.height} pixels")
        image = file.convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


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
    words = f"{strip.label}: test images {', '.join(map(str, numbers))}"
    image = tag("img", src=strip.uri, alt=words, width=strip.width, height=strip.height)
    return tag("div", tag("p", strip.label), image, class_="strip")
