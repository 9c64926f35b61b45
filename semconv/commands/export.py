"""`semconv export RUN`: a run's encoder for use in other code."""

import argparse
from pathlib import Path

from semconv.commands.errors import in_one_line
from semconv.commands.values import user_path
from semconv.metrics import find

DESCRIPTION = """Write a run's encoder into a folder, with the mean, standard deviation and size of its images. An encoder that
does what plain does when nothing is masked (ViTs; CNNs conditioned on the mask only) becomes weights that timm loads strictly; any
other a wrapper for semconv.load_exported. The folder's README.md says how to load it. Of the folder of a study, or of another one
that holds runs, the best run is taken: the best seed of the network with the best mean, among those that are no controls."""
CHOSEN_BY = "val/masked_mse"  # of images that no verdict rests on


def main(arguments: list[str]) -> None:
    """Export a run."""
    given = make_parser().parse_args(arguments)
    with in_one_line(given.debug):
        run = given.run if (given.run / "config.yaml").is_file() else _best(given.run, given.by)
        # importing torch takes seconds; errors in the choice come before
        from semconv.trained.export import export

        made = export(run, given.output, given.overwrite, given.trust, given.push)
        place = f"{made.folder} and uploaded to {given.push}" if given.push else str(made.folder)
        kind = f"as timm's {made.architecture}" if made.architecture else f"as a wrapper, not for timm: {made.why}"
        print("\n".join([f"written to {place} {kind}:", *(f"  {line}" for line in made.usage)]))


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(prog="semconv export", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "run", metavar="RUN", type=user_path, help="Folder of a run, runs/<experiment>/<run id>; or one that holds runs."
    )
    parser.add_argument(
        "--output", type=user_path, required=True, metavar="DIR", help="Folder to write; empty, or an earlier export."
    )
    parser.add_argument("--by", default=CHOSEN_BY, metavar="KEY", help=f"Metric that chooses among several runs ({CHOSEN_BY}).")
    parser.add_argument("--push", metavar="REPO", help="Upload the folder to the Hugging Face Hub, as user/name; private if new.")
    parser.add_argument("--overwrite", action="store_true", help="Write into a folder with other content.")
    parser.add_argument(
        "--trust", action="extend", nargs="+", default=[], metavar="MODULE", help="Modules of your own that the run may name."
    )
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def _best(folder: Path, key: str) -> Path:
    from semconv.comparison.best import best_run

    best, metric = best_run(folder, key), find(key)
    on_test_images = metric is not None and metric.split == "test"
    print(
        f"{best.run}: of {best.num_variants} networks {best.variant} has the best {key}, {best.mean:.4g}, n = {best.num_seeds}; "
        f"this is its best seed, {best.value:.4g}"
        + ("; it was chosen on test images, so other images will show less" if on_test_images else "")
    )
    for verdict in best.verdicts:
        print(f"verdict on {best.variant}: {verdict}")
    return best.run
