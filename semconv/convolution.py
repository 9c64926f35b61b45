"""A convolution conditioned on signals.

Every mechanism is one case of

    y(u) = A(u) * sum over d of W_d x~(u + d) + c(u)

(u: output site, d: kernel offset): it changes what the kernel reads, x~, what its answer is weighed with, A, or what is added to
it, c. The kernel W itself keeps its shape and its fan-in: indicator weights stand beside it and start at zero.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.indicators import Grid, Indicators, PaddingMode, Signals, Sites


class Mechanism(nn.Module, ABC):
    """The way in which signals enter one convolution.

    A subclass is built as `subclass(convolution, indicators, **its own arguments)`, where `convolution` is the plain
    convolution to condition and `indicators` what to condition it on; it registers neither.

    Attributes:
        needs_kernel: whether it uses the convolution's weights. Of one that does not, weight and bias are deleted (None); what the
            convolution says of its geometry stays.
        silent_when_visible: whether it does what plain does where nothing is masked, as long as all indicators convey the mask: a
            network of such mechanisms is then its plain one.
        only_where_masked: whether it does what plain does where nothing is masked, whatever the indicators convey.
        needs_whole_sites: whether a site must not be masked in part: the mask cell has to be a multiple of the stride then.
    """

    needs_kernel: bool = True
    silent_when_visible: bool = False
    only_where_masked: bool = False
    needs_whole_sites: bool = False

    def set_depth(self, depth: float, convolution: nn.Conv2d, indicators: Indicators) -> None:
        """Build what depends on the place in the network: called once, after construction and before weights are drawn.

        Args:
            depth: place among the network's spatial convolutions, from 0, the first, to 1, the last.
            convolution: the one given at construction.
            indicators: likewise.
        """

    def measures(self) -> Mapping[str, Tensor | float]:
        """Numbers of one's own by name, each of which training logs as `mechanism/<name>/<layer>`."""
        return {}

    def is_silent(self, indicators: Indicators) -> bool:
        """True if it does what plain does where nothing is masked.

        Args:
            indicators: the ones given at construction.
        """
        return self.only_where_masked or (self.silent_when_visible and indicators.conveys <= {"mask"})

    @abstractmethod
    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        """Output of the conditioned convolution, of the shape of the plain one's.

        Args:
            convolution: the convolution given at construction.
            x: its input, `b c h w`.
            signals: of this batch.
        """


class Amplitude(nn.Identity):
    """Passes A(u), or A(u) less a constant, on to the product: what a mechanism learns to weigh outputs with, for a hook to read.

    Args:
        constant: A(u) is this and what is passed on.
    """

    def __init__(self, constant: float = 0.0) -> None:
        super().__init__()
        self.constant = constant


class Plain(Mechanism):
    """A convolution without conditioning: x~ = x, A = 1, c = its bias."""

    silent_when_visible = True
    only_where_masked = True

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators) -> None:
        super().__init__()

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        return convolution(x)


def layer_of(path: str) -> str:
    """The name of a conditioned convolution in what is logged, from the path of its mechanism or of a part of that."""
    return path.removeprefix("encoder.").partition(".mechanism")[0].removesuffix(".convolution")


MechanismFactory = Callable[[nn.Conv2d, Indicators], Mechanism]


class SemanticConv2d(nn.Module):
    """A 2-D convolution and its mechanism.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel.
        stride: step of the kernel.
        groups: as in `torch.nn.Conv2d`.
        bias: whether a bias is added.
        padding_mode: how the input is continued beyond its border, by kernel_size // 2 on each side.
        indicators: what to condition it on.
        mechanism: how signals enter it: a class from `semconv.mechanisms`, or anything that is called like one.
        depth: place among the network's spatial convolutions, from 0, the first, to 1, the last, for mechanisms that depend on it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        indicators: Indicators,
        mechanism: MechanismFactory = Plain,
        depth: float | None = None,
    ) -> None:
        super().__init__()
        convolution = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
        )
        self._condition(convolution, indicators, mechanism, depth)

    @classmethod
    def around(
        cls, convolution: nn.Conv2d, indicators: Indicators, mechanism: MechanismFactory, depth: float | None = None
    ) -> Self:
        """Tell a convolution that is there already, weights and all."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._condition(convolution, indicators, mechanism, depth)
        return made

    def _condition(self, convolution: nn.Conv2d, indicators: Indicators, mechanism: MechanismFactory, depth: float | None) -> None:
        self.convolution, given = convolution, convolution.weight
        self.mechanism = mechanism(convolution, indicators)
        if depth is not None:
            self.mechanism.set_depth(depth, convolution, indicators)
        self.mechanism.to(given)  # its device and precision
        if not self.mechanism.needs_kernel:
            self.convolution.weight = self.convolution.bias = None  # type: ignore[assignment]

    def forward(self, x: Tensor, signals: Signals) -> Tensor:
        """Convolve `b c h w` under the signals of the batch."""
        return self.mechanism(self.convolution, x, signals)


