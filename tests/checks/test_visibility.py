import json
from typing import Any
from xml.etree import ElementTree

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.__main__ import main
from semconv.checks.visibility import visibility
from semconv.hashing import make_keys
from semconv.masking import RandomMasker, spread_mask
from tests.experiments import arguments

# research note: ResNet-50, ratio .6, cell 32, 224 pixels
WITH_MAP = json.dumps(
    [{"class_path": "semconv.indicators.Mask"}, {"class_path": "semconv.indicators.ExternalMap", "init_args": {"num_classes": 11}}]
)
ROW = {"maxpool": 27, "layer1": 74, "layer2": 98, "layer3": 100}


def masks(count: int) -> Tensor:
    return RandomMasker()(make_keys(0, torch.arange(count)), (7, 7), round(0.6 * 49))


def reached(valid: Tensor, layer: Any) -> Tensor:
    """A site is reached if any site of its window is."""
    return F.max_pool2d(valid, layer.kernel_size, layer.stride, layer.padding)


def resnet_oracle(model: Any, mask: Tensor) -> dict[str, float]:
    """Reach by the geometry of kernels alone, on maps of one channel."""
    valid, shares = (~spread_mask(mask, (224, 224))).double(), {}

    def note(name: str) -> None:
        masked = F.interpolate(mask[:, None].double(), valid.shape[2:]) > 0
        shares[name] = ((valid > 0) & masked).sum().item() / masked.sum().item()

    for name in ("conv1", "maxpool"):
        valid = reached(valid, getattr(model, name))
        note(name)
    for name in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(getattr(model, name)):
            skip = F.max_pool2d(valid, 1, block.stride) if block.downsample is not None else valid
            valid = torch.maximum(reached(valid, block.conv2), skip)
            note(f"{name}.{number}.conv2")
    return shares


def in_percent(shares: dict[str, Any]) -> dict[str, float]:
    return {name: 100 * [share for layer, share in shares.items() if layer.startswith(name)][-1] for name in ROW}


def test_a_resnet_is_reached_as_its_kernels_say():
    model, mask = timm.create_model("resnet50"), masks(1)
    found = visibility(model, mask, (224, 224))
    assert {row.layer: row.share for row in found.layers} == resnet_oracle(model, mask)
    assert [row.layer for row in found.stages] == ["conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"]


def test_many_masks_give_the_row_of_the_research_note():
    with torch.device("meta"):  # the oracle reads no weight
        model = timm.create_model("resnet50")
    # the note's own masks are a draw as well
    assert in_percent(resnet_oracle(model, masks(256))) == pytest.approx(ROW, abs=1)


@pytest.mark.slow
def test_a_resnet_50_gives_the_row_of_the_research_note():
    shares = {row.layer: row.share for row in visibility(timm.create_model("resnet50"), masks(24), (224, 224)).stages}
    assert in_percent(shares) == pytest.approx(ROW, abs=2)


def test_what_is_kept_masked_is_not_reached_and_what_sees_all_is():
    class Kept(nn.Module):
        def __init__(self, mask: Tensor) -> None:
            super().__init__()
            self.mask, self.convolution = mask, nn.Conv2d(3, 8, 3, padding=1)
            self.pool = nn.MaxPool2d(2)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.pool(self.convolution(pixels).masked_fill(spread_mask(self.mask, (32, 32)), 0))

    mask = RandomMasker()(make_keys(1, torch.arange(1)), (4, 4), 12)
    shares = {row.layer: row.share for row in visibility(Kept(mask), mask, (32, 32)).layers}
    assert shares["convolution"] != 0
    assert shares["pool"] == 0
    whole = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(1, 8), nn.Conv2d(8, 8, 3, padding=1))
    assert visibility(whole, mask, (32, 32)).layers[-1].share == 1  # through the norm's statistics


@pytest.mark.parametrize(
    ("name", "options", "first", "last"),
    [
        ("cnn_plain", ["--model.cell=8"], 1 / 3, 1.0),
        ("cnn_mask_token", ["--model.encoder.depth=all"], 0.0, 0.0),
        ("mae_vit", [], 0.0, 0.0),
        ("simmim_vit", [], 0.0, 1.0),
        ("cnn_mask_token", ["--model.encoder.depth=all", "--data.maps=source", f"--model.encoder.indicators={WITH_MAP}"], 0.0, 0.0),
    ],
)
def test_the_command_prints_and_draws(name, options, first, last, tmp_path, monkeypatch, capsys):
    given = arguments(name, *options, "--images=4", f"--output={tmp_path / 'out'}")
    monkeypatch.setattr("sys.argv", ["semconv", "check", "visibility", *given])
    main()
    found = json.loads((tmp_path / "out" / "visibility.json").read_text())
    assert len(found["stages"]) == 5
    assert found["stages"][0]["share"] == pytest.approx(first, abs=0.1)
    assert found["stages"][-1]["share"] == last
    chart = ElementTree.parse(tmp_path / "out" / "visibility.svg").getroot()
    assert len(chart.findall("{*}circle")) == len(found["layers"])
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["visibility.json", "visibility.svg"]
    assert "of cells of" in capsys.readouterr().out
