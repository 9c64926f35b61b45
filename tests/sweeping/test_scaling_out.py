"""The cluster's files, and what docs/scaling.md says of several devices."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.experiments import FOLDER

ROOT = FOLDER.parent
SLURM = sorted((ROOT / "examples" / "slurm").glob("*.sbatch"))
SHARDED = """
import sys
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel
from semconv.corruption import Hide
from semconv.masking import RandomMasker
from tests.experiments import look, make_task, random_images

dist.init_process_group("gloo")
task = make_task("cnn_channels").train()
images = random_images(task, 4)
view, mask = look(task, images, RandomMasker(), Hide())
weights = sum(parameter.numel() for parameter in task.parameters())
alone = task.objective(task(view), images, mask)
alone.backward()
norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in task.parameters() if parameter.grad is not None])
task.zero_grad()
sharded = FullyShardedDataParallel(task, use_orig_params=True, device_id=torch.device("cpu"))
together = task.objective(sharded(view), images, mask)
together.backward()
assert torch.isclose(alone, together, rtol=1e-6), (alone, together)
assert torch.isclose(norm, sharded.clip_grad_norm_(1e9), rtol=1e-4)
assert abs(sum(parameter.numel() for parameter in sharded.parameters()) - weights / 2) < 0.01 * weights
print("sharded")
"""


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
    (folder / "runs" / "cnn" / "slurm-7").mkdir(parents=True)
    code, called = submit(folder, "run", "-c", "a.yaml", CODE="2")
    assert (code, called[-1]) == (2, "semconv run --resume runs/cnn/slurm-7")


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


@pytest.mark.slow
def test_two_processes_that_share_a_networks_weights_compute_what_one_does(tmp_path):
    (tmp_path / "sharded.py").write_text(SHARDED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(tmp_path / "sharded.py")]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("sharded") == 2