class SignalConv2d(nn.Module):
    """Mean of the signals in a window, weighted: c(u) = 1/N sum over d of U_d m(u + d), N the number of taps, U from zero.

    Adam moves every weight by about the learning rate, whatever its gradient. The taps of an indicator that is smooth in space move
    together, so that their plain sum moves N times as far as a bias does: conditioning would be a larger step size under another
    name. The factor 1/N makes the step of c that of a bias. It is the argument of the maximal update parametrisation (Yang et al.,
    2021) with taps in place of width; it stands in the forward pass, and changes no function that the layer can represent.

    Signals of position do not depend on the image: their part is computed once for the whole batch.

    Args:
        num_per_image: channels of the signals that differ between images.
        num_shared: channels of those that do not.
        out_channels: channels of the result.
        kernel_size: rows and columns of the kernel.
        stride: its step.
        dilation: its spacing.
        average: divide by N. Without it, c is the plain sum, as if signals were concatenated to the input.
    """

    def __init__(
        self,
        num_per_image: int,
        num_shared: int,
        out_channels: int,
        kernel_size: tuple[int, ...] = (1, 1),
        stride: tuple[int, ...] = (1, 1),
        dilation: tuple[int, ...] = (1, 1),
        average: bool = True,
    ) -> None:
        super().__init__()
        self.multiplier = 1 / math.prod(kernel_size) if average else 1.0
        self.num_per_image, self.stride, self.dilation = num_per_image, stride, dilation
        self.weight = nn.Parameter(torch.zeros(out_channels, num_per_image + num_shared, *kernel_size))

    def forward(self, sites: Sites) -> Tensor | float:
        """The sum at every output site: `b c h w`, or `1 c h w` where all signals are shared, or 0 where there are none.

        Args:
            sites: signals on the padded input grid.
        """
        total: Tensor | float = 0.0
        if sites.per_image.shape[1]:
            total = self._convolve(sites.per_image, self.weight[:, : self.num_per_image])
        if sites.shared.shape[1]:
            shared = self._convolve(sites.shared, self.weight[:, self.num_per_image :])
            total = total + spread(shared, total) if isinstance(total, Tensor) else shared
        return total

    def _convolve(self, signals: Tensor, weight: Tensor) -> Tensor:
        if signals.shape[1] == 1:
            # one channel has both layouts; said to be channels-last, as features are, the answer is so too, several times as fast
            batch, _, height, width = signals.shape
            signals = signals.contiguous()
            signals = signals.as_strided((batch, 1, height, width), (height * width, 1, width, 1))
        else:
            signals = signals.contiguous(memory_format=torch.channels_last)
        return F.conv2d(signals.to(weight.dtype), weight * self.multiplier, stride=self.stride, dilation=self.dilation)


def spread(shared: Tensor, x: Tensor) -> Tensor:
    """A map `1 c h w` for each image of x, `b c h w`: without a copy, and so that its gradient is summed in the layout of x."""
    if not x.is_contiguous(memory_format=torch.channels_last):
        return shared.expand(len(x), -1, -1, -1)
    return shared.permute(0, 2, 3, 1).expand(len(x), -1, -1, -1).permute(0, 3, 1, 2)


def input_grid(convolution: nn.Conv2d, x: Tensor) -> Grid:
    """The grid that a convolution reads, its padding included."""
    return Grid(x.shape[2], x.shape[3], convolution.padding, convolution.padding_mode)  # type: ignore[arg-type]


def output_grid(y: Tensor) -> Grid:
    """The grid that a convolution wrote."""
    return Grid(y.shape[2], y.shape[3])


def convolve_extended(convolution: nn.Conv2d, extended: Tensor, bias: bool = True) -> Tensor:
    """Convolve an input whose padding has been added already."""
    return F.conv2d(
        extended,
        convolution.weight,
        convolution.bias if bias else None,
        convolution.stride,
        dilation=convolution.dilation,
        groups=convolution.groups,
    )


def convolve_with(convolution: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve as a convolution does, with another kernel."""
    padding = convolution.padding
    if convolution.padding_mode != "zeros":
        x, padding = input_grid(convolution, x).extend(x), (0, 0)
    return F.conv2d(x, weight, bias, convolution.stride, padding, convolution.dilation, convolution.groups)


def unlike_plain(layers: Sequence[SemanticConv2d], indicators: Indicators) -> str:
    """Why a network does not do what plain does where nothing is masked, as the end of a sentence; empty: it does.

    Args:
        layers: its spatial convolutions, of which the others are plain.
        indicators: what these are conditioned on.
    """
    if indicators.control is not None:
        return "has a control, which changes features even where nothing is masked"
    heard = [layer.mechanism for layer in layers if not layer.mechanism.is_silent(indicators)]
    if not heard:
        return ""
    loud = [mechanism for mechanism in heard if not mechanism.silent_when_visible]
    names = ", ".join(sorted({type(mechanism).__name__ for mechanism in loud or heard}))
    if loud:
        return f"is conditioned by {names}, which is not a plain convolution even where nothing is masked"
    others = ", ".join(type(part).__name__ for part in indicators if part.conveys != "mask")
    return f"is conditioned on {others} by {names}, which is heard where nothing is masked: condition it on the mask alone"


def require_signals(mechanism: Mechanism, indicators: Indicators, mask: bool = False) -> None:
    """Refuse a mechanism without the indicators that it needs.

    Raises:
        ValueError: there is no indicator, or no mask among them where `mask` asks for one.
    """
    name = type(mechanism).__name__
    if not len(indicators):
        raise ValueError(f"{name} has no indicators: give at least one of semconv.indicators")
    if mask and not indicators.include_mask:
        raise ValueError(f"{name} needs the mask: list semconv.indicators.Mask among the indicators")
