"""The share of masked sites that visible content reaches, layer by layer.

A dense convolution carries visible content into masked sites, layer by layer, until no site without content is left to show that it
is masked. From there on a network knows the mask only if it is conditioned on it again, or if its features carry it. So this is a
bound on the loss of the mask, not a proof that it is lost.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from semconv.checks.zeros import draw_zeros
from semconv.convolution import SemanticConv2d
from semconv.corruption import View
from semconv.encoders import Encoder
from semconv.hashing import make_keys
from semconv.indicators import masked_fraction
from semconv.masking import spread_mask
from semconv.tasks import MaskedReconstruction

Maps = list[tuple[str, Tensor]]  # b c h w by the path of what gave them, in order


class Reach(NamedTuple):
    """The reach of visible content at one layer or stage."""

    layer: str
    sites: tuple[int, int]  # rows and columns of the map
    share: float | None  # reached share of the sites that lie only in masked cells; None if there are none


class Visibility(NamedTuple):
    """The reach of visible content along a network."""

    layers: list[Reach]  # after each spatial convolution and pool, in order of execution
    stages: list[Reach]  # after each stage


def visibility(network: nn.Module, mask: Tensor, size: tuple[int, int], channels: int = 3) -> Visibility:
    """Measure the share of masked sites whose features depend on visible pixels.

    Two images with the same mask differ in every visible pixel, and are 0 in all hidden ones; a masked site is reached if its
    feature vector differs in any bit. So all true dependencies count: kernels, strides and dilations, skips, pools, norms,
    attention, and the masking of a mechanism. The result is exact except by chance: a site is missed if rectifiers set all of its
    channels to 0. It is computed in float64 and in evaluation mode, on a copy in which weights that are zero are drawn at random. A
    statistic over the whole map, as in squeeze-and-excitation, reaches every site.

    Args:
        network: an `Encoder`, or any module of pixels `b c h w`, such as a timm model.
        mask: bool `b gh gw`, True = masked: one mask per image.
        size: height and width of an image in pixels.
        channels: colour channels of an image.

    Returns:
        layers: modules with a kernel larger than one pixel and a map as output, and semantic convolutions; none of an encoder that
            computes at visible sites alone, whose stages say all.
        stages: the outputs of `encode_stages`; for other modules the last layer below each child, or below each member of a list or
            sequence in which the resolution changes (`layer1` of a ResNet, `stages.0` of a ConvNeXt).
    """
    network = deepcopy(network).cpu().double().eval()
    draw_zeros(network)
    counts: dict[str, list[tuple[int, int]]] = {}
    sites: dict[str, tuple[int, int]] = {}
    for i in range(len(mask)):  # one by one, because the maps of all layers are large
        for path, changed in _changed(network, mask[i : i + 1], size, channels, seed=i):
            sites[path] = (changed.shape[1], changed.shape[2])
            whole = masked_fraction(mask[i : i + 1], *sites[path])[:, 0] == 1
            counts.setdefault(path, []).append((int((changed & whole).sum()), int(whole.sum())))
    rows = [Reach(path, sites[path], _share(pairs)) for path, pairs in counts.items()]
    layers = [row for row in rows if not row.layer.startswith(STAGE)]
    stages = [row._replace(layer=row.layer.removeprefix(STAGE)) for row in rows if row.layer.startswith(STAGE)]
    return Visibility(layers, stages or _summarise(network, layers))


STAGE = "stage:"  # no module's path has a colon


def draw_masks(task: MaskedReconstruction, count: int) -> Tensor:
    """Draw masks as an experiment does: bool `b gh gw`."""
    keys = make_keys(task.evaluation_seed, "visibility", torch.arange(count))
    return task.masker(keys, task.geometry.grid, task.masker.count(task.num_cells))


def as_data(found: Visibility) -> str:
    """The result as JSON: for layers and for stages, a list of names, sites and shares."""
    return json.dumps({name: [row._asdict() for row in rows] for name, rows in found._asdict().items()}, indent=2) + "\n"


def _changed(network: nn.Module, mask: Tensor, size: tuple[int, int], channels: int, seed: int) -> Iterator[tuple[str, Tensor]]:
    """The sites that depend on visible pixels, after each layer and stage: bool `b h w`."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (
        _maps(network, torch.randn(len(mask), channels, *size, generator=generator, dtype=torch.float64), mask) for _ in range(2)
    )
    for (path, before), (_, after) in zip(first, second, strict=True):
        yield path, (before != after).any(1)


@torch.no_grad()
def _maps(network: nn.Module, pixels: Tensor, mask: Tensor) -> Maps:
    """The outputs of all layers and stages for one view."""
    maps: Maps = []
    visits: dict[str, int] = {}

    def keep(path: str, module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1:
            visits[path] = visits.get(path, 0) + 1
            maps.append((path if visits[path] == 1 else f"{path} ({visits[path]})", output))

    pixels = pixels.masked_fill(spread_mask(mask, (pixels.shape[2], pixels.shape[3])), 0)
    with ExitStack() as stack:
        for path, module in _spatial(network):
            stack.callback(module.register_forward_hook(partial(keep, path)).remove)
        if isinstance(network, Encoder):
            view = View(pixels, mask, int(mask[0].sum()), external=torch.zeros_like(pixels[:, :1], dtype=torch.bool))
            encodings = network.encode_stages(view)
            maps += [(f"{STAGE}stage_{number}", encoding.features) for number, encoding in enumerate(encodings)]
        else:
            network(pixels)
    return maps


def _spatial(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Find the modules with a kernel of more than one site, except inside another such module."""
    for name, child in network.named_children():
        path = f"{prefix}{name}"
        kernel = getattr(child.convolution if isinstance(child, SemanticConv2d) else child, "kernel_size", 1)
        if isinstance(kernel, int | tuple) and max(kernel if isinstance(kernel, tuple) else (kernel,)) > 1:
            yield path, child
        else:
            yield from _spatial(child, f"{path}.")


def _summarise(network: nn.Module, layers: list[Reach]) -> list[Reach]:
    """Take the last layer of each stage."""
    resolutions: dict[str, set[tuple[int, int]]] = {}
    for row in layers:
        resolutions.setdefault(row.layer.partition(".")[0], set()).add(row.sites)
    stages: dict[str, Reach] = {}
    for row in layers:
        top, *below = row.layer.split(".")
        parted = isinstance(getattr(network, top, None), nn.ModuleList) or len(resolutions[top]) > 1
        name = ".".join([top, *below[:1]]) if parted else top
        stages[name] = row._replace(layer=name)
    return list(stages.values())


def _share(pairs: list[tuple[int, int]]) -> float | None:
    total = sum(whole for _, whole in pairs)
    return sum(reached for reached, _ in pairs) / total if total else None
