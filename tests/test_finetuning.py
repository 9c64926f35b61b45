from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback
from timm.optim import Lars
from torch import nn
from torch.nn import functional as F

from semconv.commands.train import _starting_from, build, main
from semconv.corruption import View
from semconv.data import Batch, ImageData
from semconv.finetuning import Classification, FineTune, LinearProbe, _numpy_seed, set_drop_path
from semconv.optimisation import parameter_groups
from semconv.trained.run import load_run
from tests.experiments import FOLDER, make_task
from tests.recording import SHORT, train

pytestmark = pytest.mark.usefixtures("quick_runs")

EVALUATION = FOLDER / "evaluation"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The folder of a short run, whose encoder has batch norms. It is opened once, of which all have copies."""
    folder = tmp_path_factory.mktemp("pretrained")
    train("cnn_channels", folder, "--model.encoder.norm=batch", "--trainer.max_steps=2")
    (run,) = folder.glob("*/*")
    opened = cache(load_run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semconv.finetuning.load_run", lambda path, initial: deepcopy(opened(path, initial=initial)))
        yield run


def prepare(kind: str, pretrained: Path, folder: Path, *overrides: str) -> Any:
    data = yaml.safe_dump({"data": yaml.safe_load((pretrained / "config.yaml").read_text())["data"]})
    short = [word for word in SHORT if not word.startswith("--model.size")]  # it is the run's
    words = ["-c", data, "-c", str(EVALUATION / f"{kind}.yaml"), *short, f"--model.pretrained_run={pretrained}", *overrides]
    return build([*words, f"--runs={folder}"])


def fit(
    kind: str, pretrained: Path, folder: Path, *overrides: str, callbacks: Sequence[Callback] = (), ckpt_path: Any = None
) -> Any:
    cli = prepare(kind, pretrained, folder, *overrides)
    cli.trainer.callbacks.extend(callbacks)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=ckpt_path)
    return cli


def encoder_state(module: Classification) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in module.encoder.state_dict().values()]


def test_a_linear_probe_leaves_the_encoder_as_it_is(pretrained, tmp_path):
    fresh: Any = LinearProbe(str(pretrained))
    before, before_head = encoder_state(fresh), fresh.head[1].weight.std()
    cli = fit("linear_probe", pretrained, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(before, encoder_state(cli.model), strict=True))
    assert cli.model.head[1].weight.std() != before_head
    (results,) = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    right = total = 0
    for batch in cli.datamodule.test_dataloader():
        batch = cli.datamodule.on_after_batch_transfer(batch)
        with torch.no_grad():
            right += int((cli.model.eval()(batch).argmax(1) == batch.labels).sum())
        total += len(batch.labels)
    assert results["linear_probe/top1"] == pytest.approx(right / total)
    assert results["linear_probe/top5"] >= results["linear_probe/top1"]
    (folder,) = tmp_path.glob("*/*")
    assert f'"pretrained_run": "{pretrained}"' in (folder / "summary.json").read_text()


def test_the_encoder_of_a_run_is_trained_in_training_mode(pretrained):
    assert all(module.training for module in FineTune(str(pretrained)).modules())


def test_features_are_the_mean_over_sites_with_nothing_masked(pretrained):
    probe: Any = LinearProbe(str(pretrained)).eval()
    images = torch.randn(3, 3, 32, 32)
    features = probe.encoder(View(images, torch.zeros(3, 8, 8, dtype=torch.bool), 0)).features.mean((2, 3))
    assert torch.allclose(probe(Batch(images, torch.arange(3), torch.arange(3))), probe.head(features), atol=1e-6)


def test_the_probe_is_trained_by_lars(pretrained):
    probe: Any = LinearProbe(str(pretrained), momentum=0.8)
    optimizer = probe.make_optimizer(0.5)
    assert isinstance(optimizer, Lars)
    weight, bias = probe.head[1].weight, probe.head[1].bias
    expected, velocity = [each.detach().double().clone() for each in (weight, bias)], [torch.zeros(()), torch.zeros(())]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for i, each in enumerate((weight, bias)):
            each.grad = torch.randn(each.shape, generator=generator)
            step = each.grad.double()
            if each is weight:  # You et al. (2017), with the trust coefficient .001 and no weight decay
                step = step * 0.001 * expected[i].norm() / step.norm()
            velocity[i] = 0.8 * velocity[i] + step
            expected[i] = expected[i] - 0.5 * velocity[i]
        optimizer.step()
    assert torch.allclose(weight.double(), expected[0], rtol=1e-5, atol=1e-7)
    assert torch.allclose(bias.double(), expected[1], rtol=1e-5, atol=1e-7)
    assert probe.head[0].affine is False


def test_a_probe_learns_classes_that_features_tell(pretrained):
    probe: Any = LinearProbe(str(pretrained))
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(20) % 10
    images = torch.randn(10, 3, 32, 32, generator=generator)[labels] + 0.01 * torch.randn(20, 3, 32, 32, generator=generator)
    optimizer, losses = probe.make_optimizer(20.0), []
    probe.log = lambda *given, **options: None
    for _ in range(60):
        optimizer.zero_grad()
        loss = probe.training_step(Batch(images, labels, torch.arange(20)), 0)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_from_scratch_it_starts_as_the_run_itself_started(pretrained):
    tuned, scratch = (FineTune(str(pretrained), scratch=scratch) for scratch in (False, True))
    fresh = make_task("cnn_channels", "--model.encoder.norm=batch", "--model.size=micro").encoder.state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in scratch.encoder.state_dict().items())
    assert not all(torch.equal(tensor, fresh[name]) for name, tensor in tuned.encoder.state_dict().items())
    assert set(scratch.test_metrics) == {"scratch/top1", "scratch/top5"}
    config = {kind: yaml.safe_load((EVALUATION / f"{kind}.yaml").read_text()) for kind in ("finetune", "scratch")}
    assert config["scratch"]["model"]["init_args"].pop("scratch")
    assert {**config["finetune"], "experiment": "scratch"} == config["scratch"]  # one protocol


def layer(path: str) -> int:
    """0 for the stem, from 1 to 4 for blocks and stages, 5 for what follows them."""
    part, first, number, *_ = [*path.split("."), ""]
    if first in ("blocks", "stages"):
        return 1 + int(number)
    return 5 if part == "head" or first == "norm" else 0


@pytest.mark.parametrize("name", ["mae_vit", "cnn_channels", "cnn_gradual"])
def test_earlier_layers_are_trained_more_slowly(pretrained, name):
    tuned: Any = FineTune(str(pretrained), layer_decay=0.5, weight_decay=0.1)
    tuned.encoder = make_task(name).encoder
    decays = {
        id(parameter): group["weight_decay"]
        for group in parameter_groups(tuned, 0.1, decay_tokens=False)
        for parameter in group["params"]
    }
    expected = {
        path: (2.0 * 0.5 ** (5 - layer(path)), decays[id(parameter)])
        for path, parameter in tuned.named_parameters()
        if parameter.requires_grad
    }
    paths = {id(parameter): path for path, parameter in tuned.named_parameters()}
    groups = tuned.make_optimizer(2.0).param_groups
    found = {paths[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found == expected
    assert len(groups) == len(set(expected.values()))
    assert {rate for rate, _ in found.values()} == {2.0 * 0.5**power for power in range(6)}


def test_an_encoder_without_blocks_or_stages_is_trained_at_one_rate(pretrained):
    tuned: Any = FineTune(str(pretrained))
    tuned.encoder = nn.Conv2d(3, 8, 3)
    assert {group["lr"] for group in tuned.make_optimizer(2.0).param_groups} == {2.0}


def test_rates_and_decay_reach_the_optimizer(pretrained):
    tuned: Any = FineTune(str(pretrained), layer_decay=0.5, weight_decay=0.1)
    optimizer = tuned.make_optimizer(1.0)
    rate = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert len(rate) == len([p for p in tuned.parameters() if p.requires_grad])
    assert rate[id(tuned.head[1].weight)] == (1.0, 0.1)
    assert rate[id(tuned.head[1].bias)] == (1.0, 0.0)
    assert rate[id(tuned.encoder.stem.convolution.convolution.weight)] == (0.5**5, 0.1)


@pytest.mark.parametrize("name", ["mae_vit", "cnn_plain"])
def test_drop_path_rises_with_depth(name):
    encoder = make_task(name).encoder
    set_drop_path(encoder, 0.3)
    rates: list[Any] = [module.drop_prob for module in encoder.modules() if type(module).__name__ == "DropPath"]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.3)
    assert rates == sorted(rates)


class Losses(Callback):
    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())


def test_fine_tuning_resumes_as_if_it_had_not_stopped(pretrained, tmp_path):
    whole, first, second = Losses(), Losses(), Losses()
    options = ["--model.drop_path=0.5", "--model.warmup=0", "--trainer.max_steps=4", "--trainer.max_epochs=-1"]
    fit("finetune", pretrained, tmp_path / "whole", *options, callbacks=[whole])
    cli = fit("finetune", pretrained, tmp_path / "first", *options, "--checkpoint_every=2", callbacks=[first])
    checkpoint = next(path for path in (tmp_path / "first").rglob("*.ckpt") if "2" in path.stem)
    fit("finetune", pretrained, tmp_path / "second", *options, callbacks=[second], ckpt_path=checkpoint)
    assert cli.trainer.global_step == 4
    assert whole.losses == first.losses
    assert second.losses == whole.losses[2:]


def numpy_state() -> np.ndarray:
    state: Any = np.random.get_state()  # noqa: NPY002
    return state[1]


def test_mixing_leaves_the_data_and_numpys_generator_alone(pretrained):
    tuned: Any = FineTune(str(pretrained))
    tuned.log = lambda *given, **options: None
    images = torch.randn(4, 3, 32, 32)
    kept, state = images.clone(), numpy_state().copy()
    type(tuned).global_step, type(tuned).global_rank = property(lambda self: 0), property(lambda self: 0)
    try:
        losses = [tuned.eval().training_step(Batch(images, torch.arange(4), torch.arange(4)), 0).item() for _ in range(2)]
    finally:
        del type(tuned).global_step, type(tuned).global_rank
    assert torch.equal(images, kept)
    assert (numpy_state() == state).all()
    assert losses[0] == losses[1]
    # all logits are almost equal at first
    assert losses[0] == pytest.approx(F.cross_entropy(torch.zeros(1, 10), torch.tensor([0])).item(), abs=0.01)


@pytest.mark.parametrize("kind", ["linear_probe", "finetune"])
def test_unlabelled_test_images_are_refused_before_training(kind, pretrained, tmp_path):
    cli = prepare(kind, pretrained, tmp_path)
    cli.datamodule.setup("test")
    cli.datamodule.select("test")[0].labels[[4, 32]] = -1
    with pytest.raises(ValueError, match="2 of 33 test images have no label: give data"):
        cli.trainer.run(cli.model, datamodule=cli.datamodule)
    assert cli.trainer.global_step == 0
    with pytest.raises(ValueError, match="1 of 17 images of a batch have no label"):
        cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)


@pytest.mark.parametrize("kind", ["linear_probe", "finetune"])
def test_labels_beyond_the_head_are_refused_before_training(kind, pretrained, tmp_path):
    cli = prepare(kind, pretrained, tmp_path / "few", "--model.num_classes=5")
    with pytest.raises(ValueError, match=r"the data have 10 classes, and the head 5: give --model\.num_classes 10$"):
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    cli = prepare(kind, pretrained, tmp_path / "odd")
    cli.datamodule.setup("test")
    cli.datamodule.select("test")[0].labels[4] = 12
    with pytest.raises(ValueError, match="a label of test images is 12, and the classes are 10: give a larger"):
        cli.trainer.run(cli.model, datamodule=cli.datamodule)
    assert cli.trainer.global_step == 0
    with pytest.raises(ValueError, match="a label of images of a batch is 12"):
        cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)


def test_test_images_without_labels_do_not_matter_where_they_are_not_tested(pretrained, tmp_path):
    cli = prepare("linear_probe", pretrained, tmp_path, "--trainer.limit_test_batches=1")
    cli.datamodule.setup("test")
    cli.datamodule.select("test")[0].labels[32] = -1  # the second batch
    cli.trainer.run(cli.model, datamodule=cli.datamodule)
    assert "linear_probe/top1" in cli.trainer.callback_metrics


@pytest.mark.parametrize(("part", "limit"), [("train", "0"), ("validation", "1.0")])
def test_unlabelled_images_of_training_and_validation_are_refused(part, limit, pretrained, tmp_path):
    cli = prepare("finetune", pretrained, tmp_path, f"--trainer.limit_val_batches={limit}")
    cli.datamodule.setup("fit")
    images, index = cli.datamodule.select(part)
    images.labels[index] = -1
    with pytest.raises(ValueError, match="images of a batch have no label: give data with one for each"):
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)


@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_of_an_odd_batch_all_images_but_the_last_are_mixed(mixup, pretrained):
    tuned: Any = FineTune(str(pretrained), mixup=mixup, smoothing=0.1)
    images, labels = torch.randn(5, 3, 32, 32), torch.arange(5)
    with _numpy_seed(3):
        mixed, targets = tuned._mixed(images, labels)
    with _numpy_seed(3):
        pairs, soft = tuned.mix(images[:4].clone(), labels[:4])
    assert not torch.equal(pairs, images[:4])
    assert torch.equal(mixed, torch.cat([pairs, images[4:]]))
    last = F.one_hot(labels[4:], 10) * 0.9 + 0.1 / 10
    assert torch.allclose(targets, torch.cat([soft, last]))


def test_without_mixup_and_cutmix_labels_are_smoothed_alone(pretrained, tmp_path):
    seen = []

    class Seen(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(module._mixed(batch.images, batch.labels))
            assert torch.equal(seen[-1][0], batch.images)
            assert torch.allclose(seen[-1][1], F.one_hot(batch.labels, 10) * 0.8 + 0.2 / 10)

    options = ["--model.mixup=0", "--model.cutmix=0", "--model.smoothing=0.2", "--data.batch_size=31"]
    cli = fit("finetune", pretrained, tmp_path, *options, callbacks=[Seen()])
    assert len(seen) == cli.trainer.global_step == 3


def test_an_odd_share_of_a_device_is_refused(pretrained):
    tuned, plain = FineTune(str(pretrained), batch_size=130), FineTune(str(pretrained), batch_size=130, mixup=0, cutmix=0)
    for devices, refused in ((1, False), (2, True), (5, False)):
        trainer: Any = SimpleNamespace(world_size=devices, datamodule=None)
        for module in (tuned, plain):
            module.trainer = trainer
            with pytest.raises(ValueError, match="130, 65 on each device") if refused and module is tuned else nullcontext():
                module.on_fit_start()


def test_what_cannot_be_tuned_is_refused(pretrained, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"config\.yaml"):
        LinearProbe(str(tmp_path))
    with pytest.raises(ValueError, match="even number"):
        FineTune(str(pretrained), batch_size=33)
    with pytest.raises(ValueError, match="one class"):
        LinearProbe(str(pretrained), num_classes=1)
    few = LinearProbe(str(pretrained), num_classes=3)
    assert few.absent_metrics == {"linear_probe/top5": "there are 3 classes"}
    monkeypatch.setattr(ImageData, "num_classes", None)
    with pytest.raises(ValueError, match=r"have no labels: give data that have, and model\.num_classes of them"):
        LinearProbe(str(pretrained))
    assert LinearProbe(str(pretrained), num_classes=7).num_classes == 7


def test_the_command_starts_from_a_runs_data(pretrained, tmp_path, capsys):
    words = _starting_from(["run", "--pretrained", str(pretrained), "-c", "evaluation/finetune"])
    assert words[0] == "run"
    assert "num_images: 128" in words[2]
    assert words[-1] == f"--model.init_args.pretrained_run={pretrained}"
    with pytest.raises(SystemExit) as error:
        main(["run", "--pretrained", str(tmp_path), "-c", "evaluation/finetune"])
    assert error.value.code == 2
    assert "there is no config.yaml" in capsys.readouterr().err
