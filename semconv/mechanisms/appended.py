"""Signals as values appended to the input of the kernel."""

from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from semconv.configuration import require, require_choice
from semconv.convolution import (
    Mechanism,
    SignalConv2d,
    convolve_extended,
    input_grid,
    output_grid,
    require_signals,
)
from semconv.indicators import Grid, Indicators, Signals, Sites

ValueEncoding = Literal["scalar", "one-hot", "embedding"]
Place = Literal["window", "edge"]


class AppendedValues(Mechanism):
    """Signals as extra values appended to the pixels that a kernel reads.

    `place: window`: the flattened window of every output site gets e extra entries: c(u) = b + V e(u). V starts at zero, so that
    the first step computes what plain does. At stride 1 this equals channels with only the centre tap of their kernels; at a
    larger stride the signals cover the whole output site.
    `place: edge`: the map gets extra pixels at its edge, in the ring of padding: there the kernel reads E e(u) plus the padding's
    value; E starts at zero. The information spreads from the edge only as far as receptive fields reach.

    Args:
        convolution: the convolution to condition.
        indicators: the indicators to condition it on.
        encoding: of each signal: `scalar`, one normalised number; `one-hot`, `levels` entries, of which the one whose range holds
            the signal is 1; `embedding`, a learned vector of `width` numbers per range. A signal of 0 is all zeros in each
            encoding, because it means "nothing masked" or "no information"; except a signal of position.
        place: `window`, at every output site; `edge`, in the padding.
        levels: number of ranges of `one-hot` and `embedding`.
        width: length of an embedding.

    Raises:
        ValueError: an argument is none of its values; `edge` for a convolution without padding; `one-hot` or `embedding` of a
            learned indicator.
    """

    silent_when_visible = True

    def __init__(
        self,
        convolution: nn.Conv2d,
        indicators: Indicators,
        encoding: ValueEncoding = "scalar",
        place: Place = "window",
        levels: int = 8,
        width: int = 8,
    ) -> None:
        super().__init__()
        require_signals(self, indicators)
        require_choice("encoding", encoding, ValueEncoding)
        require_choice("place", place, Place)
        for name, value in (("levels", levels), ("width", width)):
            require(name, value, 1)
        if encoding != "scalar" and any(True for _ in indicators.parameters()):
            raise ValueError(
                f"encoding {encoding!r} sorts signals into ranges, through which a learned indicator gets no gradient: use 'scalar'"
            )
        if place == "edge" and not any(convolution.padding):
            raise ValueError("place 'edge' writes into the padding of a convolution, and this one has none: use 'window'")
        self.place = place
        self.encode = _SiteEncoding(indicators, encoding, levels, width)
        entries = self.encode.entries
        channels = convolution.out_channels if place == "window" else convolution.in_channels
        self.from_signals = SignalConv2d(indicators.num_per_image * entries, indicators.num_shared * entries, channels)

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        if self.place == "window":
            y = convolution(x)
            grid = output_grid(y)
            return y + self.from_signals(self.encode(signals.at(grid)))
        grid = input_grid(convolution, x)
        # there is no mask beyond the border: the nearest cell's stands there
        ring = grid._replace(mode="replicate")
        added = torch.where(_outside(grid, x.device), self.from_signals(self.encode(signals.at(ring))), 0)
        return convolve_extended(convolution, grid.extend(x) + added.to(x.dtype))


class _SiteEncoding(nn.Module):
    """The encoding of signals as appended entries: each channel becomes `entries` channels."""

    def __init__(self, indicators: Indicators, encoding: ValueEncoding, levels: int, width: int) -> None:
        super().__init__()
        self.encoding, self.levels, self.num_per_image = encoding, levels, indicators.num_per_image
        self.entries = {"scalar": 1, "one-hot": levels, "embedding": width}[encoding]
        channels = [part for part in indicators for _ in range(part.channels)]
        self.low = nn.Buffer(torch.tensor([part.low for part in channels]), persistent=False)
        self.high = nn.Buffer(torch.tensor([part.high for part in channels]), persistent=False)
        self.silent = nn.Buffer(torch.tensor([part.conveys != "position" for part in channels]), persistent=False)
        if encoding == "embedding":
            self.table = nn.Parameter(torch.empty(len(channels), levels, width))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.encoding == "embedding":
            nn.init.normal_(self.table, std=0.02)

    def forward(self, sites: Sites) -> Sites:
        if self.encoding == "scalar":
            return sites
        return Sites(
            self._encode(sites.per_image, slice(None, self.num_per_image)),
            self._encode(sites.shared, slice(self.num_per_image, None)),
        )

    def _encode(self, signals: Tensor, channels: slice) -> Tensor:
        """`b k h w` to `b (k entries) h w`."""
        hot = self._one_hot(signals, channels)
        if self.encoding == "one-hot":
            return rearrange(hot, "b k l h w -> b (k l) h w")
        vectors = torch.einsum("bklhw,kld->bkdhw", hot, self.table[channels])
        return rearrange(vectors, "b k d h w -> b (k d) h w")

    def _one_hot(self, signals: Tensor, channels: slice) -> Tensor:
        low, high, silent = (rearrange(buffer[channels], "k -> k 1 1") for buffer in (self.low, self.high, self.silent))
        level = ((signals - low) / (high - low) * self.levels).ceil().clamp(1, self.levels) - 1
        level = torch.where(silent & (signals == 0), -1, level)
        number = torch.arange(self.levels, device=signals.device)
        return (repeat(level, "b k h w -> b k l h w", l=self.levels) == rearrange(number, "l -> l 1 1")).to(self.low.dtype)


def _outside(grid: Grid, device: torch.device) -> Tensor:
    """True on the padding of a grid: bool `1 1 h w`."""
    inside = torch.zeros(1, 1, grid.height, grid.width, dtype=torch.bool, device=device)
    return nn.functional.pad(inside, grid.sides, value=True)
