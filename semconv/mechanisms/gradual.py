"""A gradual change from pixels to semantics, layer by layer."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from semconv.configuration import require_choice
from semconv.convolution import Mechanism, input_grid
from semconv.indicators import Indicators, Signals
from semconv.mechanisms.local_attention import LocalAttention, Projection, WindowAttention, count_heads

Schedule = Literal["linear", "cosine", "learned", "none", "whole", "reversed"]


class Gradual(Mechanism):
    """Pixel channels by convolution, semantic channels by local attention; the semantic share of the width rises with depth.

        pixels'    = kernel * pixels + A semantics
        semantics' = attention over both + B pixels

    A and B are matrices applied at the centre of the window. The attention is that of `LocalAttention`, with queries, keys and
    values of pixel and semantic channels. The pixel part keeps as much of the kernel as it has channels, so that pixels are not
    discarded, and nothing if the share is 1. The first channels are the pixels, in input and output by the same share; all channels
    of the network's input are pixels. With a share of 0 this is the plain convolution, bit by bit; otherwise the first step is not
    plain's.

    `learned` does not split the width but mixes: y = (1 - share) kernel * x + share attention, with one learned share per layer,
    initialised as in `linear` (between .05 and .95). Training logs the share of each layer as `mechanism/share/<layer>`.

    Also known as: convolutions first, attention later (CoAtNet; Dai et al., 2021), here within each layer; for `learned`, mixing
    convolution and attention (ACmix; Pan et al., 2022).

    Args:
        convolution: the convolution to condition.
        indicators: the indicators to condition its attention on.
        schedule: the share over depth: `linear` or `cosine` (half a period) from `start` to `end`, or `learned`. Controls: `none`,
            0 everywhere; `whole`, 1 everywhere; `reversed`, linear from `end` to `start`.
        start: share at the first convolution, from 0 to 1.
        end: share at the last convolution, from 0 to 1.
        heads: number of attention heads, as in `LocalAttention`.
        head_dim: length of queries and keys, as in `LocalAttention`.

    Raises:
        ValueError: a share is not between 0 and 1; or, in use: no depth was set.
    """

    def __init__(
        self,
        convolution: nn.Conv2d,
        indicators: Indicators,
        schedule: Schedule = "linear",
        start: float = 0.0,
        end: float = 0.75,
        heads: int = 4,
        head_dim: int = 16,
    ) -> None:
        super().__init__()
        if not (0 <= start <= 1 and 0 <= end <= 1):
            raise ValueError(f"start is {start} and end is {end}: give semantic shares from 0 to 1")
        require_choice("schedule", schedule, Schedule)
        self.schedule, self.start, self.end = schedule, start, end
        self.heads, self.head_dim = heads, head_dim
        self.pixels = 0  # channels of the input that are pixels
        self.share: float | None = None  # of the output that is semantic, at first where it is learned; None: no depth was set
        self.attention: LocalAttention | None = None
        self.attend: WindowAttention | None = None

    def set_depth(self, depth: float, convolution: nn.Conv2d, indicators: Indicators) -> None:
        assert self.share is None, "its depth is set"
        share = scheduled(self.schedule, self.start, self.end, depth)
        if self.schedule == "learned":
            self.attention = LocalAttention(convolution, indicators, self.heads, self.head_dim)
            self.share = min(max(share, 0.05), 0.95)
            self.share_logit = nn.Parameter(torch.tensor([math.log(self.share / (1 - self.share))]))  # fsdp2 takes no scalars
        else:
            self._split(convolution, indicators, share, first=depth == 0)

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        if self.share is None:
            raise ValueError("Gradual depends on depth, and its depth is not set: give SemanticConv2d a depth, from 0 to 1")
        if self.attention is not None:
            share = self.share_logit.sigmoid()[0].to(x.dtype)
            return torch.lerp(convolution(x), self.attention(convolution, x, signals), share)
        if self.attend is None:
            return convolution(x)
        grid = input_grid(convolution, x)
        semantics = self.project(self.attend(x, self.value, grid, signals))
        centres = self.attend.centres(x, grid)
        pixels, others = centres[..., : self.pixels], centres[..., self.pixels :]
        if self.from_pixels is not None:
            semantics = semantics + self.from_pixels(pixels).movedim(3, 1)
        if convolution.weight is None:
            return semantics
        kept = convolution(x[:, : self.pixels])
        if self.from_semantics is not None:
            kept = kept + self.from_semantics(others).movedim(3, 1)
        return torch.cat([kept, semantics.to(kept.dtype)], dim=1)

    def measures(self) -> Mapping[str, Tensor | float]:
        if self.attention is not None:
            return {"share": self.share_logit.detach().sigmoid()[0]}
        return {} if self.share is None else {"share": self.share}

    def _split(self, convolution: nn.Conv2d, indicators: Indicators, share: float, first: bool) -> None:
        """Move a share of the width from the convolution to attention."""
        channels, width = convolution.in_channels, convolution.out_channels
        semantic, self.pixels = split_width(convolution, share, first)
        self.share = semantic / width
        if not semantic:
            self.silent_when_visible = self.only_where_masked = True
            return
        dense, bias = convolution.groups == 1, convolution.bias is not None
        heads = count_heads(semantic, self.heads, self.head_dim)
        mixed = semantic if heads > 1 else channels  # as in LocalAttention
        self.value = Projection(channels, semantic, bias=False) if heads > 1 else nn.Identity()
        self.attend = WindowAttention(convolution, indicators, channels, mixed, heads, self.head_dim)
        self.project = Projection(mixed, semantic, 1 if dense or heads == 1 else semantic, bias)
        self.from_pixels = nn.Linear(self.pixels, semantic, bias=False) if self.pixels else None
        others, kept = channels - self.pixels, width - semantic
        self.from_semantics = nn.Linear(others, kept, bias=False) if others and kept else None
        keep(convolution, self.pixels, kept)
        self.needs_kernel = kept > 0


def scheduled(schedule: Schedule, start: float, end: float, depth: float) -> float:
    """The semantic share at a depth from 0 to 1; for `learned`, its initial value."""
    if schedule in ("none", "whole"):
        return float(schedule == "whole")
    if schedule == "reversed":
        start, end = end, start
    risen = (1 - math.cos(math.pi * depth)) / 2 if schedule == "cosine" else depth
    return start + (end - start) * risen


def split_width(convolution: nn.Conv2d, share: float, first: bool) -> tuple[int, int]:
    """Count the semantic channels of the output and the pixel channels of the input: whole groups, and multiples of 4 if many."""
    channels, width, groups = convolution.in_channels, convolution.out_channels, convolution.groups
    semantic = _share(width, share, width // groups if groups > 1 else 1)
    if groups > 1:
        return semantic, channels - semantic * channels // width
    if first or not semantic:
        return semantic, channels
    return semantic, max(1, channels - _share(channels, share)) if semantic < width else 0


def _share(width: int, share: float, group: int = 1) -> int:
    """A share of the width in whole groups, and in multiples of 4 for a width of 16 or more."""
    unit = math.lcm(group, math.gcd(max(1, width // 4), 4))
    return round(share * width / unit) * unit


def keep(convolution: nn.Conv2d, channels: int, width: int) -> None:
    """Reduce a convolution and its weights to the first `channels` of the input and `width` of the output."""
    weight, bias, each = convolution.weight, convolution.bias, convolution.out_channels // convolution.groups
    convolution.in_channels, convolution.out_channels = channels, width
    if convolution.groups > 1:
        convolution.groups = width // each
    if not width:
        convolution.weight = convolution.bias = None  # type: ignore[assignment]
        return
    convolution.weight = nn.Parameter(weight.detach()[:width, : channels // convolution.groups].clone())
    if bias is not None:
        convolution.bias = nn.Parameter(bias.detach()[:width].clone())
