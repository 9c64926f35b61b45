"""Trials that share what has been imported: the same bits as a process of their own, in less time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import einops
import pytest
import torch
import yaml

from semconv.commands.train import main
from semconv.tracking.checkpoints import read_checkpoint
from semconv.version import __version__
from tests.experiments import FOLDER

TINY: dict[str, dict[str, Any]] = {
    "data.batch_size": {"value": 32},
    "data.num_images": {"value": 96},
    "data.num_test_images": {"value": 20},
    "evaluation_images": {"value": 20},
    "model.encoder.drop_path": {"value": 0.3},
    "trainer.accelerator": {"value": "cpu"},
    "trainer.limit_val_batches": {"value": 1},
    "trainer.log_every_n_steps": {"value": 1},
}
COMMAND = ["${env}", "semconv", "run", "-c", "experiments/base.yaml", "${args}"]


def write_sweep(folder: Path, parameters: dict[str, Any]) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({"method": "grid", "program": "semconv", "command": COMMAND, "parameters": parameters}))
    return path


def semconv(*words: str) -> None:
    """Run a command in a fresh process."""
    done = subprocess.run([sys.executable, "-m", "semconv", *words], cwd=FOLDER.parent, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def measured(run: Path) -> dict:
    """What a run has found out; neither when nor how fast."""
    summary = json.loads((run / "summary.json").read_text())
    found = ("test/", "val/", "train/loss", "probe/", "importance/")
    numbers = {key: value for key, value in summary.items() if key.startswith(found)}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["time"]
        row.pop("train/images_per_second", None)
    return {"summary": numbers, "rows": rows}


@pytest.mark.parametrize(
    ("variants", "evaluation", "fresh"),
    [(["cnn_channels"], "none", False), pytest.param(["cnn_channels", "mae_vit"], "quick", True, marks=pytest.mark.slow)],
    ids=["as in this process", "as in a fresh process"],
)
def test_a_trial_computes_the_same_bits(variants, evaluation, fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as the tests have
    monkeypatch.chdir(FOLDER.parent)
    config = {"values": [f"experiments/{name}.yaml" for name in variants]}
    parameters = {**TINY, "config": config, "evaluation": {"value": evaluation}, "model.size": {"value": "micro"}}
    path = write_sweep(tmp_path, parameters=parameters)
    semconv("sweep", str(path), "--output", str(tmp_path / "sweep"))
    trials = [path.parent for path in sorted((tmp_path / "sweep").glob("*/*/summary.json"))]
    assert [trial.parent.name for trial in trials] == variants
    for trial in trials:
        log = (tmp_path / "sweep" / "trials" / f"{trial.name[-3:]}.log").read_text()
        words = log.splitlines()[0].removeprefix("$ /usr/bin/env semconv ").split()
        folder = tmp_path / "alone" / trial.parent.name
        alone = [f"--runs={folder}" if word.startswith("--runs=") else word for word in words]
        if fresh:
            semconv(*alone)
        else:
            main(alone)
        (other,) = folder.glob("*/*")
        ours, theirs = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (trial, other))
        assert all(torch.equal(ours["state_dict"][key], theirs["state_dict"][key]) for key in theirs["state_dict"])
        assert measured(trial) == measured(other)
        assert measured(trial)["summary"]
        sessions = [json.loads((run / "environment.json").read_text())["sessions"][0] for run in (trial, other)]
        assert sessions[0]["num_threads"] == sessions[1]["num_threads"] == 1
        assert sessions[0]["command"][:2] == ["semconv", "run"]


# a sweep of one trial, which says from where it imports, and starts a further process as Lightning does
SWEEP = """
import os, sys
from pathlib import Path
from semconv.__main__ import add_current_folder
from semconv.sweeping import preloaded
if __name__ == "__main__":
    add_current_folder()
    preloaded.IMPORTED = ["einops"]
    trial = preloaded.start("own", ["--version"], os.environ, Path("log"), None)
    trial.join()
    sys.exit(trial.exitcode)
