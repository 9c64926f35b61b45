"""Runs that are killed at any moment, and resumed until they are finished."""

import json
import os
import signal
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from random import Random

import torch

from semconv.tracking.checkpoints import read_checkpoint
from semconv.tracking.folder import newest_checkpoint
from tests.campaign.trial import Trial
from tests.experiments import arguments
from tests.processes import Forked
from tests.recording import logged

OPTIONS = ["--trainer.max_steps=24", "--trainer.max_epochs=-1", "--data.num_images=160", "--data.num_test_images=20"]
OPTIONS += ["--data.batch_size=16", "--trainer.log_every_n_steps=1", "--trainer.accelerator=cpu", "--evaluation=none"]
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def kills(random: Random, folder: Path) -> Iterator[Trial]:
    """A run of each of two variants is stopped at a random moment, up to three times, and compared with one that was not."""
    whole = {name: _whole(name, folder / name) for name in ("cnn_channels", "mae_vit")}
    for attempt in _count():
        name, number, every = random.choice(list(whole)), random.choice(SIGNALS), random.choice((1, 3, 5))
        run, seconds = whole[name]
        place = folder / f"attempt-{attempt}"
        place.mkdir()
        words = ["run", *arguments(name, *OPTIONS, f"--runs={place}", f"--checkpoint_every={every}")]
        moments = [random.uniform(0, 1.2) * seconds for _ in range(random.choice((1, 1, 2, 3)))]
        case = f"{name}, {signal.Signals(number).name} after {', '.join(f'{moment:.1f}' for moment in moments)} s of {seconds:.1f}"
        for moment in moments:
            _stop(words, place, number, moment)
            if (found := _resumable(place)) is None:
                break
            words = ["run", "--resume", str(found)]
        yield _end(words, place, run, case)


def _end(words: list[str], place: Path, whole: Path, case: str) -> Trial:
    """Finish a run that was stopped, and compare it."""
    runs = list(place.glob("*/*/summary.json"))  # written when the folder has everything else
    if not runs:
        return Trial("killed before it had a whole folder", True, case)
    run = runs[0].parent
    summary = json.loads((run / "summary.json").read_text())
    if summary["status"] != "finished":
        if newest_checkpoint(run / "checkpoints") is None:
            return Trial("killed before its first checkpoint", True, case)
        done = Forked(words, place).wait()
        if done.returncode:
            return Trial("not resumed", False, case, done.stderr[-1000:])
    ours, theirs = (read_checkpoint(each / "checkpoints" / "last.ckpt")["state_dict"] for each in (run, whole))
    # Lightning numbers the epoch of the last validation otherwise where nothing but the test was left
    rows = [[{**row, "epoch": None} for row in logged(folder)] for folder in (place, whole.parent.parent)]
    if rows[0] != rows[1] or not all(torch.equal(ours[key], theirs[key]) for key in theirs):
        different = [pair for pair in zip_longest(*rows) if pair[0] != pair[1]]
        return Trial("other results", False, case, f"{len(different)} rows differ; the first: {different[:1]}")
    return Trial("resumed to the same bits", True, case)


def _stop(words: list[str], place: Path, number: signal.Signals, moment: float) -> None:
    running = Forked(words, place)
    end = time.monotonic() + moment
    while time.monotonic() < end and running.poll() is None:
        time.sleep(0.01)
    if running.poll() is None:
        os.kill(running.pid, number)
    running.wait(60)


def _resumable(place: Path) -> Path | None:
    """The run below a folder, if it is not finished and has a checkpoint."""
    for path in place.glob("*/*/summary.json"):
        if json.loads(path.read_text())["status"] != "finished" and newest_checkpoint(path.parent / "checkpoints"):
            return path.parent
    return None


def _whole(name: str, folder: Path) -> tuple[Path, float]:
    """A run that nobody stops, and its seconds."""
    folder.mkdir()
    begun = time.monotonic()
    done = Forked(["run", *arguments(name, *OPTIONS, f"--runs={folder}")], folder).wait()
    assert done.returncode == 0, done.stderr
    (run,) = folder.glob("*/*/")
    return run, time.monotonic() - begun


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1
