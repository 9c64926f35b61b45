"""A convolutional encoder with semantic convolutions."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from semconv import timm_models
from semconv.configuration import require, require_choice
from semconv.convolution import MechanismFactory, Plain, SemanticConv2d, unlike_plain
from semconv.corruption import View
from semconv.encoders.encoder import Encoder, Encoding, Geometry, TimmModel, count_parameters, with_finer
from semconv.encoders.matching import match_cost
from semconv.encoders.sizes import Size, dimensions
from semconv.encoders.vit import MAEViT
from semconv.indicators import Grid, Indicator, Indicators, PaddingMode, Signals
from semconv.mechanisms.sparse import Sparse
from semconv.sparse import VisibleSites, convolve, through_map
from semconv.timm_models import ConvNeXtBlock, Norm, Reduction, init_convolutional, make_stages, stage_strides

Depth = Literal["stem", "stages", "all"]
AsPlain = Literal["flops", "time"]


WIDEST = 1000  # mlp_ratio that is no mistake
NARROWEST = 0.01  # mlp_ratio of the narrowest MLPs, of 8 channels


class SemanticCNN(Encoder):
    """ConvNeXt stages (Liu et al., 2022) behind an overlapping stem, down to one site per mask cell.

    A 7 x 7 stem of stride 2 (4 from cells of 16 pixels on) and 3 x 3 convolutions between stages: all of them overlap, for behind a
    stem of separate patches channels, appended values and mask tokens would be one and the same. Resolution is halved until a
    site covers one mask cell, and kept from there on.

    Parameters match those of `MAEViT` of the same size and geometry: the width of the MLPs is chosen so, the same for every
    mechanism that adds less than `TOLERANCE`, less for one that adds more, and more for one that saves more.

    Args:
        geometry: the images to build for.
        size: one of the sizes of the baseline, by name or written out.
        indicators: the indicators to condition on.
        mechanism: how signals enter a convolution.
        depth: where: at the stem; at the stem and the first spatial convolution of each stage; at all spatial convolutions; or at
            the first spatial convolution of the listed stages, of which 0 is the stem and the others are 1 to 4.
        norm: what normalises: each site over its channels, each channel over the batch, or groups of 8 channels over the image.
        kernel_size: side of the depthwise kernels.
        drop_path: share of the residual branches that is dropped in training, rising from 0 to this with depth.
        response_norm: global response normalisation in the MLPs, as in ConvNeXt V2 (Woo et al., 2023); over visible sites alone
            where the network is sparse.
        mlp_ratio: width of the MLPs over that of their stage; chosen to match parameters where it is not given.
        as_plain: build plain in place of what the other arguments describe, its MLPs widened until a training step takes as
            many operations (`flops`) or as long on this machine (`time`): the plain to beat at equal cost.

    Raises:
        ValueError: the cell is not 2, 4, 8, 16 or 32, a listed stage does not exist, or parameters cannot be matched.
    """

    TOLERANCE = 0.03

    def __init__(
        self,
        geometry: Geometry,
        size: Size,
        indicators: list[Indicator] | None = None,
        mechanism: MechanismFactory = Plain,
        depth: Depth | list[int] = "all",
        norm: Norm = "layer",
        kernel_size: int = 7,
        drop_path: float = 0.0,
        response_norm: bool = False,
        mlp_ratio: float | None = None,
        as_plain: AsPlain | None = None,
    ) -> None:
        super().__init__()
        check_kernel(kernel_size)
        require_choice("norm", norm, Norm)
        if as_plain is not None:
            require_choice("as_plain", as_plain, AsPlain)
        if isinstance(depth, str):
            require_choice("depth", depth, Depth)
        check_padding(geometry.padding_mode, geometry.grid, kernel_size)
        require("drop_path", drop_path, 0, 1, exclude="high")
        if mlp_ratio is not None:
            require("mlp_ratio", mlp_ratio, 0, WIDEST, exclude="low")
        build = partial(
            SemanticCNN, geometry, size, indicators, depth=depth, norm=norm, kernel_size=kernel_size, response_norm=response_norm
        )
        if mlp_ratio is None:
            plain = partial(_count_plain, geometry, size, norm, kernel_size, response_norm)
            with torch.device("meta"):
                mlp_ratio = _matched_ratio(build, mechanism, plain, _count_baseline(geometry, size))
            if as_plain:
                mlp_ratio = match_cost(build, mechanism, mlp_ratio, geometry, as_plain)
        if as_plain:
            indicators, mechanism = None, Plain
        self.mlp_ratio = mlp_ratio
        cnn = dimensions(size).cnn
        widths, depths = cnn.widths, cnn.depths
        self.stride, self.num_features = geometry.cell, widths[-1]
        *finer, _ = dict(zip(stage_strides(geometry.cell), widths, strict=True)).items()
        self.finer = tuple((width, stride) for stride, width in reversed(finer))
        self.indicators = Indicators(indicators or ())
        # the stem, one in each block, and one before each stage but the first
        spatial = _SpatialConvolutions(geometry, self.indicators, mechanism, depth, number=sum(depths) + len(depths))
        self.stem, self.stages, self.norm = make_stages(
            spatial.make, geometry.channels, widths, depths, geometry.cell, norm, kernel_size, mlp_ratio, response_norm, drop_path
        )
        self._plain: dict[str, Any] = {
            "output_stride": geometry.cell,
            "norm": norm,
            "kernel_size": kernel_size,
            "mlp_ratio": mlp_ratio,
            "response_norm": response_norm,
            "padding_mode": geometry.padding_mode,
        }
        self._size = size
        self.conveys = self.indicators.conveys if spatial.any_told else frozenset()
        self.drops_masked = spatial.all_sparse
        self.apply(self.init_weights)

    def forward(self, view: View) -> Encoding:
        """Encode a view; the features stand at every mask cell: `b num_features gh gw`."""
        return with_finer(self.encode_stages(view))

    def encode_stages(self, view: View) -> list[Encoding]:
        """After the stem, and after each of the four stages."""
        signals = self.indicators(view)
        pixels = view.pixels.contiguous(memory_format=torch.channels_last)
        if self.drops_masked:
            return self._encode_visible(pixels, signals)
        return [Encoding(x) for x in self._encode_all(pixels, signals)]

    def as_timm(self) -> TimmModel | str:
        """The plain network of the same weights, if it has the same features of whole images."""
        layers = [module for module in self.modules() if isinstance(module, SemanticConv2d)]
        if difference := unlike_plain(layers, self.indicators):
            return f"its {type(self).__name__} {difference}"
        state = {
            name.replace(".convolution.convolution.", ".convolution."): tensor
            for name, tensor in self.state_dict().items()
            if not name.startswith("indicators.") and ".mechanism." not in name
        }
        note = (
            "`import semconv.timm_models` registers this architecture with timm. So does `import semantic_cnn`, the file\n"
            'beside the weights, which needs no semconv. For the map of features, give `global_pool=""` and call `model(pixels)`.'
        )
        name, given = f"semantic_cnn_{self._size}", {}
        if not isinstance(self._size, str):
            name, given = "semantic_cnn", {"widths": list(self._size.cnn.widths), "depths": list(self._size.cnn.depths)}
        return TimmModel(name, given | self._plain, state, note, Path(timm_models.__file__))

    def _encode_all(self, pixels: Tensor, signals: Signals) -> list[Tensor]:
        maps = [self.stem(pixels, signals)]
        for stage in self.stages:
            x = maps[-1]
            for layer in stage:  # type: ignore[attr-defined]
                x = layer(x, signals)
            maps.append(x)
        return [*maps[:-1], self.norm(maps[-1])]

    def _encode_visible(self, pixels: Tensor, signals: Signals) -> list[Encoding]:
        sites = signals.visible(Grid(pixels.shape[2], pixels.shape[3]))
        if not sites.num_visible:  # as a control may say: no feature stands, and gradients are 0
            hidden = [(x, sites.at(x.shape[2], x.shape[3])) for x in self._encode_all(pixels, signals)]
            return [Encoding(sites.only(x), sites.valid) for x, sites in hidden]
        x, sites = through_map(self.stem.convolution.convolution, sites.only(pixels), sites)  # type: ignore[arg-type]
        x = self.stem.after(x)
        maps = [(x, sites)]
        for stage in self.stages:
            for layer in stage:  # type: ignore[attr-defined]
                x, sites = _at_visible(layer, x, sites)
            maps.append((x, sites))
        maps[-1] = (self.norm(x), sites)
        return [Encoding(sites.scatter(x), sites.valid) for x, sites in maps]

    def init_weights(self, module: nn.Module) -> None:
        init_convolutional(module)
        if module is self.stem.convolution.convolution and isinstance(module, nn.Conv2d) and module.bias is not None:
            # under zero fill a stem without biases gives exact zeros at hidden sites, where each layer norm behind it, of eps 1e-6,
            # multiplies gradients by up to 1,000; drawn as torch.nn.Conv2d draws its own
            bound = module.in_channels**-0.5 / module.kernel_size[0]
            nn.init.uniform_(module.bias, -bound, bound)


class _SpatialConvolutions:
    """Makes the spatial convolutions of a network, `number` in all, in their order, conditioned or not according to their place."""

    def __init__(
        self, geometry: Geometry, indicators: Indicators, mechanism: MechanismFactory, depth: Depth | list[int], number: int
    ) -> None:
        self.padding_mode, self.indicators, self.mechanism = geometry.padding_mode, indicators, mechanism
        self.places, self.everywhere = _places(depth), depth == "all"
        self.any_told, self.all_sparse = False, True
        self._depths = (place / (number - 1) for place in range(number))

    def make(
        self, place: int, first: bool, channels: tuple[int, int], kernel_size: int, stride: int = 1, groups: int = 1
    ) -> SemanticConv2d:
        """A convolution of stage `place`, the stem being 0; `first` if it is the first one there."""
        conditioned = place in self.places and (first or self.everywhere)
        made = SemanticConv2d(
            *channels,
            kernel_size,
            stride=stride,
            groups=groups,
            padding_mode=self.padding_mode,
            indicators=self.indicators,
            mechanism=self.mechanism if conditioned else Plain,
            depth=next(self._depths),
        )
        self.any_told |= not isinstance(made.mechanism, Plain)
        self.all_sparse &= isinstance(made.mechanism, Sparse)
        return made


def _at_visible(layer: ConvNeXtBlock | Reduction, x: Tensor, sites: VisibleSites) -> tuple[Tensor, VisibleSites]:
    """A layer, whose convolution is `Sparse`, on a gathered map; see `semconv.sparse`."""
    before = layer.before(x) if isinstance(layer, Reduction) else x
    y, after = convolve(layer.convolution.convolution, before, sites)  # type: ignore[arg-type]
    return layer.after(y) if isinstance(layer, Reduction) else layer.after(y, x), after


def check_kernel(kernel_size: int) -> None:
    """Refuse a kernel without a centre.

    Raises:
        ValueError: its side is even, or below 1.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}: give an odd number of 1 or more, so that the kernel has a centre")


