"""Runs whose numbers are no longer finite."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from semconv.callbacks.checkpoints import Checkpoints
from semconv.callbacks.divergence import Diverged, Divergence
from semconv.commands.train import main
from tests.experiments import arguments
from tests.recording import SHORT

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.mark.parametrize("option", ["--model.base_lr=1e30", "--data.std=[1e-40, 1e-40, 1e-40]"])
def test_a_run_that_diverges_ends_there_and_is_named(option, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", *arguments("cnn_plain", *SHORT, f"--runs={tmp_path}", "--checkpoint_every=1", option)])
    assert ended.value.code == 3
    step = 2 if "base_lr" in option else 0
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"semconv: the run has diverged: the loss is not finite at step {step} (learning rate ")
    (run,) = tmp_path.glob("*/*")
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["trainer/global_step"]) == ("diverged", step + 1)
    assert summary["divergence"] in said
    assert not any("test/" in key for key in summary)
    assert {path.name for path in run.glob("checkpoints/step-*")} == {f"step-{number:08d}.ckpt" for number in range(1, step + 1)}
    with pytest.raises(SystemExit) as ended:
        main(["run", "--resume", str(run)])
    assert ended.value.code == 2
    assert "has diverged, and would diverge again" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "seen"), [("--trainer.limit_val_batches=1", "val"), ("--trainer.limit_val_batches=0", "test")])
def test_a_run_that_its_last_update_has_spoilt_has_diverged(option, seen, tmp_path, capsys):
    options = ("--model.base_lr=1e30", "--trainer.max_epochs=-1", "--trainer.max_steps=2", "--evaluation=quick", option)
    with pytest.raises(SystemExit) as ended:
        main(["run", *arguments("cnn_plain", *SHORT, f"--runs={tmp_path}", *options)])
    assert ended.value.code == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"semconv: the run has diverged: {seen}/masked_mse is not finite after the last step: give")
    (path,) = tmp_path.glob("*/*/summary.json")
    assert json.loads(path.read_text())["status"] == "diverged"


def train(divergence, losses, gradients=(), device="cpu", scaler=None):
    """Steps of a trainer with these losses, and gradients where they are given; the step after which it ends."""
    trainer = SimpleNamespace(
        precision_plugin=SimpleNamespace(scaler=scaler),
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])],
        strategy=SimpleNamespace(root_device=SimpleNamespace(type=device)),
        current_epoch=0,
        world_size=1,
        log_every_n_steps=10,
    )
    module = torch.nn.Linear(1, 1)
    for step, loss in enumerate(losses):
        trainer.global_step, trainer.is_last_batch = step, step == len(losses) - 1
        divergence.on_train_batch_start(trainer, module, None, step)
        for parameter, gradient in zip(module.parameters(), (gradients[step] if gradients else 1.0, 1.0), strict=True):
            parameter.grad = torch.full_like(parameter, gradient)
            divergence.on_before_optimizer_step(trainer, module, torch.optim.SGD([parameter]))
        trainer.global_step = step + 1
        try:
            divergence.on_train_batch_end(trainer, module, {"loss": torch.tensor(loss)}, None, step)
        except Diverged as error:
            return step, str(error)
    return None


NAN, INF = float("nan"), float("inf")


def test_a_loss_or_gradient_that_is_not_finite_is_found_at_its_step():
    assert train(Divergence(), [1.0, 2.0, 3.0]) is None
    step, said = train(Divergence(), [1.0, NAN, 1.0])
    assert (step, "the loss is not finite at step 1 " in said) == (1, True)
    step, said = train(Divergence(), [1.0, 1.0, 1.0], [1.0, 1.0, INF])
    assert (step, "the gradient is not finite at step 2 " in said) == (2, True)
    assert train(Divergence(), [1.0, 1.0], [INF, 1.0], scaler=object()) is None  # a loss scaler skips such a step


def test_a_limit_is_one_of_consecutive_steps():
    assert train(Divergence(2), [1.0, NAN, 1.0, NAN, 1.0]) is None
    step, said = train(Divergence(2), [NAN, 1.0, 1.0, NAN, INF, NAN])
    assert (step, "at step 3 " in said) == (4, True)


def test_a_device_is_read_where_metrics_are_logged_and_before_checkpoints():
    step, said = train(Divergence(), [*[1.0] * 12, *[NAN] * 10], device="cuda")
    assert (step, "at step 12 " in said) == (19, True)
    divergence = Divergence()
    assert train(divergence, [*[1.0] * 12, *[NAN] * 4, 1.0][:15], device="cuda") is not None
    saved: list[int] = []
    trainer = SimpleNamespace(world_size=1, save_checkpoint=lambda path: saved.append(1), is_global_zero=True, global_step=0)
    divergence._counts = [torch.tensor(1)]
    with pytest.raises(Diverged):
        Checkpoints(Path("none"), check=divergence.read).save(trainer)  # type: ignore[arg-type]
    assert not saved
    assert train(Divergence(3), [*[1.0] * 8, *[NAN] * 14], device="cuda")[0] == 19  # the streak goes on over what was read
    assert train(Divergence(), [*[1.0] * 12, NAN], device="cuda")[0] == 12  # the last batch of an epoch
