"""Options of sweeps and studies that say where trials run."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semconv.commands.values import positive, share
from semconv.sweeping.jobs import Place

OF_CLUSTERS = ("cpus_per_trial", "gpus_per_trial", "storage", "slurm")


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
        help=f"{what} at a time (1; with Ray as many as its nodes hold, with SLURM 8); on one machine they share the cores.",
    )
    group = parser.add_argument_group("on a cluster of Ray, or of SLURM")
    group.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="Of Ray, such as 10.0.0.1:6379; auto: this machine's cluster; local: this machine alone. Or slurm.",
    )
    group.add_argument("--cpus-per-trial", type=share, metavar="N", help="CPUs that a trial takes (1).")
    group.add_argument(
        "--gpus-per-trial",
        type=share,
        metavar="N",
        help="GPUs that a trial takes (SLURM: 0; Ray: 1 if it has any), with Ray also .5.",
    )
    group.add_argument(
        "--storage",
        metavar="PATH",
        help="Ray: folder or address (s3://bucket/folder) that results travel through (none: every node sees --output).",
    )
    group.add_argument(
        "--slurm",
        nargs="+",
        action="extend",
        metavar="NAME=VALUE",
        help="SLURM, behind FILE: options of jobs, such as partition=gpu time=600 (minutes; 720) mem=16GB account=mine.",
    )


@contextmanager
def placed(given: argparse.Namespace) -> Iterator[Place]:
    """Open the place that the options name: this machine, or a cluster.

    Raises:
        ValueError: there is no such cluster, it cannot hold a trial, or an option is not for it.
    """
    if given.cluster is None:
        if lone := [name for name in OF_CLUSTERS if getattr(given, name) is not None]:
            raise ValueError(f"--{lone[0].replace('_', '-')} is for clusters: give --cluster ADDRESS, or --cluster local")
        from semconv.sweeping.processes import Here

        yield Here(given.jobs or 1)
    elif given.cluster == "slurm":
        from semconv.sweeping.slurm import Slurm

        if given.storage is not None:
            raise ValueError("--storage is for Ray: jobs of SLURM see the current folder")
        options = dict(map(_pair, given.slurm or []))
        yield Slurm(options, _whole(given, "cpus_per_trial", 1), _whole(given, "gpus_per_trial", 0), given.jobs)
    else:
        if given.slurm:
            raise ValueError("--slurm is for jobs of SLURM: give --cluster slurm")
        from semconv.sweeping.ray_cluster import RayCluster, connected
        from semconv.sweeping.storage import Storage

        if given.storage is not None:
            Storage(given.storage, Path()).prove()  # errors in it come before the cluster
        with connected(given.cluster):
            cpus = 1.0 if given.cpus_per_trial is None else given.cpus_per_trial
            yield RayCluster(cpus, given.gpus_per_trial, given.jobs, given.storage)


def _whole(given: argparse.Namespace, name: str, least: int) -> int | None:
    value = getattr(given, name)
    if value is not None and (value < least or not value.is_integer()):
        raise ValueError(f"--{name.replace('_', '-')} is {value:g}, and a job of SLURM takes whole ones: give {least} or more")
    return None if value is None else int(value)


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not name or not equals or not value:
        raise ValueError(f"--slurm {word} is no option with a value: give one such as partition=gpu")
    return name, value
