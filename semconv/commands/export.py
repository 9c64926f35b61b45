"""`semconv export RUN`: a run's encoder for use elsewhere."""

import argparse
from pathlib import Path

from semconv.commands.errors import in_one_line

DESCRIPTION = """Writes a run's encoder into a folder, with the mean, deviation and size of its images. Where it is a model of
timm's as soon as nothing is masked (mae_vit; timm's CNNs that are told of the mask alone), as weights that timm loads strictly; all
others as a wrapper that semconv.load_exported reads. It says which, and README.md in the folder how to load it."""


def main(arguments: list[str]) -> None:
    """Export a run."""
    parser = argparse.ArgumentParser(prog="semconv export", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", type=Path, help="Folder of a run, runs/<experiment>/<run id>.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="Folder to write; empty, or an earlier export.")
    parser.add_argument("--overwrite", action="store_true", help="Write into a folder that holds something else.")
    parser.add_argument("--trust", nargs="+", default=[], metavar="MODULE", help="Modules whose classes the run may name.")
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    given = parser.parse_args(arguments)
    with in_one_line(given.debug):
        from semconv.trained.export import export

        made = export(given.run, given.output, given.overwrite, given.trust)
        if made.architecture:
            print(f"written to {made.folder} as timm's {made.architecture}:")
            print(f'  timm.create_model("local-dir:{made.folder}", pretrained=True)')
        else:
            print(f"written to {made.folder} as a wrapper, not for timm: {made.why}:")
            print(f'  semconv.load_exported("{made.folder}")')
