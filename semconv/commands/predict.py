"""`semconv predict`: reconstructions of a user's own images, or of test images."""

import argparse
import sys
from copy import copy
from pathlib import Path
from typing import Any

from semconv.commands.arguments import split
from semconv.commands.errors import fail, in_one_line
from semconv.commands.values import positive, user_path

DESCRIPTION = """Mask the images of a folder, and reconstruct them with a run's network: one PNG per image, seen | predicted |
pasted | original, and a contact sheet. Each image is resized until it just covers the run's image size, then its centre is
cropped."""
EPILOG = """`semconv predict -c RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt` reconstructs the test images of a run
instead: with -c, predict is a subcommand like fit, and `semconv fit --help` lists its options."""


def main(arguments: list[str]) -> None:
    """Reconstruct the images of a folder; given a configuration (-c), the test images that it names."""
    if any(option.is_config for option in split(arguments)):
        from semconv.commands.training import main as train

        train(["predict", *arguments])
        return
    given = make_parser().parse_args(arguments)
    with in_one_line(given.debug):
        _predict(given)


def _predict(given: argparse.Namespace) -> None:
    from semconv.data.decoding import MAX_PIXELS
    from semconv.tasks import MaskedReconstruction
    from semconv.trained.predict import list_images, predict, read_images
    from semconv.trained.run import load_run

    paths = list_images(given.images)
    _require_place(given.output, given.images, given.overwrite)
    run = load_run(given.run, given.trust)
    if not isinstance(run.task, MaskedReconstruction):
        fail(f"{given.run} is not a run of masked reconstruction: it predicts no images")
    geometry = run.task.geometry
    masker = _masker(given, run.task)
    limit = given.max_pixels or getattr(run.data, "max_pixels", MAX_PIXELS)
    read = read_images(paths, geometry.channels, geometry.size, getattr(run.data, "given_range", None), limit)
    if read.bad and (given.on_bad_image == "stop" or not read.paths):
        remedy = "" if given.on_bad_image == "skip" else "; or give --on_bad_image skip"
        larger = "give a larger --max_pixels, " if any("pixels, more than" in reason for reason in read.bad) else ""
        fail(f"{len(read.bad)} files cannot be read as images: {'; '.join(read.bad)}: {larger}replace or remove them{remedy}")
    for reason in read.bad:
        print(f"left out: {reason}", file=sys.stderr)
    height, width = geometry.size
    print(f"images are resized to cover {width} x {height} pixels, and the centre is cut out")
    *written, sheet = predict(run, read, given.output, masker, given.seed)
    print(f"written to {given.output}: {len(written)} pictures in images, and {sheet.name}")


def _masker(given: argparse.Namespace, task: Any) -> Any:
    """The masker that the options ask for; None: the run's own."""
    from semconv import masking
    from semconv.trained.predict import GivenMask, read_mask

    if given.mask is not None:
        if given.masker is not None or given.ratio is not None:
            fail("--mask gives the masked cells: leave out --masker and --ratio")
        geometry = task.geometry
        mask, moved = read_mask(given.mask, geometry.size, geometry.cell)
        print(
            f"{given.mask}: {int(mask.sum())} of {mask.numel()} cells of {geometry.cell} x {geometry.cell} pixels are masked; "
            f"{moved} pixels were snapped to their cell"
        )
        return GivenMask(mask)
    if given.masker is None and given.ratio is None:
        return None
    if given.masker is None:
        masker = copy(task.masker)
        masker.low = masker.high = masking.RandomMasker(given.ratio).low
        masker.check(task.num_cells)
        return masker
    kinds = {kind.__name__: kind for kind in masking.Masker.__subclasses__() if kind.__module__ == masking.__name__}
    kind = kinds.get(given.masker, kinds.get(f"{given.masker.capitalize()}Masker"))
    if kind is None:
        fail(f"there is no masker {given.masker}: choose among {', '.join(kinds)}")
    masker = kind() if given.ratio is None else kind(given.ratio)
    masker.check(task.num_cells)
    return masker


def _require_place(output: Path, images: Path, overwrite: bool) -> None:
    """Refuse an output folder that is not empty, or is not a folder."""
    if output.resolve() == images.resolve():
        fail(f"--output {output} is the folder of the images: give another")
    if output.exists() and not output.is_dir():
        fail(f"--output {output} is a file: give a folder")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        fail(f"--output {output} is not empty: give another folder, or --overwrite")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(prog="semconv predict", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", type=user_path, help="Folder of a run, runs/<experiment>/<run id>.")
    parser.add_argument("--images", type=user_path, required=True, metavar="FOLDER", help="Folder of images of any size.")
    parser.add_argument("--output", type=user_path, required=True, metavar="DIR", help="Folder for the pictures.")
    parser.add_argument(
        "--mask", type=user_path, metavar="FILE", help="Mask image of the run's size, white where masked; snapped to cells."
    )
    parser.add_argument("--masker", metavar="NAME", help="Masker: random, block, grid, raster, centre or half. Default: the run's.")
    parser.add_argument("--ratio", type=float, help="Masked share of the cells. Default: the run's.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the masks (0).")
    parser.add_argument("--on_bad_image", choices=("stop", "skip"), default="stop", help="If an image cannot be read (stop).")
    parser.add_argument(
        "--max_pixels", type=positive, metavar="N", help="Pixels of an image above which it is not read. Default: the run's."
    )
    parser.add_argument("--overwrite", action="store_true", help="Write into a folder that is not empty.")
    parser.add_argument(
        "--trust",
        action="extend",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="Modules of your own that the run's configuration may name.",
    )
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    return parser
