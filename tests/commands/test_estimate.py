"""`semconv estimate`: its arithmetic, what it counts, and what it refuses."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from semconv.__main__ import dispatch
from semconv.commands import estimate as command
from semconv.commands.estimate import Budget, Memory, estimate, measure_memory, measure_rate, read_budget
from semconv.cost import saved_bytes, step_seconds
from tests.experiments import make_task
from tests.pairwise import together

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def config(**trainer: Any) -> dict[str, Any]:
    return {"trainer": {"devices": 1, **trainer}, "data": {"init_args": {"batch_size": 8}}}


@together(
    "trainer, devices, wanted",
    [
        ({"max_epochs": 3}, None, Budget(100, 8, 36, 1, "32-true")),
        ({"max_epochs": 3, "precision": "bf16-mixed"}, 4, Budget(100, 8, 36, 4, "bf16-mixed")),
        ({"max_epochs": -1, "max_steps": 10, "accumulate_grad_batches": 2}, None, Budget(100, 8, 20, 1, "32-true")),
        ({"max_epochs": 2, "max_steps": 10}, None, Budget(100, 8, 10, 1, "32-true")),
        ({"max_epochs": 1, "max_steps": -1, "devices": "2", "num_nodes": 2}, None, Budget(100, 8, 12, 4, "32-true")),
        ({"max_epochs": 1, "devices": "0, 3"}, None, Budget(100, 8, 12, 2, "32-true")),
        ({"max_epochs": 1, "devices": [0, 3]}, None, Budget(100, 8, 12, 2, "32-true")),
        ({"max_epochs": 1, "devices": "auto", "limit_train_batches": 0.5}, None, Budget(100, 8, 6, 1, "32-true")),
        ({"max_epochs": 5, "limit_train_batches": 2}, None, Budget(100, 8, 10, 1, "32-true")),
        # a step ends with its epoch, of 12 batches: 8 and 4 of them, so 36 in 6 steps and not 48
        ({"max_epochs": -1, "max_steps": 6, "accumulate_grad_batches": 8}, None, Budget(100, 8, 36, 1, "32-true")),
        ({"max_epochs": -1, "max_steps": 3, "accumulate_grad_batches": 99}, None, Budget(100, 8, 36, 1, "32-true")),
        ({"max_epochs": 5, "overfit_batches": 3}, None, Budget(100, 8, 15, 1, "32-true")),
        ({"max_epochs": 5, "overfit_batches": 0.25}, None, Budget(100, 8, 15, 1, "32-true")),
        ({"max_epochs": 5, "fast_dev_run": True}, None, Budget(100, 8, 1, 1, "32-true")),
        ({"max_epochs": 5, "fast_dev_run": 3}, None, Budget(100, 8, 3, 1, "32-true")),
        ({"max_epochs": 1, "strategy": "fsdp2"}, 4, Budget(100, 8, 12, 4, "32-true", is_sharded=True)),
        ({"max_epochs": 1, "max_time": "00:01:00:00"}, None, Budget(100, 8, 12, 1, "32-true", max_time="00:01:00:00")),
    ],
)
def test_a_budget_is_that_of_the_trainer(trainer, devices, wanted):
    assert read_budget(config(**trainer), 100, devices) == wanted


@together(
    "trainer, images, devices, message",
    [
        ({"max_epochs": 1}, 100, 3, "batch_size 8 over 3 devices: give a multiple of 3"),
        ({"max_epochs": 1}, 7, None, "batch_size is 8 for 7 training images: give 7 or less"),
        ({"max_epochs": 1, "devices": -1}, 100, None, "trainer.devices is -1, all GPUs of a machine, and this one has none"),
        ({"max_epochs": -1}, 100, None, "the training has no end: give trainer.max_epochs or trainer.max_steps"),
        ({"max_epochs": 1, "devices": 0}, 100, None, "trainer.devices is 0: give a number of devices, 1 or more, a list"),
        ({"max_epochs": 1, "devices": 1.5}, 100, None, "trainer.devices is 1.5: give a number of devices"),
        ({"max_epochs": 1, "devices": "two"}, 100, None, "trainer.devices is two: give a number of devices"),
        ({"max_epochs": 1, "devices": []}, 100, None, "trainer.devices is []: give a number of devices"),
        ({"max_epochs": 0}, 100, None, "trainer.max_epochs is 0, and nothing is left to train: give more"),
        ({"max_epochs": -1, "max_steps": 0}, 100, None, "trainer.max_steps is 0, and nothing is left to train: give more"),
        (
            {"max_epochs": 1, "limit_train_batches": 0.01},
            100,
            None,
            "trainer.limit_train_batches is 0.01: less than one batch",
        ),
    ],
)
def test_a_budget_that_cannot_be_is_refused(trainer, images, devices, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_budget(config(**trainer), images, devices)


def test_data_without_a_batch_size_are_refused():
    with pytest.raises(ValueError, match=r"give data of which --data\.batch_size is the number of images"):
        read_budget({"trainer": {"devices": 1, "max_epochs": 1}, "data": {"init_args": {}}}, 100)


def test_each_number_follows_from_those_beside_it():
    """Every line is a formula: what stands left of = gives what stands right of it."""
    task = make_task("cnn_channels")
    lines = dict(line.split(maxsplit=1) for line in estimate("x", task, Budget(1000, 64, 3000, 4, "bf16-mixed"), 500.0)[1:7])
    numbers = {name: [float(word.replace(",", "")) for word in NUMBER.findall(line)] for name, line in lines.items()}
    assert numbers["images"] == [3000, 64, 192_000]
    seen, giga, exa = numbers["operations"]
    assert (seen, exa) == (192_000, pytest.approx(seen * giga * 1e-9, rel=0.01))
    assert numbers["rate"] == [500, giga, pytest.approx(500 * giga / 1000, rel=0.01)]
    assert numbers["time"] == [192_000, 4, 500, pytest.approx(192_000 / (4 * 500) / 3600, rel=0.01)]
    hours = numbers["time"][-1]
    assert numbers["cost"] == [4, hours, pytest.approx(4 * hours, rel=0.01)]
    parameters, each, images, mebi, state, kept, total = numbers["memory"]
    assert parameters == pytest.approx(sum(p.numel() for p in task.parameters()) / 1e6, rel=0.01)
    assert (each, images) == (16, 16)
    assert state == pytest.approx(parameters * 1e6 * 16 / 2**30, rel=0.01)
    assert kept == pytest.approx(images * mebi / 1024, rel=0.3)  # and a part that does not grow with the batch
    assert total == pytest.approx(state + kept, rel=0.01)
    budget = Budget(1000, 64, 3000, 4, "bf16-mixed", is_sharded=True, max_time="00:01:00:00")
    sharded = estimate("x", task, budget, 500.0)
    assert sharded[1].endswith(" = 192,000 images; it ends earlier if trainer.max_time, 00:01:00:00, is over")
    found = [float(word.replace(",", "")) for word in NUMBER.findall(sharded[6])]
    assert found == [
        parameters,
        each,
        4,
        images,
        mebi,
        pytest.approx(state / 4, rel=0.01),
        kept,
        pytest.approx(state / 4 + kept, rel=0.01),
    ]


def test_what_a_forward_pass_keeps_is_counted_once_and_without_parameters():
    first, second = nn.Linear(10, 20), nn.Linear(20, 5)
    x = torch.zeros(7, 10)
    network = nn.Sequential(first, nn.Tanh(), second)
    # the input, and the output of tanh, which both tanh and the second layer keep
    assert saved_bytes(lambda: network(x), network) == 4 * (7 * 10 + 7 * 20)


def test_memory_grows_by_the_image_and_shrinks_with_the_precision():
    memory = {precision: measure_memory(make_task("mae_vit"), precision) for precision in ("32-true", "bf16-mixed", "bf16-true")}
    assert [each.per_parameter for each in memory.values()] == [16, 16, 8]
    full, mixed, half = (each.per_image for each in memory.values())
    assert half < mixed < full
    task = make_task("mae_vit").train()
    whole = saved_bytes(lambda: command._loss(task, 5, "32-true"), task)
    # from one and two images follows any number, but for what a few operators keep for a single image
    assert whole == pytest.approx(memory["32-true"].kept(5), rel=1e-3)
    assert Memory(3, 16, 100, 10).state == 48


def test_a_rate_is_measured_by_steps_that_leave_the_weights_as_they_are(monkeypatch):
    task = make_task("cnn_plain")
    before = [parameter.detach().clone() for parameter in task.parameters()]
    ran: list[int] = []

    def seconds(step, device, rounds):
        ran.append(rounds)
        step()
        return 0.25

    monkeypatch.setattr("semconv.cost.step_seconds", seconds)
    monkeypatch.setattr(command, "ON_CPU", 50.0)
    rate, said = measure_rate(task, Budget(100, 64, 1, 1, "32-true"), 10.0)
    assert (rate, ran) == (5 / 0.25, [5])
    assert said.startswith("measured here: CPU, ")
    assert said.endswith(", 5 images, median of 5 steps")
    assert all(torch.equal(*pair) for pair in zip(before, task.parameters(), strict=True))


def test_the_time_of_a_step_is_a_median_without_the_first_two(monkeypatch):
    times = iter([0, 50, 100, 190, 200, 201, 300, 303, 400, 402])
    monkeypatch.setattr("semconv.cost.now", lambda device: next(times))
    assert step_seconds(lambda: None, torch.device("cpu"), 3) == 2


@together(
    "words, message",
    [
        ([], "estimate needs an experiment"),
        (["cnn_plain", "--devices=0"], "--devices is 0: give a number of 1 or more"),
        (["cnn_plain", "--rate=-3"], "--rate is -3.0: give a number above 0"),
        (["cnn_plain", "--rate=nan"], "--rate is nan: give a number above 0"),
        (["cnn_plain", "--images=0"], "--images is 0: give a number of 1 or more"),
        (["cnn_plian"], "did you mean cnn_plain?"),
        (["cnn_plain", "--model.sise=test"], "model.size"),
        (["classical/harmonic_fill", "--rate=10", "--images=1000"], "harmonic_fill has no weights to train: estimate a variant"),
    ],
)
def test_bad_input_is_refused_in_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        dispatch("estimate", words)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in said
    assert said.count("\n") == 1


def test_data_that_are_not_there_need_a_number(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEMCONV_DATA", str(tmp_path))
    words = ["cnn_plain", "--data=imagenet", "--data.size=[32,32]", "--model.cell=4", "--data.batch_size=64", "--rate=100"]
    with pytest.raises(SystemExit) as stop:
        dispatch("estimate", words)
    assert stop.value.code == 2
    assert "or give --images, the number of training images" in capsys.readouterr().err
    dispatch("estimate", [*words, "--images=6400"])
    assert "time        6,400 images / (1 x 100 images/s) = 0.0178 hours" in capsys.readouterr().out
