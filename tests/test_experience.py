"""One seed, one experience: what a run meets does not depend on what is trained, how wide it is, or on how many devices."""

import json

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.recording import Recorder, logged, record_over_two_processes, train

pytestmark = pytest.mark.usefixtures("quick_runs")


def experience(name, folder, *overrides):
    recorder = Recorder()
    train(name, folder, *overrides, callbacks=[recorder])
    return recorder.steps


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return experience("cnn_plain", tmp_path_factory.mktemp("reference"), "--wandb.mode=disabled")


def test_a_wider_model_meets_the_same(reference, tmp_path):
    """As every variant does: tests/commands/test_train.py."""
    assert experience("cnn_channels", tmp_path, "--model.encoder.mlp_ratio=9") == reference
    assert len(reference) == 3


def test_another_seed_meets_something_else(reference, tmp_path):
    assert experience("cnn_plain", tmp_path, "--seed_everything=1") != reference


def merged(steps):
    """What all processes met at each step."""
    return [{int(i): tuple(row) for part in parts for i, row in part.items()} for parts in zip(*steps, strict=True)]


# 115 training and 5 validation images of 120, 33 test images: no evaluation batch can be shared equally
UNEVEN = ["--data.num_images=120", "--trainer.limit_val_batches=1.0", "--trainer.max_epochs=2", "--trainer.max_steps=6"]


def test_two_processes_meet_together_what_one_does_and_learn_the_same(tmp_path):
    (tmp_path / "double").mkdir()
    records = record_over_two_processes("cnn_channels", tmp_path / "double", *UNEVEN)
    recorder = Recorder()
    single = train("cnn_channels", tmp_path / "single", *UNEVEN, callbacks=[recorder])
    test = single.trainer.test(single.model, datamodule=single.datamodule, verbose=False)[0]
    assert merged([record["steps"] for record in records]) == recorder.steps
    assert len(recorder.steps) == 6
    assert not set(records[0]["steps"][0]) & set(records[1]["steps"][0])
    # gradients are summed in another order, and six steps of Adam enlarge what float32 rounds
    assert records[0]["test"] == pytest.approx(test, rel=1e-3)
    ours, theirs = logged(tmp_path / "double"), logged(tmp_path / "single")
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    for left, right in zip(ours, theirs, strict=True):
        assert left == pytest.approx(right, rel=1e-3)
    assert ours[0]["train/loss"] == pytest.approx(theirs[0]["train/loss"], rel=1e-6)  # before any step: the mean over all images
    assert {row["samples_seen"] for row in ours if "train/loss" in row} == {32 * step for step in range(1, 7)}
    assert any("val/masked_mse" in row for row in ours)
    assert records[0]["weights"] == records[1]["weights"]
    weights = [parameter.double().square().sum().item() for parameter in single.model.parameters()]
    assert records[0]["weights"] == pytest.approx(weights, rel=1e-3, abs=1e-3)


def test_two_processes_evaluate_as_one_does(tmp_path):
    """With a learning rate of 0 the networks are the same; what each process has seen is gathered."""
    options = [
        "--model.base_lr=1e-12",
        "--trainer.max_steps=1",
        "--evaluation=quick",
        "--evaluation_images=64",
    ]
    (tmp_path / "double").mkdir()
    record_over_two_processes("cnn_gated", tmp_path / "double", *options)
    single = train("cnn_gated", tmp_path / "single", *options)
    single.trainer.test(single.model, datamodule=single.datamodule, verbose=False)
    ours, theirs = (json.loads(next((tmp_path / kind).glob("*/*/summary.json")).read_text()) for kind in ("double", "single"))
    gathered = [key for key in theirs if key.startswith(("probe/", "mechanism/gate")) and not key.endswith("/reason")]
    assert {key.partition("/")[0] for key in gathered} == {"probe", "mechanism"}
    for key in gathered:
        # float32 sums of another batch layout
        assert ours[key] == (theirs[key] if theirs[key] is None else pytest.approx(theirs[key], abs=2e-3)), key
    shuffled = [key for key in theirs if key.startswith("importance/")]  # who stands beside whom depends on the batch
    assert all(key in ours for key in shuffled)


# 122 training images of 128 in batches of 32: three steps an epoch, so that all but step 3 lie inside one
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
@pytest.mark.parametrize("name", ["mae_vit", "cnn_channels"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name, tmp_path):
    options = ["--trainer.max_steps=7", "--trainer.max_epochs=3", "--model.encoder.drop_path=0.3"]
    # what a run that stops after one of these steps leaves
    saving = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=1, save_top_k=-1, filename="{step}")
    ours = train(name, tmp_path, *options, callbacks=[saving]).model.state_dict()
    for step in (2, 3):  # within an epoch, and between two
        resumed = train(name, tmp_path, *options, ckpt_path=tmp_path / "saved" / f"step={step}.ckpt")
        theirs = resumed.model.state_dict()
        assert resumed.trainer.global_step == 7
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
