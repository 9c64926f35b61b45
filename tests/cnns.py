"""CNNs of timm's, as the tests of rewriting see them."""

from copy import deepcopy
from functools import cache

import pytest
import timm
import torch
from torch import Tensor, nn

from semconv.corruption import View
from semconv.indicators import Coordinates, Indicator, Mask
from semconv.mechanisms import Mechanism
from semconv.rewriting.network import SemanticNetwork, semanticize
from tests.experiments import stir

# the first spatial convolution of the stem and of each stage, read off timm's definitions
FIRST = {
    "test_resnet": ["conv1.0", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv2", "layer4.0.conv1"],
    "mobilenetv3_small_050": ["conv_stem", *(f"blocks.{number}.0.conv_dw" for number in (0, 1, 2, 4))],
    "resnet18": ["conv1", *(f"layer{number}.0.conv1" for number in range(1, 5))],
    "convnextv2_atto": ["stem.0", "stages.0.blocks.0.conv_dw", *(f"stages.{number}.downsample.1" for number in range(1, 4))],
    "mobilenetv3_large_100": ["conv_stem", *(f"blocks.{number}.0.conv_dw" for number in (0, 1, 2, 3, 5))],
    "resnet50": ["conv1", *(f"layer{number}.0.conv2" for number in range(1, 5))],
    "convnext_tiny": ["stem.0", "stages.0.blocks.0.conv_dw", *(f"stages.{number}.downsample.1" for number in range(1, 4))],
    "convnextv2_nano": ["stem.0", "stages.0.blocks.0.conv_dw", *(f"stages.{number}.downsample.1" for number in range(1, 4))],
    "efficientnet_b0": ["conv_stem", *(f"blocks.{number}.0.conv_dw" for number in (0, 1, 2, 3, 5))],
    "regnety_008": ["stem.conv", *(f"s{number}.b1.conv2.conv" for number in range(1, 5))],
    "densenet121": ["features.conv0", *(f"features.denseblock{number}.denselayer1.conv2" for number in range(1, 5))],
}
FAST = ("test_resnet", "convnextv2_atto", "mobilenetv3_small_050")
NAMES = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FIRST]

every_model = pytest.mark.parametrize("name", NAMES)


def every_model_by(*mechanisms: type[Mechanism]) -> pytest.MarkDecorator:
    """Every model with all mechanisms, but half of them in each of the two fast ones of depthwise convolutions."""
    cases = [
        pytest.param(name, mechanisms[FAST.index(name) - 1 :: 2] if name in FAST[1:] else mechanisms, marks=case.marks, id=name)
        for name, case in zip(FIRST, NAMES, strict=True)
    ]
    return pytest.mark.parametrize(("name", "mechanisms"), cases)


@cache
def plain(name: str) -> nn.Module:
    """timm's model of ten classes, its residual branches, which start at zero, awake."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10)
    stir(model)
    return model


def rewrite(
    name: str, mechanism: type[Mechanism], *indicators: Indicator, depth: str | list[int] = "all", told: bool = True
) -> SemanticNetwork:
    """A network of its own in evaluation mode, with random mechanisms where `told`."""
    network = semanticize(plain(name), mechanism, indicators or [Mask(), Coordinates()], depth).eval()  # type: ignore[arg-type]
    if told:
        generator = torch.Generator().manual_seed(1)
        for module in network.conditioning_modules():
            for parameter in module.parameters(recurse=False):
                with torch.no_grad():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


def draw(count: int = 2, seed: int = 0, share: float = 0.5) -> View:
    """Images of 64 x 64 with content everywhere, in cells of 8."""
    generator = torch.Generator().manual_seed(seed)
    ranks = torch.rand(count, 64, generator=generator).argsort(1).argsort(1)
    number = round(64 * share)
    return View(torch.randn(count, 3, 64, 64, generator=generator), (ranks < number).view(count, 8, 8), number)


def call(network: SemanticNetwork, view: View) -> Tensor:
    return network(view.pixels, network.indicators(view))


def own(name: str) -> nn.Module:
    """timm's model, to be changed."""
    return deepcopy(plain(name))