def check_padding(padding_mode: PaddingMode, sites: tuple[int, int], kernel_size: int) -> None:
    """Refuse kernels that reach beyond what the smallest map can continue.

    Raises:
        ValueError: it has too few sites.
    """
    reach, side = kernel_size // 2, min(sites)
    furthest = {"reflect": side - 1, "circular": side}.get(padding_mode, reach)
    if reach > furthest:
        raise ValueError(
            f"padding_mode is {padding_mode}, and the last map has {' x '.join(map(str, sites))} sites, of which "
            f"kernels of {kernel_size} would need more: take a smaller cell or kernel_size, or another padding_mode"
        )


def _places(depth: Depth | list[int]) -> set[int]:
    """Numbers of the conditioned stages, the stem being 0."""
    places = set(depth) if isinstance(depth, list) else {0} if depth == "stem" else set(range(5))
    if not places:
        raise ValueError("depth is []: list stages from 1 to 4, or 0 for the stem; a plain network has the mechanism Plain")
    if not places <= set(range(5)):
        raise ValueError(f"depth is {depth}: stages are numbered 1 to 4, and the stem is 0")
    return places


# every network of a size is matched to the same baseline, and from the same plain one
@cache
def _count_baseline(geometry: Geometry, size: Size) -> int:
    return count_parameters(MAEViT(geometry, size))


