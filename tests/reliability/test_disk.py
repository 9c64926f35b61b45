"""Full disks and killed writers. A limit on the size of files makes the kernel refuse writes, as a full disk does."""

import json
import os
import resource
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semconv import files
from semconv.__main__ import main as command
from semconv.commands.train import main
from semconv.data import ImageData
from semconv.files import append_text, write_text, write_whole
from semconv.pictures import save_picture
from semconv.tracking.folder import RunFolder
from tests.experiments import arguments
from tests.processes import Forked
from tests.recording import SHORT

pytestmark = pytest.mark.usefixtures("quick_runs")

LIMITS = resource.getrlimit(resource.RLIMIT_FSIZE)


@contextmanager
def room_for(count):
    """No file may grow beyond some bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, LIMITS[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, LIMITS)


def short_of_space():
    """A command whose first word is the bytes that a file may have; 0: its output is a full device."""
    room = int(sys.argv.pop(1))
    if room == 0:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    with room_for(room or resource.RLIM_INFINITY):
        command()


def remains(folder):
    return list(folder.rglob(".*.tmp"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    words = [*SHORT, "--trainer.max_epochs=-1", "--trainer.limit_val_batches=1", "--wandb.mode=disabled", f"--runs={folder}"]
    main(["run", *arguments("cnn_plain", *words)])
    (run,) = folder.glob("*/*")
    return run


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(run, tmp_path):
    before = json.loads((run / "summary.json").read_text())
    RunFolder(run).summarise({"status": "terminated"})
    checkpoint = (run / "checkpoints" / "last.ckpt").read_bytes()
    done = Forked(["100000", "fit", "--resume", str(run), "--trainer.max_steps=5"], tmp_path, program=short_of_space).wait()
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert (
        line
        == f"semconv: error: {run}/checkpoints/last.ckpt: File too large: free disk space, give access, or choose another folder"
    )
    assert "Traceback" not in done.stderr
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == checkpoint
    assert json.loads((run / "summary.json").read_text())["status"] == "failed"
    assert remains(run) == []
    RunFolder(run).summarise(before)


@pytest.mark.parametrize(
    ("room", "words", "name"),
    [
        (100_000, ["export", "{run}", "--output", "{tmp}/out"], "{tmp}/out/model.safetensors"),
        (30_000, ["compare", "{run}", "--output", "{tmp}/out"], "{tmp}/out/comparison.html"),
        (1000, ["init", "{tmp}/out"], "{tmp}/out/experiments/base.yaml"),
        (800, ["sweep", "quickstart", "--output", "{tmp}/out"], "{tmp}/out/sweep.yaml"),
        (3000, ["sweep", "quickstart", "--output", "{tmp}/out"], "{tmp}/out/journal.log"),
        (500, ["fit", "cnn_plain", "--runs", "{tmp}/out", *SHORT], "/config.yaml"),
        (0, ["list"], "the output"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_file_that_cannot_be_written_is_named_in_one_line(room, words, name, run, tmp_path):
    (tmp_path / "said").mkdir()
    words = [str(room), *(word.format(run=run, tmp=tmp_path) for word in words)]
    done = Forked(words, tmp_path / "said", program=short_of_space).wait()
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("semconv: error: "))
    assert done.returncode == 2
    assert f"{name.format(tmp=tmp_path)}: " in error
    assert "File too large" in error or "No space left on device" in error
    assert "Traceback" not in done.stderr
    assert remains(tmp_path) == []


def test_library_writers_name_their_file_and_keep_what_was_there(tmp_path, capsys):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    writers = {
        "a.txt": lambda path: write_text(path, "x" * 5000),
        "b.png": lambda path: save_picture(picture, path),
        "c.npy": lambda path: write_whole(path, lambda file: np.save(file, np.zeros(5000))),
        "d.jsonl": lambda path: append_text(path, "x" * 5000),
    }
    for name, write in writers.items():
        (tmp_path / name).write_text("before")
        with pytest.raises(OSError, match="File too large") as caught, room_for(1000):
            write(tmp_path / name)
        assert caught.value.filename == str(tmp_path / name)
        assert (tmp_path / name).read_text().startswith("before")
    assert len(list(tmp_path.iterdir())) == len(writers)
    for number in range(8):
        (tmp_path / "data" / "train").mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "data" / "train" / f"{number}.png")
    data = ImageData(str(tmp_path / "data"), size=(8, 8), batch_size=2, cache_folder=str(tmp_path / "cache"))
    with room_for(50_000):
        assert len(data.select("train")[1]) > 0
    assert "cannot hold the decoded images (File too large): each image is decoded" in capsys.readouterr().err
    assert list((tmp_path / "cache").iterdir()) == []


def wait_as_writer():
    """Write until killed, in a folder that is the first word."""
    write_whole(Path(sys.argv[1]) / "last.ckpt", lambda file: time.sleep(60))


def test_remains_of_killed_writers_are_removed_and_no_others(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    writers = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        folder.mkdir(exist_ok=True)
        writers.append(Forked([str(folder)], tmp_path / str(number), program=wait_as_writer))
    limit = time.monotonic() + 60
    while len(remains(folder)) < 2:
        assert time.monotonic() < limit
        time.sleep(0.02)
    writers[0].send_signal(signal.SIGKILL)
    writers[0].wait()
    (folder / ".hidden.tmp").touch()
    (folder / f".model.{writers[0].pid}.tmp").mkdir()
    monkeypatch.setattr(files, "_swept", set())
    write_text(folder / "other", "")
    left = {f".last.ckpt.{writers[1].pid}.tmp", ".hidden.tmp", "other"}
    assert {path.name for path in folder.iterdir()} == left
    writers[1].send_signal(signal.SIGKILL)
    writers[1].wait()
