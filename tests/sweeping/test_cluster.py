"""Trials on a cluster. Those of a real one, of Ray, take a minute: the rest does by itself what Ray's workers do."""

import json
import socket
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from semconv.sweeping import nodes
from semconv.sweeping.jobs import Job
from semconv.sweeping.nodes import errand, work
from semconv.sweeping.ray_cluster import RayCluster
from semconv.sweeping.storage import Storage
from semconv.tracking.checkpoints import read_checkpoint
from semconv.tracking.folder import RunFolder
from semconv.tracking.locks import Lock
from tests.experiments import FOLDER
from tests.processes import Forked
from tests.sweeping.test_preloaded import TINY, measured, semconv, write_sweep

# logs a row and saves a checkpoint at each of 12 steps, and goes on after the last row that it finds
PROGRAM = """
import os, sys, time, zipfile
from pathlib import Path
from semconv.tracking.folder import RunFolder
runs = Path(next(word for word in sys.argv if word.startswith("--runs=")).removeprefix("--runs="))
folder = RunFolder(runs / "fake" / os.environ["WANDB_RUN_ID"])
folder.checkpoints.mkdir(parents=True, exist_ok=True)
for step in range(len(list(folder.rows())), 12):
    time.sleep(0.1)
    folder.log({"val/loss": 1.0, "pid": os.getpid()}, step)
    zipfile.ZipFile(folder.checkpoints / ".last.1.tmp", "w").close()
    (folder.checkpoints / ".last.1.tmp").replace(folder.checkpoints / "last.ckpt")
folder.summarise({"status": "finished", "val/loss": 1.0})
"""


@pytest.fixture
def send(tmp_path, monkeypatch):
    """Sends a trial to a node, which is a process here; several nodes share nothing but the storage."""
    monkeypatch.setattr(nodes, "SEND_SECONDS", 0.1)
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), "${args}"]
    job = Job(3, "id-003", {"x": 1}, command, "", "", tmp_path / "sweep")
    sent = errand(job, (tmp_path / "storage").as_uri())

    def start(node: str) -> Forked:
        (tmp_path / node).mkdir()
        return Forked([node], tmp_path / node, program=lambda: sys.exit(work(sent)))

    return start, RunFolder(tmp_path / "storage" / "fake" / "id-003")


def wait_for(condition, seconds=100):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def rows(run):
    return list(run.rows())


