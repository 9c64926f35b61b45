import math

import pytest
import torch

from semconv.hashing import make_keys
from semconv.optimisation import NORMS, parameter_groups, warmup_cosine
from tests.experiments import all_experiments, every_experiment, make_task, random_images
from tests.recording import train


def test_the_rate_rises_from_zero_in_a_line_and_falls_in_half_a_cosine():
    rates = [warmup_cosine(step, total=100, warmup=0.1, floor=0.2) for step in range(101)]
    for step in range(10):
        assert rates[step] == pytest.approx(step / 10)
    for step in range(10, 101):
        assert rates[step] == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi * (step - 10) / 90)))


def test_the_rate_goes_with_the_images_of_a_step(tmp_path):
    rates = {}
    for accumulated in (1, 2):
        options = [f"--trainer.accumulate_grad_batches={accumulated}", "--model.warmup=0", "--trainer.max_steps=1"]
        cli = train("cnn_plain", tmp_path, *options, "--model.base_lr=0.256")
        rates[accumulated] = cli.trainer.optimizers[0].defaults["lr"]
    # .256 * images / 256, with 32 images a batch
    assert rates == pytest.approx({1: 0.032, 2: 0.064})


@all_experiments
def test_norms_biases_and_tokens_do_not_decay(name):
    task = make_task(name)
    names = {id(parameter): key for key, parameter in task.named_parameters()}
    decayed, kept = ({names[id(p)] for p in group["params"]} for group in parameter_groups(task, 0.05, decay_tokens=False))
    tokens = ("cls_token", "mask_token", "token.vector", "null_key", "null_value")
    assert not any(key.endswith(("bias", *tokens)) for key in decayed)
    norms = {f"{path}.weight" for path, module in task.named_modules() if isinstance(module, NORMS)}
    assert all(key.endswith(("bias", *tokens)) or key in norms for key in kept)
    assert decayed | kept == {key for key, parameter in task.named_parameters() if parameter.requires_grad}
    assert not decayed & kept


@pytest.mark.parametrize("name", ["cnn_channels", "mae_vit"])
def test_the_untrained_encoder_is_that_of_step_0(name, tmp_path):
    cli = train(name, tmp_path, "--trainer.max_steps=2")
    (checkpoint,) = tmp_path.glob("*/*/checkpoints/last.ckpt")
    resumed = train(name, tmp_path / "resumed", "--trainer.max_steps=3", ckpt_path=checkpoint)
    fresh = make_task(name).encoder.state_dict()
    for task in (cli.model, resumed.model):
        weights = task.untrained_encoder().state_dict()
        assert list(weights) == list(fresh)
        assert all(torch.equal(weights[key], fresh[key]) for key in fresh)
        assert not all(torch.equal(task.encoder.state_dict()[key], fresh[key]) for key in fresh)


def test_tokens_decay_as_in_the_reference_when_asked_to():
    task = make_task("mae_vit")
    without, with_tokens = (len(parameter_groups(task, 0.05, flag)[0]["params"]) for flag in (False, True))
    # the class token and the decoder's mask token
    assert with_tokens == without + 2


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("name", ["mae_vit", "cnn_overlay_replace"])
def test_other_precisions_train(name, precision, tmp_path):
    # some processors have no fast bfloat16: one step of two images
    cli = train(name, tmp_path, f"--trainer.precision={precision}", "--trainer.max_steps=1", "--data.batch_size=2")
    assert cli.trainer.callback_metrics["train/loss"].isfinite()


def test_a_ratio_range_draws_one_share_for_each_step(tmp_path, monkeypatch):
    counts = []
    look = type(make_task("cnn_plain")).look

    def counted(self, batch, stage):
        view, mask = look(self, batch, stage)
        counts.append(mask.sum((1, 2)).tolist())
        return view, mask

    monkeypatch.setattr("semconv.tasks.MaskedReconstruction.look", counted)
    train("mae_vit", tmp_path, "--model.masker.ratio=[0.25,0.9]")
    assert all(len(set(step)) == 1 for step in counts)
    assert len({step[0] for step in counts}) == 3


def test_evaluation_masks_depend_on_evaluation_seed_and_index_alone():
    def masks(*overrides, index):
        task = make_task("cnn_plain", *overrides)
        keys = make_keys(task.evaluation_seed, "test", index)
        return task.masker(make_keys(keys, "mask"), task.geometry.grid, 48)

    index = torch.arange(10)
    first = masks(index=index)
    assert torch.equal(first, masks("--seed_everything=4", index=index))
    assert torch.equal(first[3:5], masks(index=index[3:5]))
    assert not torch.equal(first, masks("--model.evaluation_seed=1", index=index))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mae_vit", "cnn_channels"])
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_predicts_the_same(name):
    plain, compiled = make_task(name), make_task(name)
    compiled.encoder.compile(fullgraph=True)
    compiled.decoder.compile(fullgraph=True)
    images = random_images(plain)
    keys = make_keys(0, torch.arange(2))
    mask = plain.masker(keys, plain.geometry.grid, 48)
    view = plain.corruption(images, mask, 48, keys)
    # fused kernels round otherwise
    torch.testing.assert_close(plain(view), compiled(view), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@every_experiment
def test_a_training_step_never_waits_for_the_gpu(name):
    task = make_task(name).cuda().train()
    images, keys = random_images(task).cuda(), make_keys(0, torch.arange(2).cuda())

    def step() -> None:
        mask = task.masker(keys, task.geometry.grid, 48)
        task.objective(task(task.corruption(images, mask, 48, keys)), images, mask).backward()

    step()  # the first one may wait while libraries are loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
