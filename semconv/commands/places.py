"""Options of sweeps and studies that say where trials run."""

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semconv.sweeping.jobs import Place

OF_CLUSTERS = ("cpus_per_trial", "gpus_per_trial", "storage")


def positive(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return number


def share(text: str) -> float:
    """A share of one, or a whole number, for argparse."""
    number = float(text)
    if not (0 <= number <= 1 or (number > 1 and math.isfinite(number) and number.is_integer())):
        raise argparse.ArgumentTypeError("give a whole number, or a share between 0 and 1")
    return number


def add_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options to the parser of a command.

    Args:
        parser: the parser.
        what: what the command runs.
    """
    parser.add_argument(
        "--jobs",
        type=positive,
        metavar="N",
        help=f"{what} at a time (1; on a cluster as many as its nodes hold); on one machine they share the cores.",
    )
    group = parser.add_argument_group("on a cluster of Ray")
    group.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="Address, such as 10.0.0.1:6379; auto: this machine's cluster; local: this machine alone.",
    )
    group.add_argument("--cpus-per-trial", type=share, metavar="N", help="CPUs that a trial takes (1).")
    group.add_argument(
        "--gpus-per-trial", type=share, metavar="N", help="GPUs that a trial takes, also .5 (1 if the cluster has any, else 0)."
    )
    group.add_argument(
        "--storage",
        metavar="PATH",
        help="Folder or address (s3://bucket/folder) that results and checkpoints travel through (none: every node sees --output).",
    )


@contextmanager
def placed(given: argparse.Namespace) -> Iterator[Place]:
    """Open the place that the options name: this machine, or a cluster.

    Raises:
        ValueError: there is no such cluster, or it cannot hold a trial.
    """
    if given.cluster is None:
        if lone := [name for name in OF_CLUSTERS if getattr(given, name) is not None]:
            raise ValueError(f"--{lone[0].replace('_', '-')} is for clusters: give --cluster ADDRESS, or --cluster local")
        from semconv.sweeping.processes import Here

        yield Here(given.jobs or 1)
    else:
        from semconv.sweeping.ray_cluster import RayCluster, connected
        from semconv.sweeping.storage import Storage

        if given.storage is not None:
            Storage(given.storage, Path())  # errors in it come before the cluster
        with connected(given.cluster):
            cpus = 1.0 if given.cpus_per_trial is None else given.cpus_per_trial
            yield RayCluster(cpus, given.gpus_per_trial, given.jobs, given.storage)