def lives(pid):
    """Tell whether a process is there and has not ended."""
    path = Path("/proc", str(pid), "stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_trial_whose_node_died_goes_on_elsewhere_from_what_it_had_sent(send, tmp_path):
    start, run = send
    first = start("first")
    wait_for(lambda: len(rows(run)) > 2)
    first.send_signal(9)
    assert first.wait().returncode == -9
    process = rows(run)[0]["pid"]
    wait_for(lambda: not lives(process), 0.6)  # by itself it would take longer
    reached = len(rows(run))
    assert start("second").wait().returncode == 0
    assert [row["step"] for row in rows(run)] == list(range(12))
    assert {row["pid"] for row in rows(run)[:reached]} == {process} != {rows(run)[-1]["pid"]}
    assert start("third").wait().returncode == 0  # it is finished, and not run again
    assert len(rows(run)) == 12
    here = Storage((tmp_path / "storage").as_uri(), tmp_path / "here")
    here.fetch(everything=False)
    found = RunFolder(tmp_path / "here" / "fake" / "id-003")
    assert (found.summary["status"], found.checkpoints.exists()) == ("finished", False)
    here.fetch()
    assert found.checkpoints.exists()
    assert here.has_checkpoint
    for path in run.checkpoints.iterdir():
        path.unlink()
    assert not here.has_checkpoint


def test_a_node_that_was_taken_for_dead_loses_the_trial(send):
    start, run = send
    first = start("first")
    wait_for(lambda: len(rows(run)) > 2)
    second = start("second")
    assert (first.wait().returncode, second.wait().returncode) == (247, 0)  # its process was killed
    assert [row["step"] for row in rows(run)] == list(range(12))
    assert len({row["pid"] for row in rows(run)}) == 2


@pytest.mark.parametrize(("number", "code"), [(2, 241), (15, -9)], ids=["the sweep ends", "the node leaves"])
def test_a_signal_ends_a_trial_with_all_that_it_has(number, code, send):
    start, run = send
    node = start("node")
    wait_for(lambda: len(rows(run)) > 2)
    node.send_signal(number)
    assert node.wait().returncode == code  # killed, so that Ray starts the trial elsewhere; or that of the trial
    wait_for(lambda: not lives(rows(run)[0]["pid"]), 5)


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_the_last_files_are_sent_again_where_the_storage_does_not_answer(failures, tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "RETRY_SECONDS", (0.0, 0.0))
    tried = []

    def send(*places):
        tried.append(places)
        if len(tried) <= failures:
            raise OSError("no route to host")

    storage: Any = SimpleNamespace(is_ours=True, send=send)
    job = Job(3, "id-003", {}, [], "", "", tmp_path)
    with pytest.raises(OSError, match="no route") if failures == 3 else nullcontext():
        nodes._send_last(job, storage)
    assert len(tried) == min(failures + 1, 3)


def test_files_of_the_user_travel_with_a_trial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "mine.yaml",
        "sweep.yaml",
        "experiments/own.yaml",
        "mine.py",
        "package/__init__.py",
        "package/deep/part.py",
        "other.yaml",
        "lr=.1/own.yaml",
        "experiments/base.yaml",
        "experiments/data/photos.yaml",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    command = ["semconv", "run", "-c", "mine", "--data", "photos", "${args}"]
    job = Job(0, "a-000", {"config": "own,cnn_channels,lr=.1/own"}, command, "", "", tmp_path / "sweep")
    sent = errand(job, "file:///storage").files
    files = ["experiments/base.yaml", "experiments/data/photos.yaml", "experiments/own.yaml", "lr=.1/own.yaml"]
    assert sorted(sent) == [*files, "mine.py", "mine.yaml", "package/__init__.py", "package/deep/part.py"]
    assert sent["mine.py"] == b"mine.py"
    assert errand(job, None).files == {}  # the folder is shared
    Path(tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    with pytest.raises(ValueError, match=r"mine\.yaml lies outside of the current folder"):
        errand(job._replace(parameters={"config": "../mine.yaml"}), "file:///storage")


def ray_of(*resources):
    """What stands for Ray with nodes of some resources, of which the last one is lost."""
    found = [{"Resources": each, "Alive": each is not resources[-1]} for each in resources]
    return SimpleNamespace(nodes=lambda: found, remote=lambda function: function)


def test_a_cluster_holds_as_many_trials_as_its_nodes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", ray_of({"CPU": 7.0, "GPU": 2.0}, {"CPU": 4.0}, {"CPU": 99.0, "GPU": 99.0}))
    held = {(1, 0): 11, (2, None): 2, (2, 0): 5, (1, 0.5): 4, (1, 0.3): 6, (1, 2): 1, (3, 0.25): 2, (0.5, 0): 22, (0, 1): 2}
    for (cpus, gpus), jobs in held.items():
        assert RayCluster(cpus, gpus).jobs == jobs, (cpus, gpus)
    assert RayCluster(1, 0, jobs=50).jobs == 50
    for cpus, gpus in ((8, 0), (1, 3), (5, None)):
        if cpus != 5:
            with pytest.raises(ValueError, match=f"asks for {cpus} CPUs and {gpus} GPUs.*the largest has 7 and 2"):
                RayCluster(cpus, gpus)
        else:
            assert RayCluster(cpus, gpus).gpus == 1


def test_a_trial_whose_files_cannot_be_sent_has_failed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", ray_of({"CPU": 1.0}, {}))
    (tmp_path / "file").touch()
    job = Job(0, "a-000", {}, [], "", "", tmp_path / "sweep")
    (run := RunFolder(tmp_path / "sweep" / "fake" / "a-000")).path.mkdir(parents=True)  # it began on this machine
    run.log({"val/loss": 1.0}, 0)
    job.log.parent.mkdir()
    running = RayCluster(1, 0, storage=str(tmp_path / "file")).start(job, Lock(tmp_path / "lock"))
    assert (running.poll(), job.log.read_text().startswith("its files cannot be sent: ")) == (127, True)


def test_what_is_no_cluster_is_refused_in_a_line(make_sweep, sweep, capsys, monkeypatch):
    path = make_sweep(parameters={"x": {"values": [1]}})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{free.getsockname()[1]}"
    said = {
        ("--cluster", "nowhere"): "--cluster nowhere: it has no host and port",
        ("--cluster", closed): f"--cluster {closed}: [Errno 111] Connection refused: start one by ray start --head",
        ("--cluster", "auto", "--storage", "no://where"): "--storage no://where: Protocol not known: no",
        ("--cluster", "auto", "--storage", "ftp://127.0.0.1:1/x"): "--storage ftp://127.0.0.1:1/x: [Errno 111] Connection refused",
        ("--cluster", "auto", "--storage", ""): "--storage '' is no place that all machines reach: give a folder, or s3://",
        ("--cluster", "auto", "--storage", "memory://x"): "--storage 'memory://x' is no place that all machines reach",
        ("--cluster", "auto", "--storage", "/proc/x"): "--storage /proc/x cannot be written: ",
        ("--cluster", "auto", "--storage", str(path)): f"--storage {path} cannot be written: [Errno 17] File exists",
        ("--storage", "x"): "--storage is for clusters: give --cluster ADDRESS, or --cluster local",
    }
    monkeypatch.setitem(sys.modules, "ray", ray_of({}))
    for options, message in said.items():
        assert sweep(path, *options) == 2
        assert message in (line := capsys.readouterr().err)
        assert line.count("\n") == 1
    monkeypatch.setitem(sys.modules, "ray", None)
    assert sweep(path, "--cluster", "local") == 2
    assert "Ray, which is not installed: pip install ray fsspec" in capsys.readouterr().err


def test_a_node_refuses_what_it_cannot_do(tmp_path):
    sent = errand(Job(0, "a-000", {}, [], "", "", tmp_path), None)
    with pytest.raises(ValueError, match=r"does not see .*: give an --output that it sees, or with Ray --storage"):
        work(sent)
    with pytest.raises(ValueError, match="install one version everywhere"):
        work(sent._replace(version="0"))


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A sweep of two trials that train, and the folder of a run of it on this machine."""
    folder = tmp_path_factory.mktemp("real")
    parameters = {**TINY, "config": {"value": "experiments/cnn_channels.yaml"}, "data.num_images": {"value": 700}}
    parameters |= {"checkpoint_every": {"value": 4}, "trainer.max_epochs": {"value": 2}, "seed_everything": {"values": [0, 1]}}
    path = write_sweep(folder, parameters={**parameters, "evaluation": {"value": "none"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        semconv("sweep", str(path), "--output", str(folder / "here"))
    return path, folder / "here"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shared", [False, True], ids=["storage", "shared folder"])
def test_a_trial_survives_its_node_and_a_cluster_computes_the_bits_of_this_machine(shared, real, sweep, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster  # type: ignore[import-untyped,unused-ignore]

    path, here = real
    monkeypatch.setattr(nodes, "SEND_SECONDS", 0.5)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    monkeypatch.chdir(FOLDER.parent)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    lost, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    watched = tmp_path / ("sweep" if shared else "storage")

    def both_have_saved():
        return len(list(watched.glob("**/checkpoints/step-*8.ckpt"))) >= 2

    def kill():
        wait_for(both_have_saved)
        cluster.remove_node(lost, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        options = [] if shared else ["--storage", str(tmp_path / "storage")]
        assert sweep(path, "--cluster", cluster.address, *options) == 0
    finally:
        killer.join()
        cluster.shutdown()
    sessions = []
    for other in sorted(here.glob("cnn_channels/*")):
        (run,) = (tmp_path / "sweep").glob(f"cnn_channels/*{other.name[-4:]}")
        ours, theirs = (read_checkpoint(each / "checkpoints" / "last.ckpt")["state_dict"] for each in (run, other))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        assert measured(run) == measured(other)
        sessions.append(json.loads((run / "environment.json").read_text())["sessions"])
    assert sorted(map(len, sessions)) == [1, 2]  # the one that was killed, and no other, has begun twice
    assert max(sessions, key=len)[1]["from_step"] >= 8
    assert len(list((tmp_path / "sweep" / "trials").glob("*.log"))) == 2
