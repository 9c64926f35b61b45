"""The other layers of a network whose spatial convolutions are all sparse: no other layer sees hidden sites, either."""

import operator
from typing import Any

import timm.layers.activations
import torch
from timm.layers import (
    ClassifierHead,
    ConvMlp,
    ConvNormAct,
    DropPath,
    EcaModule,
    EffectiveSEModule,
    EvoNorm2dS0,
    FilterResponseNormTlu2d,
    GlobalContext,
    GlobalResponseNormMlp,
    LayerNorm2d,
    Mlp,
    NormMlpClassifierHead,
    RmsNorm2d,
    SelectAdaptivePool2d,
    SEModule,
    SimpleNorm2d,
)
from timm.layers.grn import GlobalResponseNorm
from timm.models import senet
from timm.models._efficientnet_blocks import ConvBnAct, SqueezeExcite
from timm.models.byobnet import MobileOneBlock
from timm.models.resnetv2 import DownsampleAvg, DownsampleConv
from timm.models.starnet import ConvBN
from torch import Tensor, fx, nn
from torch.nn.modules import activation

from semconv.indicators import Grid, Signals
from semconv.sparse import average_pool, max_pool

POOLS = (nn.MaxPool2d, nn.AvgPool2d)
# layers that look at one site at a time; of what they make at hidden ones nobody takes notice
_POINTWISE = (nn.Linear, nn.LayerNorm, LayerNorm2d, nn.Identity, nn.Dropout, nn.Flatten, DropPath)
_CONTAINERS = (nn.Sequential, Mlp, ConvMlp)
# layers that look at all sites alike, in statistics and means
_OF_ALL_SITES = (
    *(nn.modules.batchnorm._BatchNorm, nn.GroupNorm, SimpleNorm2d, RmsNorm2d, EvoNorm2dS0, FilterResponseNormTlu2d),
    *(SEModule, senet.SEModule, SqueezeExcite, EffectiveSEModule, EcaModule, GlobalContext, GlobalResponseNorm),
    *(SelectAdaptivePool2d, nn.AdaptiveAvgPool2d),
)
# what calls its parts, and does nothing else to a map
_CALLERS = (
    *(nn.ModuleList, ClassifierHead, NormMlpClassifierHead, GlobalResponseNormMlp, ConvNormAct, ConvBnAct, ConvBN),
    *(MobileOneBlock, DownsampleAvg, DownsampleConv),
)
_FUNCTIONS = (operator.add, operator.mul, torch.cat)
_METHODS = ("permute", "mul", "reshape")


class AtVisible(nn.Module):
    """A layer that sees visible sites alone.

    Args:
        layer: takes a map `b c h w`, or `b h w c` where it normalises responses over channels that come last. It may look at one
            site or at all of them, in statistics and means; of those that look at neighbours it may be a pool.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        norms = [part for part in layer.modules() if isinstance(part, GlobalResponseNorm)]
        self.channels_last = any(norm.channel_dim == -1 for norm in norms)

    def forward(self, x: Tensor, signals: Signals) -> Tensor:
        height, width = x.shape[1:3] if self.channels_last else x.shape[2:]
        sites = signals.visible(Grid(height, width))
        if sites.everywhere or not sites.num_visible:  # a control may say that nothing is visible
            return self.layer(x)
        if isinstance(self.layer, POOLS):
            pool: Any = max_pool if isinstance(self.layer, nn.MaxPool2d) else average_pool
            y, after = pool(self.layer, sites.gather(x), sites)
            return after.scatter(y)
        if self.channels_last:
            y = self.layer(sites.gather(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
            return sites.scatter(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = self.layer(sites.gather(x))
        return y if pools_all(self.layer) else sites.scatter(y)


def pools_all(layer: nn.Module) -> bool:
    """True if a layer ends in one vector for all sites."""
    parts = [part for part in layer.modules() if isinstance(part, SelectAdaptivePool2d | nn.AdaptiveAvgPool2d)]
    return any(not (isinstance(part, SelectAdaptivePool2d) and part.is_identity()) for part in parts)


def layers_of_place(model: nn.Module) -> list[str]:
    """Paths of what cannot be called on a list of sites, beside spatial convolutions: pools, and steps without a kernel."""
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, POOLS) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) != module.stride)
    ]


def make_sparse(graph: fx.Graph, modules: dict[str, nn.Module], conditioned: list[str], name: str) -> list[str]:
    """Paths of the layers that have to see visible sites alone, besides the conditioned convolutions.

    Args:
        graph: of the network.
        modules: its modules by path.
        conditioned: paths of the sparse convolutions.
        name: what it is called in errors.

    Raises:
        ValueError: there is a layer of which it is not known how it would see them.
    """
    for module in modules.values():
        if getattr(module, "inplace", False):  # what sites were scattered to must not be written over
            module.inplace = False  # type: ignore[assignment]
    paths, pooled = [], set()
    for node in graph.nodes:
        if any(source in pooled for source in node.all_input_nodes):
            pooled.add(node)
        elif node.op == "call_module" and node.target not in conditioned:
            layer = modules[node.target]
            _require_known(not (isinstance(layer, POOLS) or _is_known(layer)), type(layer).__name__, name)
            if pools_all(layer):
                pooled.add(node)
            if not _is_pointwise(layer):
                paths.append(str(node.target))
        elif node.op in ("call_function", "call_method"):
            _require_known(node.target not in (*_FUNCTIONS, *_METHODS), getattr(node.target, "__name__", node.target), name)
    return paths


def _require_known(unknown: bool, layer: str, name: str) -> None:
    if unknown:
        raise ValueError(f"{layer} of {name} has no sparse form: give depth stages, which masks again there, or another CNN")


def _is_known(layer: nn.Module) -> bool:
    """True for a layer that may be called on a list of sites."""
    if any(getattr(part, "output_size", 1) not in (1, (1, 1)) for part in layer.modules()):  # of a pool that leaves a map
        return False
    if isinstance(layer, (*_CONTAINERS, *_CALLERS)):
        return all(_is_known(part) for part in layer.children())
    return isinstance(layer, _OF_ALL_SITES) or _is_pointwise(layer)


def _is_pointwise(layer: nn.Module) -> bool:
    if isinstance(layer, _CONTAINERS):
        return all(_is_pointwise(part) for part in layer.children())
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1)
    home = type(layer).__module__
    return isinstance(layer, _POINTWISE) or home in (activation.__name__, timm.layers.activations.__name__)
