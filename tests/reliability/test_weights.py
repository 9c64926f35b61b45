"""Checkpoints as other programs leave them, with the names of PyTorch's wrappers."""

import json
import warnings

import pytest
import torch

from semconv import load_mae_checkpoint, load_run
from semconv.commands.train import main
from semconv.decoders import TransformerDecoder
from semconv.encoders import Geometry, MAEViT
from semconv.encoders.weights import aligned
from semconv.tracking.folder import RunFolder
from semconv.trained.export import export
from tests.experiments import arguments
from tests.recording import SHORT

pytestmark = pytest.mark.usefixtures("quick_runs")

WRAPPED = ["module.{}", "_orig_mod.{}", "module._orig_mod.{}", "_orig_mod.module.{}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    main(["fit", *arguments("mae_vit", *SHORT, "--trainer.max_epochs=-1", "--wandb.mode=disabled", f"--runs={folder}")])
    (run,) = folder.glob("*/*")
    return run


def test_weights_of_wrapped_networks_load_everywhere(run, tmp_path, capfd):
    last = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    before = {name: tensor.clone() for name, tensor in checkpoint["state_dict"].items()}
    for pattern in [*WRAPPED, "encoder"]:
        # torch.compile of a part alone renames this part's weights
        names = {
            name: name.replace("encoder.", "encoder._orig_mod.") if pattern == "encoder" else pattern.format(name)
            for name in before
        }
        torch.save({**checkpoint, "state_dict": {names[name]: tensor for name, tensor in before.items()}}, last)
        task = load_run(run).task
        assert all(torch.equal(tensor, before[name]) for name, tensor in task.state_dict().items() if name in before)
    assert export(run, tmp_path / "out").architecture == "vit_tiny_patch16_224"
    RunFolder(run).summarise({"status": "terminated"})
    capfd.readouterr()
    main(["fit", "--resume", str(run), "--trainer.max_steps=5", "--wandb.mode=disabled"])
    assert json.loads((run / "summary.json").read_text())["trainer/global_step"] == 5
    assert "Warning" not in capfd.readouterr().err


def test_published_weights_that_were_wrapped_load_without_a_warning(tmp_path):
    geometry = Geometry(3, (32, 32), 4)
    encoder = MAEViT(geometry, "test")
    decoder = TransformerDecoder(geometry, "test", encoder)
    published = {f"decoder_{name}": tensor for name, tensor in decoder.state_dict().items() if name != "token.mask_token"}
    published |= {**encoder.state_dict(), "mask_token": decoder.state_dict()["token.mask_token"].flatten(2).mT}
    published = {name: tensor + 1.0 if "norm" in name else tensor.clone() for name, tensor in published.items()}
    torch.save({"model": {f"module.{name}": tensor for name, tensor in published.items()}}, tmp_path / "a.pth")
    with warnings.catch_warnings(action="error"):
        report = load_mae_checkpoint(tmp_path / "a.pth", encoder, decoder)
    assert torch.equal(encoder.norm.weight, published["norm.weight"])
    assert set(report.loaded) == set(published)
    assert (report.ignored, report.notes) == ((), ())


def test_names_are_those_of_the_model_where_that_is_clear():
    assert aligned({"module.a.b": 1, "head.c": 2}, ["a.b"]) == {"a.b": 1, "head.c": 2}
    assert aligned({"a.b": 1}, ["a._orig_mod.b"]) == {"a._orig_mod.b": 1}  # a network that is compiled where it is built
    assert aligned({"a.module.b": 1, "a.c": 2}, ["a.module.b", "a.c"]) == {"a.module.b": 1, "a.c": 2}
    both = {"a": 1, "module.a": 2}
    assert aligned(both, ["a", "module.a"]) == aligned(both, ["a"]) == both
