"""Trials on a cluster of Ray, which chooses their nodes, and starts them again on another one if theirs is lost."""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import floor
from typing import Any

from semconv.configuration import one_line
from semconv.files import append_text
from semconv.sweeping.jobs import INTERRUPTED, NOT_STARTED, Job, Place, Running
from semconv.sweeping.nodes import errand, work
from semconv.sweeping.processes import Process
from semconv.sweeping.storage import Storage
from semconv.tracking.locks import Lock

LOST_NODES = 10  # that a trial may lose before it has failed


class RayCluster(Place):
    """A cluster of Ray.

    Args:
        cpus: CPUs that a trial takes.
        gpus: GPUs that a trial takes, or a share of one; None: one if the cluster has any.
        jobs: trials at a time; None: as many as the nodes hold.
        storage: where the files of trials travel through; None: all nodes see the folder of the sweep.

    Raises:
        ValueError: no node has as much as a trial asks for.
    """

    def __init__(self, cpus: float = 1, gpus: float | None = None, jobs: int | None = None, storage: str | None = None) -> None:
        import ray

        self.ray, self.storage, self._jobs = ray, storage, jobs
        self._work = ray.remote(work)
        nodes = self._nodes()
        self.cpus, self.gpus = cpus, min(1, max(each.get("GPU", 0) for each in nodes)) if gpus is None else gpus
        if not any(map(self._held_by, nodes)):
            largest = max(nodes, key=lambda each: (each.get("GPU", 0), each.get("CPU", 0)))
            raise ValueError(
                f"a trial asks for {self.cpus:g} CPUs and {self.gpus:g} GPUs, and no node has them; the largest has "
                f"{largest.get('CPU', 0):g} and {largest.get('GPU', 0):g}: give a smaller --cpus-per-trial or --gpus-per-trial"
            )

    @property
    def jobs(self) -> int:
        return self._jobs or max(1, sum(map(self._held_by, self._nodes())))

    def start(self, job: Job, lock: Lock) -> Running:
        try:
            storage = self._storage_of(job)
        except Exception as error:  # each kind of storage has errors of its own
            append_text(job.log, f"its files cannot be sent: {one_line(error, 300)}\n")
            return Process(NOT_STARTED)
        sent = errand(job, storage.address if storage else None)
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": LOST_NODES, "name": job.run}
        return Remote(self.ray, self._work.options(**options).remote(sent), job, storage, sent.send_seconds)

    def _storage_of(self, job: Job) -> Storage | None:
        """The storage of a trial, with the files of a run that began on this machine; None where nodes see the sweep's folder."""
        if self.storage is None:
            return None
        # the id of its run begins with that of the sweep, whose folder may have a common name
        sweep = f"{job.folder.name}-{job.run.rpartition('-')[0]}"
        storage = Storage(f"{self.storage}/{sweep}/{job.run.rpartition('-')[2]}", job.folder)
        if job.found is not None and not storage.has_checkpoint:
            storage.send(job.found.path)
        return storage

    def _nodes(self) -> list[dict[str, float]]:
        """The resources of each node."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _held_by(self, node: dict[str, float]) -> int:
        """The number of trials that a node holds at a time; several share a GPU, and none has shares of two."""
        gpus = node.get("GPU", 0)
        held = [floor(node.get("CPU", 0) / self.cpus)] if self.cpus else []
        if self.gpus:
            held.append(floor(gpus / self.gpus) if self.gpus >= 1 else floor(gpus) * floor(1 / self.gpus))
        return min(held, default=1)


class Remote(Running):
    """A trial on a cluster, whose files come to this machine by its storage.

    Args:
        ray: the module.
        reference: of its exit code.
        job: the trial.
        storage: of its files; None: this machine sees them.
        fetch_seconds: time between two looks for new files.
    """

    def __init__(self, ray: Any, reference: Any, job: Job, storage: Storage | None, fetch_seconds: float) -> None:
        self.ray, self.reference, self.job, self.storage = ray, reference, job, storage
        self._fetch_seconds, self._fetched_at, self._told = fetch_seconds, time.monotonic(), False
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            if self.ray.wait([self.reference], timeout=0)[0]:
                self._code = self._conclude()
            elif self.storage is not None and time.monotonic() > self._fetched_at + self._fetch_seconds:
                with suppress(Exception):  # a storage that does not answer now may do so later
                    self.storage.fetch(everything=False)
                self._fetched_at = time.monotonic()
        return self._code

    def terminate(self) -> None:
        self.ray.cancel(self.reference, force=self._told)  # Ray repeats it: the trial takes a second one for the first
        self._told = True

    def kill(self) -> None:
        self.ray.cancel(self.reference, force=True)

    def _conclude(self) -> int:
        """The exit code, after the files have come; what Ray and the node say is in the log."""
        reason = ""
        try:
            code = int(self.ray.get(self.reference))
        except self.ray.exceptions.TaskCancelledError:
            code = INTERRUPTED
        except self.ray.exceptions.RayError as error:
            code, reason = NOT_STARTED, one_line(getattr(error, "cause", None) or error, 300)
        try:
            if self.storage is not None:
                self.storage.fetch()
        except Exception as error:
            code, reason = NOT_STARTED, f"its files cannot be fetched: {one_line(error, 200)}"
        if reason:
            append_text(self.job.log, f"{reason}\n")
        return code


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Use a cluster while the block lasts.

    Args:
        address: of the cluster, such as 10.0.0.1:6379; auto: that of this machine; local: one that is started for the block.

    Raises:
        ValueError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError("--cluster needs Ray, which is not installed: pip install ray fsspec") from error
    own: dict[str, Any] = {}
    if address == "local":
        own = {"include_dashboard": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    else:
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # one attempt, and not twenty of half a minute
    try:
        if address not in ("auto", "local"):
            _knock(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        advice = "start one by ray start --head, or give --cluster local"
        if "AuthenticationError" in f"{error}{error.__cause__}":
            advice = "it wants its token: set RAY_AUTH_MODE to token, and RAY_AUTH_TOKEN"
        raise ValueError(f"--cluster {address}: {one_line(error, 200)}: {advice}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """See whether anything listens at an address, on which Ray would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("it has no host and port")
    socket.create_connection((host, int(port)), timeout=10).close()
