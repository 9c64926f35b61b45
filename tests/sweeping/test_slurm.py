"""Trials as jobs of SLURM, by submitit's executor of this machine, which starts jobs and puts them back as that of SLURM does."""

import sys
import time

import pytest

from semconv.sweeping import slurm
from semconv.sweeping.jobs import Job
from semconv.sweeping.slurm import Slurm
from semconv.tracking.folder import RunFolder
from semconv.tracking.locks import Lock, locked
from tests.experiments import FOLDER
from tests.sweeping.test_cluster import PROGRAM, rows, wait_for

pytest.importorskip("submitit", reason="submitit is not installed")


@pytest.fixture
def local(monkeypatch):
    monkeypatch.setattr(slurm, "EXECUTOR", "LocalExecutor")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))


@pytest.fixture
def start(local, tmp_path, monkeypatch):
    """Starts a trial of a second and more, with options of its job; and gives it, its run and its log."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM.replace("sleep(0.1)", "sleep(0.25)"))
    command = [sys.executable, str(tmp_path / "program.py"), "${args}"]
    job = Job(3, "id-003", {"x": 1}, command, "", "", tmp_path / "sweep")
    (tmp_path / "sweep" / "trials").mkdir(parents=True)
    (tmp_path / "sweep" / "sweep.yaml").touch()

    def begin(**options):
        return Slurm(options).start(job, Lock(job.file("lock")))

    return begin, RunFolder(tmp_path / "sweep" / "fake" / "id-003"), job


def test_a_sweep_runs_as_jobs(local, make_sweep, sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    path = make_sweep(parameters={"x": {"values": [1, 2]}, "fail": {"value": False}})
    assert sweep(path, "--cluster", "slurm", "--slurm", "partition=gpu", "time=10") == 0
    assert len(list((tmp_path / "sweep").glob("*/*/summary.json"))) == 2
    assert list((tmp_path / "sweep" / "slurm").glob("*_log.out"))


def test_what_slurm_cannot_do_is_refused_in_a_line(make_sweep, sweep, capsys, monkeypatch):
    path = make_sweep(parameters={"x": {"values": [1]}})
    said = {
        ("--cluster", "slurm"): 'Could not detect "srun"',
        ("--cluster", "slurm", "--slurm", "partition"): "--slurm partition is no option with a value: give",
        ("--cluster", "slurm", "--gpus-per-trial", ".5"): "--gpus-per-trial is 0.5, and a job of SLURM takes whole ones",
        ("--cluster", "slurm", "--storage", "x"): "--storage is for Ray",
        ("--cluster", "auto", "--slurm", "time=5"): "--slurm is for jobs of SLURM: give --cluster slurm",
        ("--slurm", "time=5"): "--slurm is for clusters: give --cluster ADDRESS",
    }
    monkeypatch.setenv("PATH", "")
    for options, message in said.items():
        assert sweep(path, *options) == 2
        assert message in (line := capsys.readouterr().err)
        assert line.count("\n") == 1
    monkeypatch.setattr("submitit.SlurmExecutor.affinity", lambda _: 2)
    assert sweep(path, "--cluster", "slurm", "--slurm", "partitoin=gpu") == 2
    assert "Unavailable parameter(s): ['partitoin']" in (line := capsys.readouterr().err)
    assert line.count("\n") == 1
    assert sweep(path, "--cluster", "slurm") == 1  # there is no sbatch
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert sweep(path, "--cluster", "slurm") == 2
    assert "pip install 'semconv[slurm]'" in capsys.readouterr().err


def test_a_job_that_cannot_begin_says_why(start, tmp_path):
    begin, _, job = start
    (tmp_path / "sweep" / "sweep.yaml").unlink()
    running = begin()
    wait_for(lambda: running.poll() is not None)
    assert (running.poll(), "does not see" in job.log.read_text()) == (127, True)


def test_a_trial_goes_on_after_its_time_limit(start):
    begin, run, _ = start
    running = begin(timeout_min=0.1, signal_delay_s=4)  # the signal comes after 2 seconds
    wait_for(lambda: running.poll() is not None)
    assert running.poll() == 0
    assert [row["step"] for row in rows(run)] == list(range(12))
    assert len({row["pid"] for row in rows(run)}) > 1


def test_a_cancelled_trial_ends(start):
    begin, run, _ = start
    running = begin()
    wait_for(lambda: rows(run))
    running.terminate()
    wait_for(lambda: running.poll() is not None, 10)
    assert running.poll() != 0
    time.sleep(0.5)
    assert len(rows(run)) < 12


def test_a_job_that_outlives_its_sweep_is_not_doubled(start):
    begin, run, job = start
    with locked(job.file("node")):  # held by the job before
        running = begin()
        time.sleep(2)
        assert (running.poll(), run.path.exists()) == (None, False)
    wait_for(lambda: running.poll() is not None)
    assert running.poll() == 0
