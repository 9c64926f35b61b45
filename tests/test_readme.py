"""Every command and every piece of code in the README is run, on small data."""

import os
import re
import subprocess

import pytest
from PIL import Image

from semconv.__main__ import main
from tests.documents import ROOT, SMALL, Document

README = Document("README.md")


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder in which a reader would try the README."""
    datasets = pytest.importorskip("datasets")
    for name in ("experiments", "sweeps"):
        (tmp_path / name).symlink_to(ROOT / name)
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
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMCONV_DATA", raising=False)
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")  # of wandb-workspaces
def test_every_command_runs(desk, monkeypatch, capsys):
    assert len(README.semconv) == 18
    # what reads the runs that others leave comes after them
    for command in sorted(README.semconv, key=lambda command: "RUN" in command or command[0] == "compare"):
        small = SMALL if command[0] in ("run", "fit") else []
        if "RUN" in command:
            run = min((desk / "runs" / "cnn_channels").glob("*/summary.json"))
            command = [str(run.parent) if word == "RUN" else word for word in command]
            small = [*SMALL, "--trainer.max_epochs=1"] if command[0] == "run" else []
        if command[0] == "sweep":  # hours; that its trials run is for tests/sweeping
            command, small = ["check", "sweeps", command[1]], ["--points=1"]
        command = ["runs" if word == "runs/sweeps/screen" else word for word in command]
        monkeypatch.setattr("sys.argv", ["semconv", *command, *small])
        main()
    table = capsys.readouterr().out
    assert {"cnn_channels", "cnn_channels-zero", "cnn_channels-plain_wide", "cnn_plain"} <= set(table.split())
    assert len(list(desk.glob("*/*/*/config.yaml"))) == 7
    assert (desk / "comparison" / "comparison.json").is_file()
    assert (desk / "exported" / "model.safetensors").is_file()
    assert (desk / "predicted" / "contact_sheet.png").is_file()


def test_make_knows_every_target():
    targets = [command.split()[1] for command in README.commands if command.startswith("make ")]
    assert targets == ["demo", "test"]
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, env={**os.environ, "MAKEFLAGS": ""})
        assert done.returncode == 0, done.stderr


def test_the_convolution_works_without_anything_else():
    scope: dict = {}
    convolution, any_cnn = README.all("python")
    exec(convolution, scope)
    assert scope["features"].shape == (8, 64, 32, 32)
    exec(any_cnn, scope)
    assert scope["vectors"].shape == (8, 512)


def test_pictures_and_pages_are_there():
    for document in ("README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))):
        text = Document(document).text
        links = re.findall(r"\]\(([\w./-]+)\)", text)
        assert [link for link in links if not (ROOT / document).parent.joinpath(link).is_file()] == []
        assert not re.findall(r"^[A-Z_]{4,}$", text, flags=re.MULTILINE)


def test_no_command_is_left_out():
    known = ("semconv ", "make ", "pip install -e .")
    assert [command for command in README.commands if not command.startswith(known)] == []
