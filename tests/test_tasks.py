import math
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from timm.layers import LayerScale, RmsNorm
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR

from semconv import load_run
from semconv.hashing import make_keys
from semconv.optimisation import NORMS, advance, build_optimizer, build_schedule, parameter_groups, warmup_cosine
from semconv.tracking.identity import identity
from tests.experiments import all_experiments, make_task, parsed, random_images
from tests.recording import logged, train

pytestmark = pytest.mark.usefixtures("quick_runs")


def test_the_rate_rises_from_zero_in_a_line_and_falls_in_half_a_cosine():
    rates = [warmup_cosine(step, total=100, warmup=0.1, floor=0.2) for step in range(101)]
    for step in range(10):
        assert rates[step] == pytest.approx(step / 10)
    for step in range(10, 101):
        assert rates[step] == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi * (step - 10) / 90)))


class HalfCosine(LambdaLR):
    """The default schedule of three steps, as somebody else's class."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer, partial(warmup_cosine, total=3, warmup=0.1, floor=0))


def test_the_default_is_adamw_with_warm_up_and_half_a_cosine_to_the_bit(tmp_path):
    written_out = ["--model.optimizer=AdamW", "--model.optimizer.betas=[0.9,0.95]", "--model.optimizer.fused=true"]
    schedule = f"--model.schedule={__name__}.HalfCosine"
    runs = [train("cnn_plain", tmp_path / name, *options) for name, options in (("a", []), ("b", [*written_out, schedule]))]
    assert logged(tmp_path / "a") == logged(tmp_path / "b")
    weights = [run.model.state_dict() for run in runs]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert all(run.trainer.optimizers[0].defaults["lr"] == 0.008 * 32 / 256 for run in runs)  # per 256 images of a step


def rates_of(make_schedule, rate):
    """The rates of six steps, as the schedule itself gives them."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedule, found = make_schedule(optimizer), []
    for step in range(6):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        advance(schedule, step + 1)
    return found


OTHERS = {
    "torch": (
        [
            "--model.optimizer=torch.optim.SGD",
            "--model.optimizer.momentum=0.9",
            "--model.schedule=StepLR",
            "--model.schedule.step_size=2",
        ],
        partial(StepLR, step_size=2),
    ),
    "timm": (
        [
            *("--model.optimizer=timm.optim.Lion", "--model.schedule=timm.scheduler.CosineLRScheduler"),
            *("--model.schedule.t_initial=6", "--model.schedule.warmup_t=2"),
        ],
        partial(CosineLRScheduler, t_initial=6, warmup_t=2),
    ),
}


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
@pytest.mark.parametrize("case", OTHERS)
def test_an_optimiser_and_a_schedule_of_others_follow_the_protocol_and_resume_to_the_bits(case, tmp_path):
    options, make_schedule = OTHERS[case]
    options = [*options, "--trainer.max_steps=6", "--trainer.accumulate_grad_batches=2", "--data.batch_size=8"]
    saving = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=3, save_top_k=-1, filename="{step}")
    whole = train("cnn_plain", tmp_path / "whole", *options, callbacks=[saving])
    (optimizer,) = whole.trainer.optimizers
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0]
    assert all(group["initial_lr"] == 0.008 * 16 / 256 for group in optimizer.param_groups)
    rates = [row["train/learning_rate"] for row in logged(tmp_path / "whole")]
    assert rates == pytest.approx(rates_of(make_schedule, 0.008 * 16 / 256), rel=1e-6)  # in float32
    assert len(set(rates)) > 2
    resumed = train("cnn_plain", tmp_path / "resumed", *options, ckpt_path=tmp_path / "saved" / "step=3.ckpt")
    ours, theirs = resumed.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    (run,) = tmp_path.glob("whole/*/2*")
    assert load_run(run).config["model"]["init_args"]["optimizer"]["class_path"] == options[0].partition("=")[2]
    default, other = (identity(parsed("cnn_plain", *each))["protocol"]["model"] for each in ((), tuple(options[:-3])))
    assert {key for key in default if default[key] != other[key]} == {"optimizer", "schedule"}


def test_optimisers_and_schedules_that_cannot_follow_the_protocol_are_refused():
    groups = parameter_groups(make_task("cnn_plain"), 0.05, decay_tokens=False)
    optimizer = build_optimizer(torch.optim.SGD, groups, 0.1)
    with pytest.raises(ValueError, match=r"model.optimizer.weight_decay is 0.3: give model.weight_decay"):
        build_optimizer(partial(torch.optim.SGD, weight_decay=0.3), groups, 0.1)
    with pytest.raises(ValueError, match=r"model.optimizer cannot be built: LBFGS doesn't support per-parameter options"):
        build_optimizer(torch.optim.LBFGS, groups, 0.1)
    with pytest.raises(ValueError, match=r"model.optimizer Rprop has no weight decay: give model.weight_decay 0"):
        build_optimizer(torch.optim.Rprop, groups, 0.1)
    assert build_optimizer(torch.optim.Rprop, parameter_groups(make_task("cnn_plain"), 0.0, decay_tokens=False), 0.1)
    with pytest.raises(ValueError, match=r"model.schedule is ReduceLROnPlateau, which follows a metric"):
        build_schedule(ReduceLROnPlateau, optimizer)
    with pytest.raises(ValueError, match=r"model.schedule is OneCycleLR, which sets a rate of its own"):
        build_schedule(partial(OneCycleLR, max_lr=0.1, total_steps=9, cycle_momentum=False), optimizer)
    with pytest.raises(ValueError, match=r"model.schedule cannot be built: Expected positive integer total_steps"):
        build_schedule(partial(OneCycleLR, max_lr=0.1, total_steps=-1), optimizer)


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
    cli = train(name, tmp_path, "--model.size=test", "--trainer.max_steps=2")
    (checkpoint,) = tmp_path.glob("*/*/checkpoints/last.ckpt")
    resumed = train(name, tmp_path / "resumed", "--model.size=test", ckpt_path=checkpoint)
    fresh = make_task(name).encoder.state_dict()
    for task in (cli.model, resumed.model):
        weights = task.untrained_encoder().state_dict()
        assert list(weights) == list(fresh)
        assert all(torch.equal(weights[key], fresh[key]) for key in fresh)
        assert not all(torch.equal(task.encoder.state_dict()[key], fresh[key]) for key in fresh)


def test_norms_of_all_kinds_are_known_and_matrices_of_all_names():
    parts = nn.ModuleDict({"rms": RmsNorm(4), "scale": LayerScale(4), "attention": nn.MultiheadAttention(4, 2)})
    names = {id(parameter): key for key, parameter in parts.named_parameters()}
    matrices = {"attention.in_proj_weight", "attention.out_proj.weight"}
    for decay_tokens in (False, True):
        assert {names[id(each)] for each in parameter_groups(parts, 0.05, decay_tokens)[0]["params"]} == matrices


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
    compiled.compile(fullgraph=True)
    images = random_images(plain)
    keys = make_keys(0, torch.arange(2))
    mask = plain.masker(keys, plain.geometry.grid, 48)
    view = plain.corruption(images, mask, 48, keys)
    # fused kernels round otherwise
    torch.testing.assert_close(plain(view), compiled(view), rtol=1e-4, atol=1e-4)
