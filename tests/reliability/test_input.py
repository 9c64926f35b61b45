"""Values that make no sense are refused in one line, before anything is trained."""

from datetime import timedelta
from typing import Any

import pytest

from semconv.commands.train import main
from semconv.commands.trainer_options import check_ranges, nothing_to_train
from semconv.configuration import not_finite, require
from semconv.corruption import Noise
from semconv.data import ImageData
from semconv.encoders import Geometry, MAEViT, SemanticCNN
from semconv.objective import Objective
from semconv.optimisation import check_schedule
from tests.experiments import arguments
from tests.pairwise import together
from tests.recording import SHORT

pytestmark = pytest.mark.usefixtures("quick_runs")

GEOMETRY = Geometry(3, (32, 32), 4)
NAN, INF = float("nan"), float("inf")
SCHEDULE: dict[str, Any] = {"base_lr": 1e-3, "warmup": 0.1, "weight_decay": 0.05, "betas": (0.9, 0.95)}


@together(
    "value, low, high, exclude, wanted",
    [
        (0, 0, INF, "low", "above 0"),
        (-1, 0, INF, "", "of 0 or more"),
        (1, 0, 1, "high", "of 0 or more and below 1"),
        (2, 0, 1, "low", "above 0 and at most 1"),
        (NAN, -INF, INF, "", "that is finite"),
        (INF, 0, INF, "", "of 0 or more"),
    ],
)
def test_a_number_outside_its_range_is_refused(value, low, high, exclude, wanted):
    with pytest.raises(ValueError, match=f"^x is {value}: give a number {wanted}$"):
        require("x", value, low, high, exclude)
    require("x", 0.5, 0, 1, "low high")


@together(
    "change",
    [
        *({"base_lr": value} for value in (0.0, -1.0, NAN, INF)),
        *({"warmup": value} for value in (-0.1, 1.5, NAN)),
        *({"weight_decay": value} for value in (-0.1, INF)),
        *({"betas": value} for value in ((1.0, 0.9), (0.9, -0.1), (0.9, NAN))),
        *({"min_lr": value} for value in (-1e-9, 1.0)),
    ],
)
def test_a_schedule_that_cannot_learn_is_refused(change):
    check_schedule(**SCHEDULE)
    with pytest.raises(ValueError, match=f"^{next(iter(change))} is .*: give a number"):
        check_schedule(**{**SCHEDULE, **change})


@together(
    "make, change",
    [
        *((ImageData, change) for change in ({"std": [0.0, 1, 1]}, {"mean": [NAN, 0, 0]}, {"crop_scale": (0, 1)})),
        *(
            (ImageData, change)
            for change in ({"crop_scale": (0.5, 0.2)}, {"crop_scale": (NAN, 1)}, {"num_images": 0}, {"num_images": 2**63})
        ),
        *((ImageData, change) for change in ({"num_workers": -1}, {"cache_limit": -1}, {"seed": -1}, {"validation_fraction": NAN})),
        *((lambda **change: Objective(4, **change), {"eps": value}) for value in (0.0, -1e-6, NAN)),
        *((Noise, {"std": value}) for value in (-1.0, NAN, INF)),
        *((lambda **change: SemanticCNN(GEOMETRY, "test", **change), {"drop_path": value}) for value in (-0.1, 1.0, NAN)),
        *((lambda **change: SemanticCNN(GEOMETRY, "test", **change), {"mlp_ratio": value}) for value in (0.0, -1.0, 1e30)),
        *((lambda **change: SemanticCNN(GEOMETRY, "test", **change), {"kernel_size": value}) for value in (0, 4, -3)),
        (lambda **change: SemanticCNN(GEOMETRY, "test", **change), {"depth": []}),
        *((lambda **change: MAEViT(GEOMETRY, "test", **change), {"patch_size": value}) for value in (0, -4)),
        (lambda **change: MAEViT(GEOMETRY, "test", **change), {"drop_path": 2.0}),
    ],
)
def test_a_part_that_cannot_work_is_refused_when_it_is_made(make, change):
    (name,) = change
    with pytest.raises(ValueError, match=f"{name}|patches of") as caught:
        make(**change)
    assert "give" in str(caught.value) or "list" in str(caught.value) or "change" in str(caught.value)


