"""The cluster's files, and what docs/scaling.md says of several devices."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.experiments import FOLDER

ROOT = FOLDER.parent
SLURM = sorted((ROOT / "examples" / "slurm").glob("*.sbatch"))


@pytest.mark.parametrize("path", SLURM, ids=lambda path: path.stem)
def test_a_cluster_file_is_valid_shell_and_opens_with_its_command(path):
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True).returncode == 0
    text = path.read_text()
    assert text.startswith("#!/bin/bash\n# ")
    assert f"sbatch {'--array=0-7' if path.stem != 'run' else '--nodes=2'} examples/slurm/{path.name}" in text
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert len(directives) > 5
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in directives)
    assert text.index("set -euo pipefail") > text.rindex("#SBATCH")  # SLURM reads no directive after the first command


@pytest.fixture
def desk(tmp_path):
    """A folder with commands that say how they were called, and end as they are told."""

    def command(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> called\n{script}\n')
        path.chmod(0o755)

    command("srun", '"$@"')
    command("scontrol", "")
    command("semconv", 'exit "${CODE:-0}"')
    command("wandb", "")
    return tmp_path, command


def environment(folder: Path, **given: str) -> dict[str, str]:
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "8"}
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **slurm, **given}


def submit(folder: Path, name: str, *words: str, **given: str) -> tuple[int, list[str]]:
    command = ["bash", str(ROOT / "examples" / "slurm" / f"{name}.sbatch"), *words]
    done = subprocess.run(command, cwd=folder, env=environment(folder, **given), capture_output=True, text=True)
    called = (folder / "called").read_text().splitlines()
    (folder / "called").unlink()
    return done.returncode, called


def test_a_run_on_a_cluster_requeues_itself_and_then_goes_on(desk):
    folder, _ = desk
    code, called = submit(folder, "run", "-c", "a.yaml")
    options = "--trainer.num_nodes=2 --trainer.devices=8 --trainer.strategy=ddp"
    assert (code, called) == (0, [f"srun semconv run -c a.yaml {options}", f"semconv run -c a.yaml {options}"])
    code, called = submit(folder, "run", "-c", "a.yaml", CODE="143")
    assert (code, called[-1]) == (143, "scontrol requeue 7")
    for given, runs in (
        ([], "runs"),
        (["--runs", "my [runs]"], "my [runs]"),
        (["--runs=b", f"--runs={folder / 'c'}"], f"{folder / 'c'}"),
    ):
        run = folder / runs / "cnn" / "slurm-7"
        run.mkdir(parents=True)  # a node has failed before the first checkpoint
        code, called = submit(folder, "run", "-c", "a.yaml", *given)
        assert (run.exists(), called[-1]) == (False, " ".join(["semconv run -c a.yaml", *given, options]))
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "last.ckpt").touch()
        code, called = submit(folder, "run", "-c", "a.yaml", *given, CODE="2")
        assert (run.exists(), code, called[-1]) == (True, 2, f"semconv run --resume {runs}/cnn/slurm-7")


def test_a_sweep_on_a_cluster_joins_and_passes_the_signal_on(desk):
    folder, command = desk
    code, called = submit(folder, "sweep", "sweeps/depth.yaml")
    assert (code, called) == (0, ["semconv sweep sweeps/depth.yaml --resume --output runs/sweeps/depth"])
    assert submit(folder, "agent", "e/p/s") == (0, ["wandb agent --forward-signals e/p/s"])
    command("semconv", "trap 'echo ended >> called; exit 143' TERM\nfor _ in {1..600}; do sleep 0.1; done")
    job = [str(ROOT / "examples" / "slurm" / "sweep.sbatch"), "sweeps/depth.yaml"]
    process = subprocess.Popen(["bash", *job], cwd=folder, env=environment(folder))
    limit = time.monotonic() + 30
    while not (folder / "called").exists():
        assert time.monotonic() < limit
        time.sleep(0.02)
    time.sleep(0.3)  # until the trap is set
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert (folder / "called").read_text().splitlines()[-1] == "ended"
