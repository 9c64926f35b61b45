"""semconv's parts in other people's loops."""

import json
import os
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.processes import Forked

ROOT = Path(__file__).parent.parent
PARTS = ["callbacks", "convolution", "corruption", "cost", "decoders", "encoders", "hashing", "indicators", "masking", "mechanisms"]
PARTS += ["objective", "pictures", "evaluation", "tracking.folder", "tracking.facts", "tracking.identity"]

# as on a machine on which they are not installed
ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lightning", "pytorch_lightning", "lightning_fabric", "wandb"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def the_run(folder):
    (path,) = folder.glob("*/*")
    return path, json.loads((path / "summary.json").read_text())


def test_parts_and_a_plain_loop_need_neither_lightning_nor_wandb(tmp_path):
    imports = "\n".join(f"import semconv.{part}" for part in PARTS)
    code = f"{ABSENT}\n{imports}\nfrom semconv import SemanticConv2d\nimport runpy\nsys.argv[1:] = ['--runs', {str(tmp_path)!r}]\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}runpy.run_path({str(ROOT / 'examples' / 'plain_loop.py')!r}, run_name='__main__')"],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as the tests do
    )
    assert done.returncode == 0, done.stderr
    path, summary = the_run(tmp_path)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 40
    assert rows[-1]["train/loss"] < 0.8 * rows[0]["train/loss"]
    assert summary["cost/train_images_per_second"] > 0
    convolutions = 2 * 16 * 16 * (24 * 3 * 49 * 2)
    assert convolutions <= summary["cost/flops"] < 1.01 * convolutions  # and the mask on the grid of the first
    assert (path / "media" / "last.png").is_file()


def test_the_callbacks_serve_another_module(tmp_path):
    (tmp_path / "runs").mkdir()
    program = partial(runpy.run_path, str(ROOT / "examples" / "lightning_module.py"), run_name="__main__")
    done = Forked(["--runs", str(tmp_path / "runs")], tmp_path, program=program).wait()
    assert done.returncode == 0, done.stderr
    path, summary = the_run(tmp_path / "runs")
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if "train/gradient_norm" in row]
    assert [row["step"] for row in trained] == [3, 7, 11, 15]
    assert [row["samples_seen"] for row in trained] == [256, 512, 768, 1024]
    assert all(row["train/learning_rate"] == pytest.approx(3e-3) and row["train/images_per_second"] > 0 for row in trained)
    assert summary["status"] == "finished"
    assert summary["cost/parameters"] == (5 * 5 * 16 + 16 + 3 * 5 * 5 * 16) + (16 * 5 * 5 + 1 + 3 * 5 * 5)
    assert summary["cost/flops"] > 0
    assert summary["test/loss"] < 0.2
    assert (path / "media" / "test.png").is_file()
    assert len(list((path / "media" / "test").glob("pasted-*.png"))) == 8  # other tests show fewer
    assert {"config.yaml", "environment.json"} <= {child.name for child in path.iterdir()}
