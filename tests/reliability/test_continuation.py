"""Runs that continue from a checkpoint: what they record is true of all their steps."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

from semconv.commands.train import main
from semconv.comparison.runs import find_runs
from semconv.optimisation import warmup_cosine
from semconv.tracking.folder import RunFolder
from semconv.tracking.locks import Lock
from tests.experiments import arguments
from tests.recording import SHORT

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    options = [*SHORT, "--trainer.max_epochs=-1", "--checkpoint_every=2", "--wandb.mode=disabled", f"--runs={folder}"]
    main(["run", *arguments("cnn_plain", *options)])
    (run,) = folder.glob("*/*")
    return run


@pytest.fixture
def run(trained, tmp_path):
    """A run of three steps that was interrupted before its test."""
    copy = shutil.copytree(trained, tmp_path / "runs" / trained.parent.name / trained.name)
    RunFolder(copy).summarise({"status": "terminated"})
    return copy


def summary(run):
    return json.loads((run / "summary.json").read_text())


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    said = capsys.readouterr().err
    assert (ended.value.code, len(said.splitlines())) == (2, 1)
    return said


def test_a_resumed_run_leaves_a_configuration_that_starts_anew(run, tmp_path):
    main(["run", "--resume", str(run)])
    assert "ckpt_path" not in yaml.safe_load((run / "config.yaml").read_text())
    main(["run", "-c", str(run / "config.yaml"), "--seed_everything=1", f"--runs={tmp_path / 'other'}"])
    (other,) = (tmp_path / "other").glob("*/*")
    assert len((other / "metrics.jsonl").read_text().splitlines()) >= 3  # it has trained
    assert summary(other)["test/masked_mse"] != summary(run)["test/masked_mse"]


@pytest.mark.parametrize(
    ("way", "option", "said"),
    [
        ("--resume", "--model.masker.ratio=0.5", "model.masker.ratio was 0.75 and is now 0.5"),
        ("--ckpt_path", "--model.base_lr=0.05", "model.base_lr was 0.008 and is now 0.05"),
        ("--resume", "--seed_everything=1", "seed was 0 and is now 1"),
        ("--ckpt_path", "--trainer.max_steps=2", "trainer.max_steps was 3 and is now 2: give a larger budget"),
        ("--resume", "--data.num_images=96", "data.num_images was 128 and is now 96"),
    ],
)
def test_a_run_keeps_its_seed_network_and_protocol(way, option, said, run, tmp_path, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    source = ["--resume", str(run)]
    if way == "--ckpt_path":
        source = [
            "-c",
            str(run / "config.yaml"),
            f"--runs={tmp_path / 'runs'}",
            "--ckpt_path",
            str(run / "checkpoints" / "last.ckpt"),
        ]
    assert said in refused(capsys, "run", *source, option)
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before


def test_a_checkpoint_says_itself_what_it_is_of(run, tmp_path, capsys):
    alone = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "alone.ckpt")
    words = [*arguments("cnn_plain", *SHORT, f"--runs={tmp_path / 'other'}"), "--ckpt_path", str(alone)]
    assert "model.masker.ratio was 0.75 and is now 0.5" in refused(capsys, "fit", *words, "--model.masker.ratio=0.5")


def test_a_checkpoint_of_a_whole_epoch_leaves_nothing_of_it(tmp_path, capsys):
    words = [*SHORT, "--trainer.max_steps=-1", "--trainer.max_epochs=1", "--checkpoint_every=2", f"--runs={tmp_path}"]
    main(["fit", *arguments("cnn_plain", *words)])
    (run,) = tmp_path.glob("*/*")
    checkpoints = run / "checkpoints"
    again = ["-c", str(run / "config.yaml"), f"--runs={tmp_path / 'other'}", "--ckpt_path"]
    capsys.readouterr()
    assert "nothing is left to train" in refused(capsys, "fit", *again, str(checkpoints / "last.ckpt"))
    main(["fit", *again, str(checkpoints / "step-00000002.ckpt")])  # one of three steps is left
    RunFolder(run).summarise({"status": "terminated"})  # in its last validation
    main(["fit", "--resume", str(run)])
    assert summary(run)["status"] == "finished"


def test_a_checkpoint_that_leaves_nothing_to_train_is_refused(run, tmp_path, capsys):
    words = ["-c", str(run / "config.yaml"), f"--runs={tmp_path / 'other'}", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    assert "has 3 steps, and nothing is left to train" in refused(capsys, "run", *words)
    assert "leave --ckpt_path out, or --resume" in refused(capsys, "run", "--resume", str(run), "--ckpt_path", "any.ckpt")
    assert not (tmp_path / "other").exists()


def test_a_lengthened_run_is_recorded_as_such(run, capsys):
    protocol = summary(run)["protocol"]
    assert not protocol["trainer"].get("lengthened_at")
    protocol["trainer"]["lengthened_at"] = "3"  # by a process that was killed before its first checkpoint
    RunFolder(run).summarise({"protocol": protocol})
    main(["run", "--resume", str(run), "--trainer.max_steps=5"])
    found, rows = summary(run), RunFolder(run).rows()
    config = yaml.safe_load((run / "config.yaml").read_text())
    model = config["model"]["init_args"]
    peak = model["base_lr"] * config["data"]["init_args"]["batch_size"] / 256
    rates = {row["step"]: row["train/learning_rate"] for row in rows if "train/learning_rate" in row}
    for step in (3, 4):  # of the new schedule from its first step on
        factor = warmup_cosine(step, 5, model["warmup"], model["min_lr"] / model["base_lr"])
        assert rates[step] == pytest.approx(peak * factor, rel=1e-6)
    trainer = found["protocol"]["trainer"]
    assert (found["trainer/global_step"], trainer["max_steps"], trainer["lengthened_at"]) == (5, 5, "3")
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 5
    assert yaml.safe_load((run / "config-until-step-3.yaml").read_text())["trainer"]["max_steps"] == 3
    RunFolder(run).summarise({"status": "terminated"})
    main(["run", "--resume", str(run)])
    assert summary(run)["protocol"]["trainer"]["lengthened_at"] == "3"  # and a whole run of 5 steps is no other seed of it


def test_a_run_that_lengthens_another_is_recorded_as_such(run, tmp_path, capsys):
    start = ["-c", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    main(["run", *start, "--trainer.max_steps=5", f"--runs={tmp_path / 'longer'}"])
    (longer,) = (tmp_path / "longer").glob("*/*")
    assert summary(longer)["protocol"]["trainer"]["lengthened_at"] == "3"
    again = ["-c", str(longer / "config.yaml"), "--ckpt_path", str(longer / "checkpoints" / "last.ckpt")]
    main(["run", *again, "--trainer.max_steps=6", f"--runs={tmp_path / 'longest'}"])
    (longest,) = (tmp_path / "longest").glob("*/*")
    assert summary(longest)["protocol"]["trainer"]["lengthened_at"] == "3, 5"
    main(["test", *again, f"--runs={tmp_path / 'tested'}"])
    capsys.readouterr()
    assert find_runs([str(tmp_path / "tested")]).runs == []
    assert "it tests weights that were trained with another trainer.lengthened_at" in capsys.readouterr().err


def test_weights_of_something_else_are_refused(run, tmp_path, capsys):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "w.pt")
    words = ["-c", str(run / "config.yaml"), "--ckpt_path", str(tmp_path / "w.pt"), f"--runs={tmp_path / 'other'}"]
    for subcommand in ("test", "fit"):
        assert "w.pt is no checkpoint of a run" in refused(capsys, subcommand, *words)
    assert not (tmp_path / "other").exists()


def test_one_process_at_a_time_uses_a_run(run, capsys, monkeypatch):
    monkeypatch.setattr("semconv.tracking.folder.PATIENCE", 0.1)
    lock = Lock(run / "run.lock")
    assert lock.acquire(wait=False)
    assert f"another process uses {run}" in refused(capsys, "run", "--resume", str(run))
    assert summary(run)["status"] == "terminated"
    lock.close()


def test_weights_tested_on_their_way_or_under_another_protocol_are_no_run_of_it(run, tmp_path, capsys):
    words = ["-c", str(run / "config.yaml"), f"--runs={tmp_path / 'tested'}", "--ckpt_path"]
    for name, *options in (("step-00000002",), ("last",), ("last", "--model.masker.ratio=0.5")):
        main(["test", *words, str(run / "checkpoints" / f"{name}.ckpt"), *options])
    capsys.readouterr()
    found = find_runs([str(tmp_path / "tested")]).runs
    assert [(each.protocol["model.masker.ratio"], each.summary["trainer/global_step"]) for each in found] == [(0.75, 3)]
    said = capsys.readouterr().err
    for other in ("number of steps", "model.masker.ratio"):
        assert f"it tests weights that were trained with another {other}" in said


def test_an_epoch_is_resumed_with_its_own_images_alone(tmp_path, capsys):
    (images := tmp_path / "images").mkdir()
    for split, number in (("train", 24), ("test", 4)):
        np.save(images / f"{split}.npy", np.zeros((number, 32, 32, 3), np.uint8))
    data = [f"--data.source=[npy/{tmp_path}/none,npy/{images},scenes]", "--data.num_images=null", "--data.num_test_images=null"]
    data.append("--data.batch_size=4")
    main(["fit", *arguments("cnn_plain", *SHORT, *data, "--checkpoint_every=2", f"--runs={tmp_path / 'runs'}")])
    (run,) = (tmp_path / "runs").glob("*/*")
    for path in run.glob("checkpoints/*.ckpt"):
        if path.name != "step-00000002.ckpt":
            path.unlink()
    RunFolder(run).summarise({"status": "terminated"})
    capsys.readouterr()
    np.save(images / "train.npy", np.zeros((28, 32, 32, 3), np.uint8))
    assert "the checkpoint was written inside an epoch with num_images" in refused(capsys, "fit", "--resume", str(run))
    found = summary(run)
    assert (found["status"], found["data/source"], found["facts"]["dataset"]) == ("terminated", f"npy/{images}", "images")
    images.rename(tmp_path / "away")
    assert f"the run has read npy/{images}, and now scenes is the first" in refused(capsys, "fit", "--resume", str(run))
    (tmp_path / "away").rename(images)
    np.save(images / "train.npy", np.zeros((24, 32, 32, 3), np.uint8))
    main(["fit", "--resume", str(run)])
    assert summary(run)["status"] == "finished"
