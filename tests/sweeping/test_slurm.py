"""Trials as jobs of SLURM, by submitit's executor of this machine, which starts jobs and puts them back as that of SLURM does."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from semconv.sweeping import slurm
from semconv.sweeping.jobs import Job
from semconv.sweeping.slurm import DEFAULTS, Slurm
from semconv.tracking.folder import RunFolder
from semconv.tracking.locks import Lock, locked
from tests.experiments import FOLDER
from tests.sweeping.test_cluster import PROGRAM, rows, wait_for

pytest.importorskip("submitit", reason="submitit is not installed")


@pytest.fixture
def local(monkeypatch):
    monkeypatch.setattr(slurm, "EXECUTOR", "LocalExecutor")
    monkeypatch.setattr(slurm, "DEFAULTS", {})
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent), prepend=os.pathsep)


@pytest.fixture
def start(local, tmp_path, monkeypatch):
    """Starts a trial of three seconds, with options of its job; beside it its run, and the trial. All jobs end with the test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM.replace("sleep(0.1)", "sleep(0.25)"))
    command = [sys.executable, str(tmp_path / "program.py"), "${args}"]
    job = Job(3, "id-003", {"x": 1}, command, "", "", tmp_path / "sweep")
    (tmp_path / "sweep" / "trials").mkdir(parents=True)
    (tmp_path / "sweep" / "sweep.yaml").touch()

    begun: list[Any] = []

    def begin(**options):
        monkeypatch.setattr(slurm, "DEFAULTS", options)
        begun.append(Slurm({}).start(job, Lock(job.file("lock"))))
        return begun[-1]

    yield begin, RunFolder(tmp_path / "sweep" / "fake" / "id-003"), job
    for running in begun:
        running._submitted._process.send_signal(signal.SIGINT)
        running._submitted._process.wait()


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
        (
            "--cluster",
            "slurm",
            "--cpus-per-trial",
            "0",
        ): "--cpus-per-trial is 0, and a job of SLURM takes whole ones: give 1 or more",
        ("--cluster", "slurm", "--slurm", "time=1:00:00"): "--slurm time=1:00:00: give a whole number of minutes",
        ("--cluster", "slurm", "--slurm", "a=b", "nodes=2"): "--slurm nodes=2: leave it out, as a trial is one task on one node",
        ("--cluster", "slurm", "--slurm", "cpus_per_task=2"): "--slurm cpus_per_task=2: give --cpus-per-trial",
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
    assert "pip install submitit" in capsys.readouterr().err


def test_a_job_that_cannot_begin_says_why(start, tmp_path):
    begin, _, job = start
    (tmp_path / "sweep" / "sweep.yaml").unlink()
    running = begin()
    wait_for(lambda: running.poll() is not None)
    assert (running.poll(), "does not see" in job.log.read_text()) == (127, True)


def test_a_trial_goes_on_after_its_time_limit(start):
    begin, run, _ = start
    running = begin()
    wait_for(lambda: rows(run))
    controller = running._submitted._process.pid
    for task in Path(f"/proc/{controller}/task/{controller}/children").read_text().split():
        os.kill(int(task), signal.SIGUSR2)
    wait_for(lambda: running.poll() is not None)
    assert running.poll() == 0
    assert [row["step"] for row in rows(run)] == list(range(12))
    assert len({row["pid"] for row in rows(run)}) == 2


def test_options_reach_the_job_as_they_were_given_and_keys_reach_no_file(start, monkeypatch, tmp_path):
    begin, _, job = start
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-key")
    begin().kill()
    assert not [path for path in (tmp_path / "sweep").rglob("*") if path.is_file() and b"a-secret-key" in path.read_bytes()]
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", ""), ("sbatch", f"cp $1 {tmp_path}/sent; echo Submitted batch job 7")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setattr(slurm, "EXECUTOR", "SlurmExecutor")
    monkeypatch.setattr(slurm, "DEFAULTS", DEFAULTS)
    options = {"account": "00123", "time": "90", "setup": "module load cuda", "srun_args": "--exact", "job_name": "mine"}
    Slurm(options, cpus=8, gpus=1).start(job, Lock(job.file("lock")))
    lines = (tmp_path / "sent").read_text().splitlines()
    for line in ("account=00123", "time=90", "cpus-per-task=8", "gpus-per-node=1", "job-name=mine", "signal=USR2@90"):
        assert f"#SBATCH --{line}" in lines
    assert "module load cuda" in lines
    assert "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK" in lines
    assert any(line.startswith("srun ") and "--exact" in line for line in lines)


def test_a_job_of_which_slurm_says_nothing_is_waited_for_no_longer(start, monkeypatch):
    begin, run, job = start
    running = begin()
    wait_for(lambda: rows(run))
    monkeypatch.setattr(running._submitted, "done", lambda force_check: False)
    monkeypatch.setattr(running._submitted, "cancel", lambda check: (_ for _ in ()).throw(FileNotFoundError("no scancel")))
    running.terminate()
    assert running.poll() is None
    running.kill()
    log = job.log.read_text()
    assert (running.poll(), "cannot be cancelled: no scancel" in log, "squeue shows whether it has" in log) == (130, True, True)


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
