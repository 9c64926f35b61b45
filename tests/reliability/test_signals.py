"""Signals and time: what a run leaves when it is stopped."""

import json
import os
import signal
import time

import pytest

from semconv.__main__ import main as command
from semconv.callbacks.checkpoints import Checkpoints
from semconv.commands.train import main
from tests.experiments import arguments
from tests.processes import Forked
from tests.recording import SHORT

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
