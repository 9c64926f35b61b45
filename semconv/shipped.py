"""Experiments and sweeps that semconv ships, found by their names from any folder. Imports no torch."""

import os
from pathlib import Path
from typing import Literal

from semconv.configuration import nearest

Kind = Literal["experiments", "sweeps", "sweeps/studies"]
WORDS: dict[Kind, str] = {"experiments": "configuration file", "sweeps": "sweep file", "sweeps/studies": "study file"}
PACKAGE = Path(__file__).parent
# a wheel holds the folders inside of the package, a checkout beside it
HOME = PACKAGE if (PACKAGE / "experiments").is_dir() else PACKAGE.parent


def find(name: str | Path, kind: Kind) -> Path:
    """Find a file by its name: the user's own, seen from the current folder, before that of semconv.

    Args:
        name: path or name, with or without `.yaml`, and with or without the folder of the kind, such as `data/cifar10`.
        kind: folder that the file is expected in, here and in semconv.

    Raises:
        ValueError: there is no such file; the message names the nearest one.
    """
    if found := look(name, kind):
        return found
    similar = similar_name(Path(name).as_posix().removeprefix(f"{kind}/").removesuffix(".yaml"), names(kind))
    advice = f"did you mean {similar}?" if similar else "give a path from the current folder, or the name of a file of semconv"
    raise ValueError(f"there is no {WORDS[kind]} {name}: {advice}")


def look(name: str | Path, kind: Kind) -> Path | None:
    """As `find`, but None where there is no such file."""
    written = os.path.expanduser(Path(name).as_posix())  # a ~ of no user stays, as a file's own
    inner = written.removeprefix(f"{kind}/")
    places = (written, f"{kind}/{inner}", HOME / kind / inner)
    files = (Path(f"{place}{suffix}") for place in places for suffix in ("", ".yaml"))
    return next((path for path in files if os.path.isfile(path)), None)  # False also for what no name can be


def names(kind: Kind) -> list[str]:
    """The names of semconv's own files of a kind, as `find` takes them."""
    folder = HOME / kind
    files = folder.glob("**/*.yaml" if kind == "experiments" else "*.yaml")
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


def folders(kind: Kind) -> list[Path]:
    """The folder of semconv, and the user's own in the current folder, whose files come before those of semconv."""
    return [folder for folder in (HOME / kind, Path(kind)) if folder.is_dir()]


def similar_name(name: str, known: list[str]) -> str | None:
    """The most similar name, else the first one whose last part is similar to the last part of `name`."""
    last = nearest(name.rpartition("/")[2], [each.rpartition("/")[2] for each in known])
    return nearest(name, known) or next((each for each in known if each.rpartition("/")[2] == last), None)