@cache
def _count_plain(geometry: Geometry, size: Size, norm: Norm, kernel_size: int, response_norm: bool, mlp_ratio: float) -> int:
    plain = SemanticCNN(geometry, size, norm=norm, kernel_size=kernel_size, response_norm=response_norm, mlp_ratio=mlp_ratio)
    return count_parameters(plain)


def _matched_ratio(
    build: Callable[..., SemanticCNN], mechanism: MechanismFactory, count_plain: Callable[[float], int], target: int
) -> float:
    """The mlp_ratio with which plain has `target` parameters, or a mechanism that adds or saves more than is tolerated."""
    plain = count_plain(4)
    slope = count_plain(5) - plain
    extra = count_parameters(build(mechanism=mechanism, mlp_ratio=4)) - plain
    tolerated = SemanticCNN.TOLERANCE * target
    ratio = max(NARROWEST, 4 + (target - plain) / slope)
    # rounded to whole widths, plain misses the target by a little, too
    if abs(extra) <= tolerated and abs(count_parameters(build(mechanism=mechanism, mlp_ratio=ratio)) - target) <= tolerated:
        return ratio
    ratio = max(NARROWEST, 4 + (target - plain - extra) / slope)
    matched = count_parameters(build(mechanism=mechanism, mlp_ratio=ratio))
    if abs(matched - target) > tolerated:
        if not extra:
            raise ValueError(
                f"the CNN of this size has {matched:,} parameters with the narrowest MLPs, and the vision transformer {target:,}: "
                "give size.cnn smaller widths or depths, or size.vit larger ones"
            )
        raise ValueError(
            f"conditioning takes {extra:,} parameters, more than narrowing the MLPs can offset: the encoder would have "
            f"{matched:,}, the baseline has {target:,}; condition fewer layers (depth), or on fewer indicators, or give an "
            "mlp_ratio and do without equality"
        )
    return ratio