def test_numbers_that_are_not_finite_are_found_at_every_depth():
    found = not_finite({"a": {"init_args": {"b": [1.0, {"c": NAN}]}}})
    assert found
    assert found[0] == "a.b.1.c"
    assert not_finite({"a": 1.0, "b": "nan", "c": [1, 2]}) is None


@together(
    "options, said",
    [
        ({"log_every_n_steps": 0}, "trainer.log_every_n_steps is 0: give a number of 1 or more"),
        ({"gradient_clip_val": -1.0}, "trainer.gradient_clip_val is -1.0: give a number of 0 or more"),
        ({"max_steps": -2}, "trainer.max_steps is -2: give a number of -1 or more"),
        ({"limit_val_batches": -1}, "trainer.limit_val_batches is -1: give a number of batches, 0 or more, or a share"),
        ({"limit_test_batches": 1.5}, "trainer.limit_test_batches is 1.5: give a number of batches"),
        ({"val_check_interval": 0}, "trainer.val_check_interval is 0: give a number of batches, 1 or more, or a share"),
        ({"val_check_interval": 0.0}, "trainer.val_check_interval is 0.0: give a number of batches, 1 or more, or a share"),
    ],
)
def test_an_option_of_the_trainer_outside_its_range_is_refused(options, said):
    check_ranges({"trainer": dict.fromkeys(options, 1), "seed_everything": 0})
    with pytest.raises(ValueError, match=f"^{said}"):
        check_ranges({"trainer": options})
    with pytest.raises(ValueError, match=r"^seed_everything is -1: give a number of 0 or more and at most 4294967295"):
        check_ranges({"seed_everything": -1})


@together(
    "options",
    [
        *({name: 0} for name in ("max_steps", "max_epochs", "limit_train_batches")),
        *({"max_time": none} for none in ("00:00:00:00", {"seconds": 0}, timedelta())),
    ],
)
def test_a_training_without_a_step_is_found(options):
    assert nothing_to_train({"max_steps": 3, **options}) == (
        f"trainer.{next(iter(options))} is {next(iter(options.values()))}, and nothing is left to train: give more"
    )
    assert nothing_to_train({"max_steps": 3, "max_epochs": -1, "limit_train_batches": 0.5, "max_time": "00:00:01:00"}) is None


@together(
    "options, said",
    [
        (["--model.base_lr=.inf"], "model.base_lr is inf"),
        (["--trainer.accelerator=gpu"], "trainer.accelerator is gpu: No supported gpu backend found: give another"),
        (["--trainer.devices=0"], "trainer.devices is 0: "),
        (["--trainer.profiler=nosuch"], "trainer.profiler is nosuch: "),
        (["--trainer.val_check_interval=0"], "trainer.val_check_interval is 0: give a number of batches, 1 or more, or a share"),
        (["--trainer.logger=WandbLogger"], "trainer.logger is WandbLogger, and each run has a record in W&B already: leave it out"),
        (
            ["--trainer.max_epochs=null", "--trainer.max_steps=-1"],
            "trainer.max_epochs is null, of which Lightning makes 1,000: give a number of epochs",
        ),
        (["--trainer.limit_train_batches=0"], "trainer.limit_train_batches is 0, and nothing is left to train: give more"),
        (
            ["--model.optimizer.betas=[2,3]"],
            "there is no option model.optimizer.betas: torch.optim.Optimizer has none; name a class",
        ),
        (
            ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/nothing", "--trainer.limit_val_batches=1"],
            "val/nothing",
        ),
    ],
)
def test_what_lightning_refuses_or_takes_without_sense_is_one_line(options, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", *arguments("cnn_plain", *SHORT, f"--runs={tmp_path}", *options)])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("semconv: error: ")]
    assert (ended.value.code, len(errors)) == (2, 1)
    assert said in errors[0]
