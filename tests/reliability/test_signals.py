"""Signals and time: what a run leaves when it is stopped."""

import json
import os
import signal
import time

import pytest
import torch

from semconv.__main__ import main as command
from semconv.callbacks.checkpoints import Checkpoints
from semconv.commands.train import main
from semconv.tasks import MaskedReconstruction
from semconv.tracking.checkpoints import read_checkpoint
from tests.experiments import arguments
from tests.processes import Forked
from tests.recording import SHORT, logged

pytestmark = pytest.mark.usefixtures("quick_runs")

ENDLESS = [*SHORT, "--trainer.max_steps=-1", "--trainer.max_epochs=1000", "--data.num_workers=1", "--checkpoint_every=2"]


def in_a_group_of_its_own():
    os.setpgrp()
    command()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_all_processes_of_a_run_ends_it_as_one_to_the_first(number, code, tmp_path):
    words = ["fit", *arguments("cnn_plain", *ENDLESS, f"--runs={tmp_path / 'runs'}")]
    running = Forked(words, tmp_path, program=in_a_group_of_its_own)
    limit = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/*/checkpoints/step-*2.ckpt")):
        assert time.monotonic() < limit
        time.sleep(0.05)
    os.killpg(running.pid, number)
    done = running.wait(60)
    assert done.returncode == code, done
    assert done.stderr.count("finishing the step") == 1
    (run,) = tmp_path.glob("runs/*/*")
    assert json.loads((run / "summary.json").read_text())["status"] == "terminated"


def test_a_checkpoint_is_written_after_some_time(tmp_path):
    words = [*SHORT, f"--runs={tmp_path}", "--checkpoint_minutes=1e-9"]
    written: list[int] = []

    class Noted(Checkpoints):
        def save(self, trainer):
            written.append(trainer.global_step)
            super().save(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semconv.commands.train.Checkpoints", Noted)
        main(["fit", *arguments("cnn_plain", *words)])
        main(["fit", *arguments("cnn_plain", *words, "--checkpoint_minutes=null")])
    assert written == [1, 2, 3, 3]  # three batches are an epoch
    for minutes in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="checkpoint_minutes is"):
            Checkpoints(tmp_path, minutes=minutes)


# an epoch has 7 batches: two groups of 3, and one of 1
GROUPED = [*SHORT, "--trainer.accumulate_grad_batches=3", "--trainer.max_steps=-1", "--trainer.max_epochs=2"]
GROUPED += ["--data.num_images=32", "--data.batch_size=4", "--checkpoint_minutes=1e-9"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, quick_runs):
    """The folder of a run that is not stopped."""
    folder = tmp_path_factory.mktemp("whole")
    main(["run", *arguments("cnn_plain", *GROUPED, "--wandb.mode=disabled", f"--runs={folder}")])
    return folder


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=["SIGTERM", "SIGKILL"])
def test_a_run_that_is_stopped_inside_a_group_of_accumulated_batches_resumes_to_the_same_bits(number, code, whole, tmp_path):
    step = MaskedReconstruction.training_step

    def stopped(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (1, 4):  # the second batch of the second group
            os.kill(os.getpid(), number)
        return step(self, batch, batch_idx)

    words = ["run", *arguments("cnn_plain", *GROUPED, f"--runs={tmp_path / 'stopped'}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskedReconstruction, "training_step", stopped)
        running = Forked(words, tmp_path)
    assert running.wait().returncode == code
    runs = [next(folder.glob("*/*")) for folder in (tmp_path / "stopped", whole)]
    main(["run", "--resume", str(runs[0])])
    ours, theirs = (read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in runs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert logged(tmp_path / "stopped") == logged(whole)
