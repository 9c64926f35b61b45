"""Runs that are stopped, resumed, and opened again."""

import json
import os
import signal
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import yaml

from semconv import load_run
from semconv.__main__ import main as command
from semconv.commands import train
from semconv.commands.train import main
from semconv.tasks import MaskedReconstruction
from semconv.tracking.checkpoints import WholeCheckpointIO, read_checkpoint
from semconv.tracking.folder import is_whole, newest_checkpoint
from semconv.trained.run import check_classes
from tests.experiments import arguments
from tests.processes import Forked
from tests.recording import logged

pytestmark = pytest.mark.usefixtures("quick_runs")

# three epochs of four steps
OPTIONS = ["--data.num_images=36", "--data.num_test_images=8", "--data.batch_size=8", "--trainer.max_epochs=3"]
OPTIONS += ["--trainer.log_every_n_steps=1", "--trainer.accelerator=cpu", "--evaluation=none", "--model.size=micro"]
OPTIONS += ["--wandb.mode=disabled"]


def the_run(folder):
    (run,) = folder.glob("*/*")
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    main(["run", *arguments("cnn_channels", *OPTIONS, f"--runs={folder}", "--checkpoint_every=5")])
    return the_run(folder)


@contextmanager
def interrupted(at, interrupt):
    """Training that is interrupted within a step, numbered from 0."""
    step = MaskedReconstruction.training_step

    def training_step(self, *given):
        if self.global_step == at:
            interrupt()
        return step(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskedReconstruction, "training_step", training_step)
        yield


def stop(folder, number):
    """Start a run that is sent a signal in the step after a checkpoint, within an epoch, and wait until it has ended."""
    options = [*OPTIONS, f"--runs={folder}", "--checkpoint_every=3"]
    with interrupted(6, lambda: os.kill(os.getpid(), number)):
        running = Forked(["run", *arguments("cnn_channels", *options)], folder)
    return running.wait(60)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_saves_and_marks_the_run_which_goes_on_to_the_same_bits(number, code, whole, tmp_path):
    done = stop(tmp_path, number)
    assert done.returncode == code
    run = the_run(tmp_path)
    assert f"to continue this run: semconv run --resume {run}" in done.stderr.splitlines()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "terminated"
    # the step that it was in is finished
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == summary["trainer/global_step"] == 7
    if number == signal.SIGINT:  # what it has saved, and how it is resumed, is as after SIGTERM
        return
    main(["run", "--resume", str(run)])
    ours, theirs = (read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (run, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert logged(tmp_path) == logged(whole.parent.parent)
    summary, expected = (json.loads((folder / "summary.json").read_text()) for folder in (run, whole))
    assert summary["status"] == "finished"
    for key in ("test/masked_mse", "val/masked_mse", "samples_seen"):
        assert summary[key] == expected[key]
    sessions = json.loads((run / "environment.json").read_text())["sessions"]
    assert len(sessions) == 2


def test_a_killed_run_whose_last_checkpoint_is_cut_off_goes_on_from_the_one_before(whole, tmp_path):
    assert stop(tmp_path, signal.SIGKILL).returncode == -signal.SIGKILL
    run = the_run(tmp_path)
    assert json.loads((run / "summary.json").read_text())["status"] == "running"
    last = run / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    last.unlink()  # it shares its bytes with the other
    last.write_bytes(content[: len(content) // 2])
    before = newest_checkpoint(run / "checkpoints")
    assert before is not None
    assert before.name.startswith("step-")
    main(["run", "--resume", str(run)])
    assert logged(tmp_path) == logged(whole.parent.parent)


def die_before_the_test():
    train.Trainer.test = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, method-assign]
    command()


def test_a_run_that_is_killed_between_training_and_test_is_not_finished(whole, tmp_path):
    words = ["run", *arguments("cnn_channels", *OPTIONS, f"--runs={tmp_path}")]
    assert Forked(words, tmp_path, program=die_before_the_test).wait(60).returncode == -signal.SIGKILL
    run = the_run(tmp_path)
    assert json.loads((run / "summary.json").read_text())["status"] == "running"
    main(["run", "--resume", str(run)])
    summary, expected = (json.loads((folder / "summary.json").read_text()) for folder in (run, whole))
    for key in ("status", "test/masked_mse", "val/masked_mse", "samples_seen"):
        assert summary[key] == expected[key]


def cut_the_power():
    raise RuntimeError("the power is cut")


@pytest.mark.parametrize("epochs", [-1, 3])
def test_a_run_that_goes_on_from_the_end_of_an_epoch_logs_the_same_steps(epochs, whole, tmp_path):
    """Of the second epoch: Lightning alone numbers the next steps wrongly, or leaves an epoch out where both budgets are given."""
    options = [*OPTIONS, f"--runs={tmp_path}", "--checkpoint_every=4", f"--trainer.max_epochs={epochs}", "--trainer.max_steps=12"]
    with interrupted(9, cut_the_power), pytest.raises(RuntimeError, match="power"):
        main(["run", *arguments("cnn_channels", *options)])
    run = the_run(tmp_path)
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 8
    main(["run", "--resume", str(run)])
    assert logged(tmp_path) == logged(whole.parent.parent)


def test_checkpoints_are_kept_every_so_many_steps(whole):
    names = sorted(path.name for path in (whole / "checkpoints").glob("*.ckpt"))
    assert names == ["last.ckpt", *(f"step-{step:08d}.ckpt" for step in (5, 10))]
    for name in names[1:]:
        assert read_checkpoint(whole / "checkpoints" / name)["global_step"] == int(name[5:13])


def test_a_finished_run_and_one_without_checkpoints_are_not_resumed(whole, tmp_path, capsys):
    # the second: another process finishes it while this one waits for the folder
    for resumable in (train._resumable, lambda folder: str(newest_checkpoint(folder.checkpoints))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "_resumable", resumable)
            with pytest.raises(SystemExit) as stopped:
                main(["run", "--resume", str(whole)])
        assert stopped.value.code == 2
        assert "is finished: start another run by -c" in capsys.readouterr().err
    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / "config.yaml").write_text((whole / "config.yaml").read_text())
    with pytest.raises(SystemExit):
        main(["run", "--resume", str(tmp_path / "a run")])
    assert f"has no complete checkpoint: start it again by -c '{tmp_path}/a run/config.yaml'" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"train it with semconv fit -c '.*/a run/config\.yaml'"):
        load_run(tmp_path / "a run")


def test_only_training_goes_on(whole, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["test", "--resume", str(whole)])
    assert stopped.value.code == 2
    assert "--resume is for fit and run: test a run by -c RUN/config.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_checkpoint_that_was_cut_off_is_recognised(share, tmp_path):
    WholeCheckpointIO().save_checkpoint({"state_dict": {"w": torch.randn(1000)}}, tmp_path / "a.ckpt")
    content = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(content[: int(share * len(content))])
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    (tmp_path / "flipped.ckpt").write_bytes(flipped)
    assert is_whole(tmp_path / "a.ckpt")
    assert not is_whole(tmp_path / "cut.ckpt")
    assert not is_whole(tmp_path / "flipped.ckpt")
    with pytest.raises(ValueError, match="is not a complete checkpoint"):
        read_checkpoint(tmp_path / "cut.ckpt")


class Harmful:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_is_run(tmp_path):
    torch.save({"state_dict": {}, "extra": Harmful(tmp_path / "harmed")}, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match="holds more than weights and plain values"):
        WholeCheckpointIO().load_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "harmed").exists()


