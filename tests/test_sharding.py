"""Weights in shards: every variant learns what it learns whole, over any number of processes, also when it is resumed."""

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from jsonargparse import Namespace
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule

from semconv.commands.train import main
from semconv.commands.trainer_options import check_sharding
from semconv.corruption import Hide
from semconv.masking import RandomMasker
from semconv.processes import gathered
from semconv.sharding import shard
from tests.experiments import NAMES, arguments, look, make_task, random_images
from tests.pairwise import together
from tests.processes import Forked
from tests.recording import SHORT, logged, record_over_two_processes, train


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "cnn_gradual" else [pytest.mark.slow]) for name in NAMES])
def test_every_variant_learns_in_shards_what_it_learns_whole(name: str, tmp_path: Path) -> None:
    """In a process of its own: one in which sharded weights have learnt cannot be forked for others that learn."""
    done = Forked([name, str(tmp_path)], tmp_path, program=_learn_in_shards).wait()
    assert done.returncode == 0, done.stderr


def _learn_in_shards() -> None:
    name, folder = sys.argv[1:]
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    whole, sharded = make_task(name).train(), make_task(name).train()
    shard(sharded, mesh)
    shard(sharded, mesh)  # as a test after a training does
    assert isinstance(sharded.encoder, FSDPModule)
    images = random_images(whole, 4)
    view, mask = look(whole, images, RandomMasker(), Hide())
    losses = []
    for task in (whole, sharded):
        torch.manual_seed(0)
        losses.append(task.objective(task(view), images, mask))
        losses[-1].backward()
    assert torch.equal(*losses)
    for (path, ours), (_, theirs) in zip(sharded.named_parameters(), whole.named_parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), path
        if ours.grad is not None and theirs.grad is not None:
            torch.testing.assert_close(gathered(ours.grad), theirs.grad)
    dist.destroy_process_group()


WORKS = {"strategy": "fsdp2", "evaluation": "none", "precision": "bf16-mixed"}


@together(
    "change, said",
    [
        ({"strategy": "fsdp"}, "trainer.strategy is fsdp: give fsdp2"),
        ({"strategy": ModelParallelStrategy()}, "trainer.strategy is ModelParallelStrategy: give fsdp2"),
        ({"evaluation": "quick"}, "evaluation is quick, .* fsdp2: give none, and evaluate its checkpoint on one device"),
        ({"evaluation_every": 1}, "evaluation_every is 1, which does not work with the strategy fsdp2: give null"),
        ({"compile": True}, "model.compile is True, .*: give false"),
        ({"precision": "16-mixed"}, "trainer.precision is 16-mixed, .*: give bf16-mixed"),
        ({"sync_batchnorm": True}, "trainer.sync_batchnorm is True, .*: give false"),
    ],
)
def test_what_does_not_work_in_shards_is_refused(change: dict[str, Any], said: str) -> None:
    def check(**values: Any) -> None:
        model = Namespace(init_args=Namespace(compile=values.get("compile", False)))
        config = Namespace(evaluation=values["evaluation"], evaluation_every=values.get("evaluation_every"), model=model)
        trainer = Namespace({key: values.get(key) for key in ("strategy", "precision", "sync_batchnorm")})
        check_sharding(trainer, config, "run")

    check(**WORKS)
    with pytest.raises(ValueError, match=said):
        check(**{**WORKS, **change})


def test_what_is_refused_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", *arguments("cnn_plain", *SHORT, f"--runs={tmp_path}", "--trainer.strategy=fsdp2", "--evaluation=full")])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("semconv: error: ")]
    assert (ended.value.code, "evaluation is full" in line) == (2, True)
    assert not list(tmp_path.iterdir())


OPTIONS = ["--data.num_images=120", "--trainer.limit_val_batches=1.0", "--trainer.max_epochs=2", "--trainer.max_steps=6"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_runs")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
@pytest.mark.parametrize("name", ["mae_vit", "cnn_gradual"])
def test_two_processes_with_half_of_the_weights_each_learn_what_one_does(name: str, tmp_path: Path) -> None:
    """Whole, and resumed at step 4, within an epoch, from a checkpoint of the other kind."""
    options = [*OPTIONS, "--checkpoint_every=4", "--trainer.gradient_clip_val=0.5"]
    folders = {key: tmp_path / key for key in ("one", "two", "one then two", "two then one")}
    for folder in folders.values():
        folder.mkdir()
    saved = {key: folder / "step.ckpt" for key, folder in folders.items()}
    single = train(name, folders["one"], *options)
    test = single.trainer.test(single.model, datamodule=single.datamodule, verbose=False)[0]
    weights = [parameter.double().square().sum().item() for parameter in single.model.parameters()]
    records = record_over_two_processes(name, folders["two"], *options, strategy="fsdp2")
    for key in ("one", "two"):
        (saved[key],) = folders[key].glob("*/*/checkpoints/step-00000004.ckpt")
    records += record_over_two_processes(name, folders["one then two"], *options, f"--ckpt_path={saved['one']}", strategy="fsdp2")
    resumed = train(name, folders["two then one"], *options, ckpt_path=saved["two"]).model
    # each tensor is cut between rows: one of a single row, such as a table of positions, lies on the first process
    first = sum(-(-len(parameter) // 2) * parameter[0].numel() for parameter in resumed.parameters())
    held = [first, sum(parameter.numel() for parameter in resumed.parameters()) - first]
    assert [record["held"] for record in records] == held * 2
    for record in records:
        # sums in another order, enlarged by Adam
        assert record["test"] == pytest.approx(test, rel=1e-3)
        assert record["weights"] == pytest.approx(weights, rel=1e-3, abs=1e-3)
    theirs = [parameter.double().square().sum().item() for parameter in resumed.parameters()]
    assert theirs == pytest.approx(weights, rel=1e-3, abs=1e-3)
    rows = logged(folders["one"])
    assert any("val/masked_mse" in row for row in rows)
    for key, first in (("two", 0), ("one then two", 4), ("two then one", 4)):
        wanted = [row["train/loss"] for row in rows if "train/loss" in row][first:]
        assert [row["train/loss"] for row in logged(folders[key]) if "train/loss" in row] == pytest.approx(wanted, rel=1e-3)
