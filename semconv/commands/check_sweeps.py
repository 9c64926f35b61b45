"""`semconv check sweeps`: sweep files tried on the command line, point by point."""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semconv.commands.errors import fail
from semconv.commands.keys import check_keys
from semconv.commands.short import write_out
from semconv.commands.values import positive
from semconv.comparison.declared import declared_by
from semconv.configuration import one_line
from semconv.shipped import find, folders
from semconv.sweeping.distributions import grid_values
from semconv.sweeping.file import Sweep, read_sweep
from semconv.sweeping.macros import expand, own_command
from semconv.sweeping.points import departure

DRAWN = 8  # points of a search that are tried
DESCRIPTION = """Check W&B sweep files: W&B accepts them, the real command line accepts every value of every parameter (nothing is
built or trained), and a trial's configuration then holds that value."""


def main(arguments: list[str]) -> None:
    """Check files, a line each; the exit code is 2 if one is refused."""
    given = _parser().parse_args(arguments)
    folder = folders("sweeps")[-1]
    files = given.files or sorted(folder.glob("*.yaml"))
    if not files:
        fail(f"there is no sweep file in {folder}: give some")
    refused = 0
    for path in files:
        try:
            sweep = read_sweep(find(path, "sweeps"))
            declared_by(sweep.content)
            number = check(sweep, given.points)
        except ValueError as error:
            refused += 1
            print(f"refused  {path}: {one_line(error).removeprefix(f'{path}: ')}")
        else:
            doubt = f"; {sweep.doubt}" if sweep.doubt else ""
            print(f"fine     {path}: {sweep.method}, {number} points{f' of {sweep.total}' if sweep.grid else ''} tried{doubt}")
    if refused:
        fail(f"{refused} of {len(files)} sweep files are refused")


def check(sweep: Sweep, limit: int | None = None) -> int:
    """Try points of a sweep on the command line, and return their number.

    Args:
        sweep: the sweep.
        limit: maximal number of points; None: as many as are needed to try every value of every parameter once.

    Raises:
        ValueError: a point is refused, or a value has no effect.
    """
    tried = 0
    for point in list(points(sweep))[:limit]:
        words = expand(sweep.command, sweep.program, point, Path(tempfile.gettempdir()) / "semconv-check-sweeps.json")
        arguments = own_command(words)
        if not arguments:
            raise ValueError(f"its command is {' '.join(words[:3])} ...: only `semconv run` and `semconv fit` can be checked")
        _check_point(sweep, point, arguments)
        tried += 1
    return tried


def points(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Points that contain every value of every parameter of a grid at least once; for a search, some random points."""
    if sweep.method == "grid":
        values = {name: grid_values(spec) or [] for name, spec in sweep.parameters.items()}
        for i in range(max(map(len, values.values()))):
            yield {name: given[i % len(given)] for name, given in values.items()}
    else:
        yield from (sweep.draw(number) for number in range(DRAWN))


def _check_point(sweep: Sweep, point: dict[str, Any], arguments: list[str]) -> None:
    # importing torch takes seconds; an error in the file is reported before
    from semconv.commands.errors import user_message
    from semconv.commands.train import Refused, quieten, try_parts

    quieten()
    try:
        words = write_out(arguments[1:])
        check_keys(arguments[0], words)
        config = try_parts(words)
    except Refused as error:
        raise ValueError(f"{_show(sweep, point)}{error.message}") from error
    except Exception as error:
        if (said := user_message(error)) is None:
            raise
        raise ValueError(f"{_show(sweep, point)}{said}") from error
    if found := departure(config, point):
        raise ValueError(f"{_show(sweep, point)}{found}")


def _show(sweep: Sweep, point: dict[str, Any]) -> str:
    varied = " ".join(f"--{name}={value}" for name, value in sweep.varied(point).items())
    return f"{varied}: " if varied else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="semconv check sweeps", description=DESCRIPTION)
    parser.add_argument("files", nargs="*", metavar="FILE", help="Sweep files, or names of semconv's (all of sweeps).")
    parser.add_argument("--points", type=positive, metavar="N", help="Maximal number of points per file (every value once).")
    return parser