def test_a_run_is_opened_again(whole):
    run = load_run(whole)
    saved = read_checkpoint(whole / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.equal(saved[key], value) for key, value in run.task.state_dict().items())
    assert not run.task.training
    assert run.config["experiment"] == "cnn_channels"
    data: Any = run.data
    task: Any = run.task
    batch = data.on_after_batch_transfer(data.sample("test", 4))
    assert task(task.look(batch, "test")[0]).shape == batch.images.shape


def altered(whole, tmp_path, change):
    config = yaml.safe_load((whole / "config.yaml").read_text())
    change(config)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes((whole / "checkpoints" / "last.ckpt").read_bytes())
    return tmp_path / "run"


def encoder_of(config):
    return config["model"]["init_args"]["encoder"]


def test_code_that_is_not_trusted_is_not_even_imported(whole, tmp_path, monkeypatch):
    code = f"from pathlib import Path\nPath({str(tmp_path / 'imported')!r}).touch()\nclass Encoder: pass"
    (tmp_path / "stranger.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    folder = altered(whole, tmp_path, lambda config: encoder_of(config).update(class_path="stranger.Encoder"))
    with pytest.raises(ValueError, match=r"the run names stranger.Encoder, .* read that code, then set SEMCONV_TRUST=stranger"):
        load_run(folder)
    assert not (tmp_path / "imported").exists()
    with pytest.raises(ValueError, match=r"cannot be built: .*stranger.Encoder"):  # trusted, but no encoder
        load_run(folder, trust=["stranger"])


def test_code_that_is_trusted_is_built(whole, tmp_path, monkeypatch):
    (tmp_path / "friend.py").write_text("from semconv.mechanisms import Channels as Told")
    monkeypatch.syspath_prepend(tmp_path)
    folder = altered(whole, tmp_path, lambda config: encoder_of(config)["init_args"].update(mechanism="friend.Told"))
    with pytest.raises(ValueError, match=r"the run names friend\.Told"):
        load_run(folder)
    ours, saved = load_run(folder, trust=["friend"]).task.state_dict(), read_checkpoint(whole / "checkpoints" / "last.ckpt")
    monkeypatch.setenv("SEMCONV_TRUST", "other,friend")
    assert load_run(folder).task
    assert all(torch.equal(saved["state_dict"][key], value) for key, value in ours.items())


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "semconv_evil.Encoder", "torch.hub.load"])
def test_names_of_functions_are_found_wherever_they_stand(name):
    for config in ({"a": [{"class_path": name}]}, {"b": {"class_path": "semconv.X", "init_args": {"f": {"class_path": name}}}}):
        with pytest.raises(ValueError, match="the run names"):
            check_classes(config, ("semconv", "torch.nn"))
    if name != "semconv_evil.Encoder":  # a plain text, which nothing could import
        with pytest.raises(ValueError, match="the run names"):
            check_classes({"mechanism": name}, ("semconv", "torch.nn"))
    check_classes(
        {"source": "path/to/data", "a": {"class_path": "semconv.tasks.X"}, "b": "v1.0", "c": "nobody.knows"}, ("semconv",)
    )


def test_a_class_of_ours_in_the_wrong_place_is_refused(whole, tmp_path):
    folder = altered(whole, tmp_path, lambda config: encoder_of(config).update(class_path="semconv.masking.RandomMasker"))
    with pytest.raises(ValueError, match="cannot be built"):
        load_run(folder)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no config\.yaml: give a run's folder"):
        load_run(tmp_path)
