import json
from functools import partial

import pytest
import torch
from torch import nn

from semconv.commands.train import main
from semconv.cost import Throughput, count_flops, count_training_flops, inference_rate
from tests.experiments import arguments, built

SHORT = ["--trainer.limit_train_batches=8", "--data.batch_size=4", "--data.num_images=40", "--data.num_test_images=5"]
SHORT += ["--trainer.log_every_n_steps=1"]


def test_the_summary_says_what_a_run_cost(tmp_path):
    main(["run", *arguments("mae_vit", *SHORT, f"--runs={tmp_path}"), "--evaluation=none"])
    (path,) = tmp_path.glob("*/*/summary.json")
    found = json.loads(path.read_text())
    model = built("mae_vit").model
    assert found["cost/encoder_parameters"] == sum(p.numel() for p in model.encoder.parameters() if p.requires_grad)
    assert found["cost/train_images_per_second"] > 0
    assert found["cost/peak_memory_bytes"] > 1e7
    assert found["cost/flops"] == vit_flops(width=64, depth=4, tokens=17) + decoder_flops(64, 2, 65, 64)
    assert found["test/psnr"] is None
    assert "normalised" in found["test/psnr/reason"]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_backward_pass_takes_twice_the_operations_of_a_forward_pass(stride):
    for kind, padding in ((nn.Conv2d, {}), (nn.ConvTranspose2d, {"output_padding": stride - 1})):
        layers = nn.Sequential(kind(4, 8, 3, stride, groups=2, bias=False, **padding), kind(8, 4, 3, stride, bias=False, **padding))
        inputs = torch.zeros(2, 4, 24, 24)
        # the first layer needs no gradient of its input
        assert count_training_flops(layers, inputs) == 3 * count_flops(layers, inputs) - count_flops(layers[0], inputs)


def test_what_is_counted_has_its_modes_afterwards():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    layers[1].eval()  # as of a part that is not trained
    count_training_flops(layers, torch.zeros(1, 3, 8, 8))
    assert [part.training for part in layers] == [True, False, True]
    with pytest.raises(RuntimeError):
        count_flops(layers, torch.zeros(1, 5, 8, 8))
    assert [part.training for part in layers] == [True, False, True]


def test_predictions_are_timed_in_the_precision_of_the_run():
    task, data = built("mae_vit").model, built("mae_vit").datamodule
    met: list[bool] = []
    hook = task.encoder.register_forward_hook(lambda *_: met.append(torch.is_autocast_enabled("cpu")))
    assert inference_rate(task, data.sample("test", 2), data, partial(torch.autocast, "cpu", torch.bfloat16), rounds=1) > 0
    hook.remove()
    assert set(met) == {True}


def test_the_first_batches_alone_give_no_speed():
    throughput, device = Throughput(), torch.device("cpu")
    for _ in range(Throughput.WARMUP):
        throughput.count(4, device)
    throughput.pause(device)
    assert throughput.rate is None


def test_the_speed_is_that_until_the_last_pause(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("semconv.cost.now", lambda device: next(clock))
    throughput, device = Throughput(), torch.device("cpu")
    for _ in range(Throughput.WARMUP + 3):
        throughput.count(4, device)
    assert throughput.rate is None
    throughput.pause(device)
    assert throughput.rate == 12
    throughput.go_on(device)
    throughput.count(4, device)
    assert throughput.rate == 12
    throughput.pause(device)
    assert throughput.rate == 8


def vit_flops(width: int, depth: int, tokens: int) -> int:
    """Multiply-adds times two: patch projection of all 64 patches, then blocks over the visible patches and the class token."""
    block = 12 * width**2 * tokens + 2 * tokens**2 * width
    return 2 * (64 * 48 * width + depth * block)


def decoder_flops(width: int, depth: int, tokens: int, features: int) -> int:
    """Embedding of 64 sites and the class token, blocks, and the prediction of 48 numbers at each site."""
    block = 12 * width**2 * tokens + 2 * tokens**2 * width
    return 2 * (features * width * 65 + depth * block + 64 * width * 48)
