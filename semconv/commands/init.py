"""`semconv init DIR`: the experiments and sweeps of semconv, copied for editing. Imports no torch."""

import argparse

from semconv.commands.errors import fail, in_one_line
from semconv.commands.values import user_path
from semconv.files import write_whole
from semconv.shipped import HOME

DESCRIPTION = """Copy the experiments and sweeps of semconv into a folder, to edit them there. In that folder, a name such as
cnn_channels means the copy: a file below the current folder comes before that of semconv."""
FOLDERS = ("experiments", "sweeps")


def main(arguments: list[str]) -> None:
    """Copy both folders, and print what was written."""
    given = make_parser().parse_args(arguments)
    for path in (given.folder / name for name in FOLDERS):
        if path.exists():
            fail(f"{path} is there already, and stays as it is: give another folder")
    with in_one_line():
        for name in FOLDERS:
            for file in sorted(path for path in (HOME / name).rglob("*") if path.is_file()):
                place = given.folder / name / file.relative_to(HOME / name)
                place.parent.mkdir(parents=True, exist_ok=True)
                write_whole(place, lambda copy, file=file: copy.write(file.read_bytes()))  # type: ignore[misc]
            print(f"written: {given.folder / name}, {len(list((given.folder / name).rglob('*.yaml')))} files")
    print(f"in {given.folder}, names mean these copies: semconv run cnn_channels")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(prog="semconv init", description=DESCRIPTION)
    parser.add_argument("folder", type=user_path, metavar="DIR", help="Folder that gets both; created if it is missing.")
    return parser
