"""Slow definitions in explicit loops, float64, against which the tests hold the library."""

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.convolution import Mechanism, MechanismFactory, SemanticConv2d
from semconv.corruption import View
from semconv.indicators import Coordinates, Indicator, Indicators, Mask, PaddingMode, Signals
from tests.pairwise import pairwise, together

BATCH, CHANNELS, SIZE, GRID = 3, 4, (4, 8), (4, 4)  # sides are powers of two: coordinates and fractions are exact in float32
MODES = get_args(PaddingMode)


def is_padded(kernel: int, stride: int, groups: int, mode: PaddingMode) -> bool:
    """Whether a kernel reaches beyond the border, so that modes differ; of kernels of one pixel the mode is zeros."""
    return kernel > 1 or mode == "zeros"


every_geometry = together(
    "kernel, stride, groups, mode", pairwise((1, 3, 5, 7), (1, 2, 4), (1, CHANNELS), MODES, allowed=is_padded)
)


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=make_generator(seed), dtype=torch.float64)


def draw_mask(batch: int, grid: tuple[int, int], count: int, seed: int = 0) -> Tensor:
    """`count` random cells of each image."""
    n = grid[0] * grid[1]
    order = torch.stack([torch.randperm(n, generator=make_generator(seed + i)) for i in range(batch)])
    return (order < count).view(batch, *grid)


def draw_view(size: tuple[int, int] = SIZE, grid: tuple[int, int] = GRID, count: int = 9) -> View:
    """A view that carries pixels of random content everywhere."""
    return View(draw(BATCH, CHANNELS, *size), draw_mask(BATCH, grid, count), count)


def build(
    mechanism: MechanismFactory,
    parts: Sequence[Indicator] | None = None,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    mode: PaddingMode = "zeros",
    told: bool = True,
) -> tuple[SemanticConv2d, Indicators]:
    """A convolution of `CHANNELS` to `CHANNELS` in float64, with random indicator weights where `told`."""
    indicators = Indicators([Coordinates(), Mask()] if parts is None else parts)
    torch.manual_seed(1)
    module = SemanticConv2d(
        CHANNELS, CHANNELS, kernel, stride=stride, groups=groups, padding_mode=mode, indicators=indicators, mechanism=mechanism
    ).double()
    if told:
        randomise(module.mechanism)
    return module, indicators


def learned(module: SemanticConv2d, name: str) -> Tensor:
    """A weight of the mechanism; of a kernel of signals its share of the mean over the window."""
    weight = module.get_parameter(f"mechanism.{name}").detach()
    return weight / weight[0, 0].numel() if name == "from_signals.weight" else weight


def randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter)


def signals_of(view: View, *parts: Indicator) -> Signals:
    return Indicators(parts)(view)


def source(position: int, length: int, mode: PaddingMode) -> int | None:
    """Which element a position beyond the border repeats; None: none, it is zero."""
    if 0 <= position < length:
        return position
    if mode == "circular":
        return position % length
    if mode == "replicate":
        return min(max(position, 0), length - 1)
    return None if mode == "zeros" else abs(position) if position < 0 else 2 * (length - 1) - position


def pad(x: Tensor, amount: int, mode: PaddingMode) -> Tensor:
    """Continue a map by `amount` elements on every side."""
    for dim in (2, 3):
        positions = [source(i - amount, x.shape[dim], mode) for i in range(x.shape[dim] + 2 * amount)]
        nothing = torch.zeros_like(x.select(dim, 0))
        x = torch.stack([nothing if i is None else x.select(dim, i) for i in positions], dim)
    return x


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, groups: int = 1) -> Tensor:
    """Sum over kernel offsets and channels at every output site of an already padded map."""
    kernel = weight.shape[2]
    height, width = ((side - kernel) // stride + 1 for side in x.shape[2:])
    out = x.new_zeros(len(x), len(weight), height, width)
    inputs, outputs = x.tensor_split(groups, 1), out.tensor_split(groups, 1)
    for source_maps, target_maps, kernels in zip(inputs, outputs, weight.detach().tensor_split(groups), strict=True):
        for i in range(height):
            for j in range(width):
                window = source_maps[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
                target_maps[:, :, i, j] = window.flatten(1) @ kernels.flatten(1).T
    return out if bias is None else out + bias.detach().view(1, -1, 1, 1)


def mask_map(mask: Tensor, height: int, width: int) -> Tensor:
    """The masked share of each site, counted on a grid of pixels fine enough for sites and cells: float64 `b 1 h w`."""
    rows, columns = mask.shape[1:]
    # a cell is height x width of these pixels, a site rows x columns
    pixels = mask.double().repeat_interleave(height, 1).repeat_interleave(width, 2)
    out = torch.zeros(len(mask), 1, height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            out[:, 0, i, j] = pixels[:, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].mean((1, 2))
    return out


def coordinate_map(height: int, width: int, amount: int = 0) -> Tensor:
    """x and y of each site's centre, sites of the padding among them: float64 `1 2 h w`."""
    rows, columns = range(-amount, height + amount), range(-amount, width + amount)
    x = [[(j + 0.5) / width * 2 - 1 for j in columns] for _ in rows]
    y = [[(i + 0.5) / height * 2 - 1 for _ in columns] for i in rows]
    return torch.tensor([[x, y]], dtype=torch.float64)


def signal_map(mask: Tensor, height: int, width: int, amount: int = 0, mode: PaddingMode = "zeros") -> Tensor:
    """Mask, x and y as the indicators order them, on a padded grid: float64 `b 3 h w`."""
    masked = pad(mask_map(mask, height, width), amount, mode)
    return torch.cat([masked, coordinate_map(height, width, amount).expand(len(mask), -1, -1, -1)], 1)


def assert_same(ours: Tensor, oracle: Tensor) -> None:
    """Equal but for the order of a float64 sum."""
    torch.testing.assert_close(ours, oracle.expand_as(ours), rtol=1e-10, atol=1e-10)


def gradients(module: nn.Module) -> list[Tensor]:
    """The gradient of every parameter, each of which must have one."""
    found = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert [name for name, gradient in found.items() if gradient is None] == []
    return [gradient for gradient in found.values() if gradient is not None]


class Mean(Mechanism):
    """A mechanism without a use for a kernel: the mean of the window. It remembers the depths that were set."""

    needs_kernel = False

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators) -> None:
        super().__init__()
        self.depths: list[float] = []
        self.scale = nn.Parameter(torch.ones(convolution.out_channels, 1, 1))

    def set_depth(self, depth: float, convolution: nn.Conv2d, indicators: Indicators) -> None:
        self.depths.append(depth)

    def forward(self, convolution: nn.Conv2d, x: Tensor, signals: Signals) -> Tensor:
        padding: Any = convolution.padding
        return self.scale * F.avg_pool2d(x.mean(1, keepdim=True), convolution.kernel_size, convolution.stride, padding)
