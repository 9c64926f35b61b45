"""`semconv check`: properties that every experiment must have, a user's own classes included."""

import argparse
import sys
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.table import Table

from semconv.commands.errors import fail, in_one_line
from semconv.commands.keys import check_keys
from semconv.commands.short import write_out
from semconv.commands.values import positive, user_path
from semconv.configuration import nearest

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from semconv.checks.leakage import Case
    from semconv.checks.visibility import Reach
    from semconv.tasks import MaskedReconstruction

LEAKAGE = "no hidden pixel reaches the prediction or the features"
VISIBILITY = "the share of masked sites that visible content reaches, layer by layer"
SWEEPS = "the command line accepts every trial of W&B sweep files"
CHECKS = {"leakage": LEAKAGE, "visibility": VISIBILITY, "sweeps": SWEEPS}
USAGE = "semconv check {name} VARIANT [-c FILE] [--dotted.key value]{more}"
LEAKAGE_TEXT = """Hide pixels by every masker and fill, and by the experiment's own, and replace the hidden pixels by other
numbers and by NaN: the outputs must stay equal bit by bit, and their gradient with respect to hidden pixels must be exactly 0, in
every stage, precision, batch size and mask ratio that is met in turn. Weights that start at zero are drawn at random; no data are
read. A leak ends the check with exit code 1 and the name of the first layer that leaks."""
VISIBILITY_TEXT = """Draw masks as the experiment does, change all visible pixels, and count the sites of masked cells whose
features change: after each spatial convolution or pool, and after each stage. Weights that start at zero are drawn at random; no
data are read."""


def main(arguments: list[str]) -> None:
    """List the checks, or run one."""
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [USAGE.format(name="CHECK", more=""), "semconv check sweeps [FILE...]", "", "Checks:"]
        print("\n".join([*lines, *(f"  {name:<12}{text}" for name, text in CHECKS.items()), "", "semconv check CHECK --help"]))
        return
    name, *others = arguments
    match name:
        case "leakage":
            leakage(others)
        case "visibility":
            visibility(others)
        case "sweeps":
            from semconv.commands.check_sweeps import main as sweeps

            sweeps(others)
        case _:
            found = nearest(name, list(CHECKS))
            fail(f"there is no check {name}: " + (f"did you mean {found}?" if found else f"choose among {', '.join(CHECKS)}"))


def leakage(arguments: list[str]) -> None:
    """Check that hidden pixels do not leak; exit with code 1 if they do."""
    _, others, debug = _parse("leakage", LEAKAGE_TEXT, arguments, argparse.ArgumentParser())
    task, data = _build(others, debug)
    from semconv.checks.leakage import check_leakage, untested
    from semconv.data import ImageData

    cases = []
    console = _console()
    with console.status("checking"), in_one_line(debug):
        for case in check_leakage(task, data if isinstance(data, ImageData) else None):
            cases.append(case)
            if case.leak:
                break
    if not task.corruption.hides:
        _say(console, f"{type(task.corruption).__name__} does not hide what it corrupts: the check uses hiding instead")
    console.print(_leakage_table(cases))
    last = cases[-1]
    if last.leak is None:
        _say(console, f"{LEAKAGE}: {len(cases)} ways of hiding, each tested by content, NaN and gradient")
        if others := untested(task, data):
            _say(console, f"not tested, as the check does not run them: {', '.join(others)}")
        return
    shown = f"; the corrupted image differs already, so look at {last.corruption} first" if last.leak.view else ""
    _say(
        console,
        f"leak: hidden pixels reach the {last.leak.what} by their {last.leak.by}, first at {last.leak.layer} "
        f"({last.masker}, {last.corruption}, {last.circumstances}){shown}",
    )
    sys.exit(1)


