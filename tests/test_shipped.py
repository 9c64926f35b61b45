"""Files found by name, and what an installation holds."""

import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from semconv.commands.init import main as init
from semconv.shipped import HOME, find
from tests.pairwise import pairwise, together

ROOT = Path(__file__).parent.parent
FOLDERS = ("experiments", "sweeps")
TINY = [
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.log_every_n_steps=1",
    "--data.num_images=60",
    "--data.num_test_images=20",
    "--data.batch_size=8",
    "--evaluation=none",
]


@pytest.mark.parametrize(
    ("own", "folder", "suffix", "name"),
    pairwise([False, True], ["", "experiments/"], ["", ".yaml"], ["cnn_plain", "data/cifar10"]),
)
def test_a_name_means_the_users_own_file_or_else_that_of_semconv(own, folder, suffix, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if own:
        path = Path(f"{folder}{name}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    expected = path if own else HOME / "experiments" / f"{name}.yaml"
    assert find(f"{folder}{name}{suffix}", "experiments") == expected


def test_a_copy_of_the_experiments_comes_before_those_of_semconv(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    init(["copy"])
    out = capsys.readouterr().out
    for name in FOLDERS:
        count = len(list((ROOT / name).rglob("*.yaml")))
        assert f"written: copy/{name}, {count} files\n" in out
        assert {path.read_bytes() for path in Path("copy", name).rglob("*.yaml")} == {
            path.read_bytes() for path in (ROOT / name).rglob("*.yaml")
        }
    monkeypatch.chdir(tmp_path / "copy")
    assert find("base", "experiments") == Path("experiments/base.yaml")
    assert find("demo", "sweeps/studies") == Path("sweeps/studies/demo.yaml")
    with pytest.raises(SystemExit) as stop:
        init(["."])
    assert stop.value.code == 2
    assert "experiments is there already" in capsys.readouterr().err


@together(
    "name, kind, message",
    [
        ("cnn_chanels", "experiments", "there is no configuration file cnn_chanels: did you mean cnn_channels?"),
        ("experiments/cnn_chanels.yaml", "experiments", "did you mean cnn_channels?"),
        ("zeros", "experiments", "did you mean controls/zero?"),
        ("qwertz", "experiments", "there is no configuration file qwertz: give a path from the current folder"),
        ("quikstart.yaml", "sweeps", "there is no sweep file quikstart.yaml: did you mean quickstart?"),
        ("", "sweeps/studies", "there is no study file : give a path"),
    ],
)
def test_a_name_that_is_nearly_right_is_corrected(name, kind, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        find(name, kind)


def build(kind: str, source: Path, folder: Path) -> Path:
    """Build a wheel, an editable one or an sdist, as pip does it."""
    pytest.importorskip("hatchling", reason="needs pip install hatchling")
    folder.mkdir(parents=True, exist_ok=True)
    code = "import sys; from hatchling import build; print(getattr(build, sys.argv[1])(sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-c", code, f"build_{kind}", str(folder)], cwd=source, capture_output=True, text=True, check=True
    )
    return folder / done.stdout.split()[-1]


def content(wheel: Path) -> dict[str, bytes]:
    """What a wheel installs."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that is built from the sdist, so that both hold everything."""
    folder = tmp_path_factory.mktemp("built")
    with tarfile.open(build("sdist", ROOT, folder)) as archive:
        archive.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    return build("wheel", source, folder)


def test_wheel_and_sdist_hold_the_experiments_and_the_sweeps(wheel, tmp_path):
    found = content(wheel)
    assert found == content(build("wheel", ROOT, tmp_path))
    for name in FOLDERS:
        files = {f"semconv/{path.relative_to(ROOT).as_posix()}": path.read_bytes() for path in (ROOT / name).rglob("*.yaml")}
        assert {path: text for path, text in found.items() if path.startswith(f"semconv/{name}/")} == files
    # an editable install reads those of the checkout
    assert [text.decode().strip() for text in content(build("editable", ROOT, tmp_path / "editable")).values()] == [str(ROOT)]


def test_an_unpacked_wheel_finds_its_own_files_from_any_folder(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()

    def python(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        done = subprocess.run([sys.executable, *words], cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "cnn_channels" in python("-m", "semconv", "list", "variants")
    names = [("base", "experiments"), ("quickstart", "sweeps"), ("demo", "sweeps/studies")]
    found = python("-c", f"from semconv.shipped import find; print(*(find(*each) for each in {names}), sep='\\n')").splitlines()
    assert found == [str(tmp_path / "site" / "semconv" / kind / f"{name}.yaml") for name, kind in names]


CLASS = """from semconv.convolution import Mechanism


class Own(Mechanism):
    def __init__(self, convolution, indicators):
        super().__init__()

    def forward(self, convolution, x, signals):
        return convolution(x)
"""
MINE = """experiment: mine
model: {init_args: {encoder: {class_path: semconv.encoders.SemanticCNN, init_args: {mechanism: {class_path: mine.Own}}}}}
"""
SWEEP = {"method": "grid", "parameters": {"config": {"values": ["cnn_plain"]}, "seed_everything": {"values": [0, 1]}}}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_installed_wheel_trains_sweeps_compares_and_exports(wheel, tmp_path):
    """The packages that semconv needs are those of this Python; semconv itself is not."""
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    (tmp_path / "work").mkdir()

    def call(program: str, *words: str) -> str:
        command = [str(tmp_path / "venv" / "bin" / program), *words]
        done = subprocess.run(command, cwd=tmp_path / "work", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
        return done.stdout

    call("pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    own = Path(call("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (own / "needed.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    assert call("python", "-c", "import semconv; print(semconv.__file__)").startswith(str(own))

    (tmp_path / "work" / "mine.py").write_text(CLASS)
    (tmp_path / "work" / "mine.yaml").write_text(MINE)
    command = ["${env}", "semconv", "run", "-c", "base", "${args}", *TINY]
    (tmp_path / "work" / "tiny.yaml").write_text(json.dumps({"program": "semconv", "command": command, **SWEEP}))

    assert "cnn_channels" in call("semconv", "list")
    call("semconv", "run", "cnn_channels", *TINY)
    call("semconv", "run", "mine", *TINY)
    call("semconv", "sweep", "tiny")
    call("semconv", "check", "sweeps", "quickstart", "--points=1")
    (run,) = (tmp_path / "work" / "runs" / "cnn_channels").iterdir()
    assert "cnn_plain" in call("semconv", "compare", "runs/sweeps/tiny", str(run), "--output", "comparison")
    call("semconv", "export", str(run), "--output", "weights")
    for file in ("comparison/comparison.html", "weights/README.md"):
        assert (tmp_path / "work" / file).is_file()
