"""`SemanticCNN` without conditioning as an architecture of timm's, `semantic_cnn_tiny` and its other sizes.

Importing this file registers them with timm. It needs torch and timm alone, so that an export can carry a copy of it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from timm.layers import ClassifierHead, DropPath, GlobalResponseNormMlp, LayerNorm2d, Mlp
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

Norm = Literal["layer", "batch", "group"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]

# widths and depths of the four stages
SIZES: dict[str, tuple[tuple[int, int, int, int], tuple[int, int, int, int]]] = {
    "micro": ((8, 16, 32, 32), (1, 1, 2, 1)),
    "test": ((16, 32, 64, 64), (1, 1, 2, 2)),
    "mini": ((32, 64, 128, 128), (1, 2, 4, 2)),
    "tiny": ((64, 128, 256, 256), (2, 2, 6, 2)),
    "small": ((96, 192, 384, 480), (2, 2, 12, 2)),
    "base": ((144, 288, 576, 720), (3, 3, 24, 3)),
    "large": ((272, 544, 1088, 1360), (3, 3, 24, 3)),
    "huge": ((360, 720, 1440, 1800), (3, 3, 30, 3)),
}

# by timm's name; the one without a size is for widths and depths of one's own
ARCHITECTURES = {"semantic_cnn": "tiny"} | {f"semantic_cnn_{size}": size for size in SIZES}


class PlainCNN(nn.Module):
    """ConvNeXt stages (Liu et al., 2022) behind an overlapping stem: `semconv.encoders.SemanticCNN` where nothing is masked.

    Args:
        widths: channels of each stage.
        depths: blocks of each stage.
        in_chans: channels of an image.
        num_classes: outputs of the classifier; 0: no classifier.
        global_pool: how sites are pooled before it; empty: not at all.
        output_stride: pixels per site of the last features: 2, 4, 8, 16 or 32.
        norm: what normalises: each site over its channels, each channel over the batch, or groups of 8 channels over the image.
        kernel_size: side of the depthwise kernels.
        mlp_ratio: width of the MLPs over that of their stage.
        response_norm: global response normalisation in the MLPs, as in ConvNeXt V2 (Woo et al., 2023).
        padding_mode: how convolutions continue a map beyond its border.
        drop_rate: dropout before the classifier.
        drop_path_rate: share of the residual branches that is dropped in training, rising from 0 to this with depth.

    Raises:
        ValueError: there is no such stride.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        output_stride: int = 32,
        norm: Norm = "layer",
        kernel_size: int = 7,
        mlp_ratio: float = 4.0,
        response_norm: bool = False,
        padding_mode: PaddingMode = "zeros",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()

        def spatial(place: int, first: bool, channels: tuple[int, int], size: int, stride: int = 1, groups: int = 1) -> nn.Module:
            return nn.Conv2d(*channels, size, stride, size // 2, groups=groups, padding_mode=padding_mode)

        self.num_classes, self.in_chans = num_classes, in_chans
        self.num_features = self.head_hidden_size = widths[-1]
        self.stem, self.stages, self.norm = make_stages(
            spatial, in_chans, widths, depths, output_stride, norm, kernel_size, mlp_ratio, response_norm, drop_path_rate
        )
        # the last features are normalised, as the encoder's are
        modules = [*(f"stages.{number}" for number in range(len(widths) - 1)), "norm"]
        self.feature_info = [
            {"num_chs": width, "reduction": stride, "module": module}
            for width, stride, module in zip(widths, stage_strides(output_stride), modules, strict=True)
        ]
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.apply(init_convolutional)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last features: `b num_features h/output_stride w/output_stride`."""
        return self.norm(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of features, or what the classifier reads of them."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier there; 0 classes: none."""
        self.num_classes = num_classes
        self.head.reset(num_classes, pool_type=global_pool)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of the groups of layers that share a learning rate under layer-wise decay."""
        blocks = [(r"^stages\.(\d+)", None)] if coarse else [(r"^stages\.(\d+)\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^stem", "blocks": blocks}


class ConvNeXtBlock(nn.Module):
    """A spatial convolution, a norm and a MLP at each site, around which the input is added.

    Args:
        convolution: the spatial convolution, from `width` to `width` channels, conditioned or not.
        width: channels.
        norm: what normalises.
        mlp_ratio: width of the MLP over `width`.
        drop_path: share of images for which the branch is dropped in training.
        response_norm: global response normalisation of the MLP's inner features.
    """

    def __init__(
        self,
        convolution: nn.Module,
        width: int,
        norm: Norm = "layer",
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        response_norm: bool = False,
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = make_norm(norm, width)
        mlp = GlobalResponseNormMlp if response_norm else Mlp
        self.mlp = mlp(width, max(8, round(mlp_ratio * width / 8) * 8), use_conv=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *signals: Any) -> Tensor:
        return self.after(self.convolution(x, *signals), x)

    def after(self, y: Tensor, x: Tensor) -> Tensor:
        """What follows the convolution: y is its answer to the block's input x."""
        return x + self.drop_path(self.mlp(self.norm(y)))


class Reduction(nn.Module):
    """A convolution that changes width or resolution, normalised before or after."""

    def __init__(self, convolution: nn.Module, before: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.before = before or nn.Identity()
        self.convolution = convolution
        self.after = after or nn.Identity()

    def forward(self, x: Tensor, *signals: Any) -> Tensor:
        return self.after(self.convolution(self.before(x), *signals))


def make_stages(
    spatial: Callable[..., nn.Module],
    channels: int,
    widths: Sequence[int],
    depths: Sequence[int],
    output_stride: int,
    norm: Norm,
    kernel_size: int,
    mlp_ratio: float,
    response_norm: bool,
    drop_path: float,
) -> tuple[Reduction, nn.Sequential, nn.Module]:
    """The stem, the stages and the last norm; the other arguments are those of `PlainCNN`.

    Args:
        spatial: makes a spatial convolution: `spatial(stage, first, (in, out), kernel_size, stride=, groups=)`, where the stem is
            stage 0 and `first` is true for the first one of its stage.
        channels: of an image.
    """
    strides = stage_strides(output_stride)
    stem = Reduction(spatial(0, True, (channels, widths[0]), 7, stride=strides[0]), after=make_norm(norm, widths[0]))
    drop_rates = torch.linspace(0, drop_path, sum(depths), device="cpu").split(list(depths))
    stages = nn.Sequential()
    for i, width in enumerate(widths):
        stage = nn.Sequential()
        if i:
            step = spatial(i + 1, True, (widths[i - 1], width), 3, stride=strides[i] // strides[i - 1])
            stage.append(Reduction(step, before=make_norm(norm, widths[i - 1])))
        for rate in drop_rates[i].tolist():
            convolution = spatial(i + 1, not stage, (width, width), kernel_size, groups=width)
            stage.append(ConvNeXtBlock(convolution, width, norm, mlp_ratio, rate, response_norm))
        stages.append(stage)
    return stem, stages, make_norm(norm, widths[-1])


def stage_strides(output_stride: int) -> list[int]:
    """Pixels per site of each stage: doubled up to `output_stride`.

    Raises:
        ValueError: it is none of 2, 4, 8, 16 and 32.
    """
    if output_stride not in (2, 4, 8, 16, 32):
        raise ValueError(f"SemanticCNN halves its resolution down to the mask cell: {output_stride} must be 2, 4, 8, 16 or 32")
    first = 2 if output_stride < 16 else 4
    return [min(output_stride, first * 2**i) for i in range(4)]


def make_norm(norm: Norm, width: int) -> nn.Module:
    """A normalisation of `b width h w`."""
    if norm == "batch":
        return nn.BatchNorm2d(width)
    if norm == "group":
        return nn.GroupNorm(width // 8, width, eps=1e-6)
    return LayerNorm2d(width, eps=1e-6)


def init_convolutional(module: nn.Module) -> None:
    """ConvNeXt's initialisation: weights from a normal of deviation .02 cut at 2, biases 0.

    Any other module that draws weights of its own says how by `reset_parameters`, as PyTorch's do.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        if module.weight is not None:  # else a mechanism stands in its place
            nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif callable(reset := getattr(module, "reset_parameters", None)):
        reset()


def _describe() -> dict[str, Any]:
    """What timm knows of each: no published weights, names of the first and the last layer."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "first_conv": "stem.convolution",
        "classifier": "head.fc",
    }


default_cfgs = generate_default_cfgs({f"{name}.untrained": _describe() for name in ARCHITECTURES})


def _register(name: str, size: str) -> None:
    widths, depths = SIZES[size]

    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        options = {"widths": widths, "depths": depths, **options}
        stages = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True}
        return build_model_with_cfg(PlainCNN, create.__name__, pretrained, feature_cfg=stages, **options)

    create.__name__ = name
    register_model(create)


for _name, _size in ARCHITECTURES.items():
    _register(_name, _size)
