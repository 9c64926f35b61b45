"""Every command and every piece of code in the README is run, on small data."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from semconv.__main__ import main

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
COMMANDS = [line.partition("#")[0].strip() for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
SMALL = [
    "--trainer.limit_train_batches=2",
    "--data.batch_size=8",
    "--data.num_images=100",
    "--data.num_test_images=9",
    "--trainer.log_every_n_steps=1",
]


def python_blocks() -> list[str]:
    return [text for kind, text in BLOCKS if kind == "python"]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder in which a reader would try the README."""
    datasets = pytest.importorskip("datasets")
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    images = [Image.new("RGB", (64, 64), (i, 200 - i, 90)) for i in range(60)]
    for i, image in enumerate(images):
        path = tmp_path / "path" / "to" / "folder" / ("train" if i % 3 else "test") / "a" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    for split in ("train", "test"):
        table = datasets.Dataset.from_dict({"img": images, "label": [i % 2 for i in range(60)]}, features=features)
        (tmp_path / "data" / "cifar10").mkdir(parents=True, exist_ok=True)
        table.to_parquet(tmp_path / "data" / "cifar10" / f"{split}-00000-of-00001.parquet")
    (tmp_path / "dimmed.py").write_text(python_blocks()[0])
    (tmp_path / "cnn_dimmed.yaml").write_text(next(text for kind, text in BLOCKS if kind == "yaml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("SEMCONV_DATA", raising=False)
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_every_command_runs(desk, monkeypatch, capsys):
    ours = [shlex.split(command)[1:] for command in COMMANDS if command.startswith("semconv ")]
    assert len(ours) == 12
    # compare reads what the others have left, and a linear probe starts from it
    later = {"compare": 2, "--pretrained": 1}
    for command in sorted(ours, key=lambda command: max(later.get(word, 0) for word in command)):
        small = SMALL if command[0] in ("run", "fit") else []
        if "RUN" in command:
            (run, *_) = sorted((desk / "runs" / "cnn_channels").glob("*/summary.json"))[-1:]
            command = [str(run.parent) if word == "RUN" else word for word in command]
            small = [*SMALL, "--trainer.max_epochs=1"]
        monkeypatch.setattr("sys.argv", ["semconv", *command, *small])
        main()
    table = capsys.readouterr().out
    assert {"cnn_channels", "cnn_channels-zero", "cnn_channels-plain_wide", "cnn_plain"} <= set(table.split())
    assert len(list(desk.glob("*/*/*/config.yaml"))) == 9
    assert (desk / "comparison" / "comparison.json").is_file()


def test_make_knows_every_target():
    targets = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert targets == ["demo", "test"]
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, env={**os.environ, "MAKEFLAGS": ""})
        assert done.returncode == 0, done.stderr


def test_the_convolution_works_without_anything_else():
    scope: dict = {}
    exec(python_blocks()[1], scope)
    assert scope["features"].shape == (8, 64, 32, 32)


def test_pictures_and_tables_are_there():
    text = (ROOT / "README.md").read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)
    assert not re.findall(r"^[A-Z_]{4,}$", text, flags=re.MULTILINE)


def test_no_command_is_left_out():
    known = ("semconv ", "make ", "pip install -e .")
    assert [command for command in COMMANDS if command and not command.startswith(known)] == []