def visibility(arguments: list[str]) -> None:
    """Print the share of masked sites that visible content reaches, and draw it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=user_path, metavar="DIR", help="Folder for visibility.svg and visibility.json (none).")
    parser.add_argument("--images", type=positive, default=16, metavar="N", help="Number of masks to draw (16).")
    given, others, debug = _parse("visibility", VISIBILITY_TEXT, arguments, parser)
    task, _ = _build(others, debug)
    from semconv.checks.visibility import as_data, draw_masks, visibility

    console = _console()
    with in_one_line(debug), console.status("measuring"):
        mask = draw_masks(task, given.images)
        found = visibility(task.encoder, mask, task.geometry.size, task.geometry.channels)
    ratio, cell = mask.float().mean().item(), task.geometry.cell
    size = " x ".join(map(str, task.geometry.size))
    title = f"visible content reaches this share of the masked sites: {ratio:.1%} of cells of {cell} masked, {size} pixels"
    _say(console, title)
    console.print(_visibility_table(found.layers, found.stages))
    if given.output:
        from semconv.checks.chart import line_chart
        from semconv.files import write_text

        with in_one_line(debug):
            given.output.mkdir(parents=True, exist_ok=True)
            points = [(row.layer, row.share) for row in found.layers or found.stages]
            write_text(given.output / "visibility.svg", line_chart(points, title))
            write_text(given.output / "visibility.json", as_data(found))
        _say(console, f"written to {given.output}: visibility.svg, visibility.json")
    _say(console, _verdict(found.stages))


def _parse(
    name: str, text: str, arguments: list[str], parser: argparse.ArgumentParser
) -> tuple[argparse.Namespace, list[str], bool]:
    """Split the arguments: the check's own options, those of the experiment, and whether to show tracebacks."""
    parser.prog, parser.description, parser.allow_abbrev = f"semconv check {name}", text, False
    parser.usage = USAGE.format(name=name, more=" [--output DIR]" if name == "visibility" else "")
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    given, others = parser.parse_known_args(arguments)
    with in_one_line(given.debug):
        if not others:
            fail(f"check {name} needs an experiment: semconv check {name} cnn_channels; semconv list variants names others")
        others = write_out(others)
        check_keys("fit", others)
    return given, others, given.debug


def _build(arguments: list[str], debug: bool) -> "tuple[MaskedReconstruction, LightningDataModule]":
    """The task of an experiment, and its data.

    Raises:
        SystemExit: the task is not masked reconstruction, or cannot be built.
    """
    from semconv.commands.train import build, explaining, quieten
    from semconv.tasks import MaskedReconstruction

    quieten()
    with explaining(debug):
        built = build(arguments)
    task = built.model
    if not isinstance(task, MaskedReconstruction):
        _refuse(type(task).__name__)
    return task, built.datamodule


def _refuse(name: str) -> NoReturn:
    fail(f"{name} is not a MaskedReconstruction, and hides nothing: give an experiment whose task is one, or extends it")


def _leakage_table(cases: list["Case"]) -> Table:
    """A row per masker, a column per corruption."""
    table = Table("masker")
    columns = list(dict.fromkeys(case.corruption for case in cases))
    for column in columns:
        table.add_column(column)
    for masker in dict.fromkeys(case.masker for case in cases):
        cells = []
        for column in columns:
            found = [case for case in cases if (case.masker, case.corruption) == (masker, column)]
            leaking = next((case for case in found if case.leak), None)
            cells.append(f"leak in {leaking.circumstances.stage}" if leaking else "ok" if found else "")
        table.add_row(masker, *cells)
    return table


def _visibility_table(layers: list["Reach"], stages: list["Reach"]) -> Table:
    table = Table("layer")
    table.add_column("sites", justify="right")
    table.add_column("reached", justify="right")
    for rows in (layers, stages):
        for row in rows:
            table.add_row(row.layer, f"{row.sites[0]} x {row.sites[1]}", "-" if row.share is None else f"{row.share:.1%}")
        table.add_section()
    return table


def _verdict(stages: list["Reach"]) -> str:
    """Name the first stage at which a mask that enters only at the input may be lost."""
    whole = next((row for row in stages if row.share is not None and row.share > 0.995), None)
    if whole is None:
        return "visible content never reaches every masked site: features can show the mask up to the last stage"
    return f"from {whole.layer} on, visible content can reach (almost) every masked site: the mask may be lost there, or not"


def _console() -> Console:
    """A terminal that shows text as it is: names may hold brackets and colons."""
    return Console(width=None if sys.stdout.isatty() else 150, markup=False, emoji=False)


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False)