"""
OWN = """
import subprocess, sys
def main(words):
    print(sys.modules["einops"].__file__, flush=True)
    name = sys.modules["__main__"].__spec__.name
    subprocess.run([sys.executable, "-m", name, *sys.argv[1:]], check=True)
"""


def test_a_trial_and_its_further_processes_find_installed_modules_before_those_of_the_current_folder(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    (here / "own.py").write_text(OWN)
    (tmp_path / "sweep.py").write_text(SWEEP)
    for name in ("einops", "semconv"):
        (here / f"{name}.py").write_text("raise RuntimeError('this is the one of the current folder')")
    done = subprocess.run([sys.executable, str(tmp_path / "sweep.py")], cwd=here, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (here / "log").read_text().splitlines() == [einops.__file__, __version__]


@pytest.mark.slow
def test_a_trial_trains_on_several_devices(tmp_path):
    parameters = {
        **TINY,
        "config": {"value": "cnn_channels"},
        "trainer.devices": {"value": 2},
        "trainer.strategy": {"value": "ddp"},
    }
    path = write_sweep(tmp_path, parameters={**parameters, "evaluation": {"value": "none"}})
    command = [str(Path(sys.executable).with_name("semconv")), "sweep", str(path), "--output", "sweep"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "sweep").glob("cnn_channels/*")
    assert json.loads((run / "environment.json").read_text())["sessions"][0]["num_devices"] == 2


@pytest.mark.slow
def test_a_trial_costs_a_fifth_of_what_a_process_of_its_own_does(tmp_path):
    """Of a process of its own, all but what the run's own work takes; measured by trials that fail as they are parsed."""
    path = write_sweep(tmp_path, parameters={"no.such_option": {"values": list(range(12))}})
    many = seconds("-m", "semconv", "sweep", str(path), "--output", str(tmp_path / "many"), "--failures", "99")
    one = seconds("-m", "semconv", "sweep", str(path), "--output", str(tmp_path / "one"), "--count", "1")
    own = seconds("-c", "import semconv.commands.train")
    print(f"12 trials {many:.1f} s, one {one:.1f} s, imports alone {own:.1f} s")
    assert (many - one) / 11 < own / 5


def seconds(*words: str) -> float:
    """What a command of Python's takes."""
    start = time.monotonic()
    subprocess.run([sys.executable, *words], cwd=FOLDER.parent, capture_output=True, timeout=280)
    return time.monotonic() - start


@pytest.mark.slow
def test_a_real_trial_that_was_killed_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path):
    parameters = {**TINY, "config": {"value": "experiments/cnn_channels.yaml"}, "data.num_images": {"value": 700}}
    parameters |= {"checkpoint_every": {"value": 4}, "trainer.max_epochs": {"value": 2}}
    path = write_sweep(tmp_path, parameters=parameters)
    command = [sys.executable, "-m", "semconv", "sweep", str(path)]
    subprocess.run([*command, "--output", str(tmp_path / "whole")], cwd=FOLDER.parent, check=True, capture_output=True)
    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, "--output", str(killed)], cwd=FOLDER.parent, stdout=subprocess.PIPE)
    limit = time.monotonic() + 120
    while not list(killed.glob("*/*/checkpoints/step-*8.ckpt")):
        assert time.monotonic() < limit
        time.sleep(0.02)
    for pid in {process.pid, *holders(killed)}:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    semconv("sweep", str(path), "--output", str(killed), "--resume")
    (trial,), (other,) = (list(folder.glob("cnn_channels/*")) for folder in (killed, tmp_path / "whole"))
    ours, theirs = (read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (trial, other))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert measured(trial) == measured(other)
    sessions = json.loads((trial / "environment.json").read_text())["sessions"]
    assert len(sessions) == 2
    assert sessions[1]["from_step"] >= 8


def holders(folder: Path) -> list[int]:
    """Processes that hold a trial's lock."""
    locks = {str(path.resolve()) for path in folder.glob("trials/*.lock")}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) in locks for link in (process / "fd").iterdir()):
                found.append(int(process.name))
        except OSError:
            continue
    return found
