"""Partial convolutions against loops over every tap of every window."""

import functools
import itertools
import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semconv.controls import Constant, set_control
from semconv.convolution import MechanismFactory, SemanticConv2d
from semconv.corruption import View
from semconv.encoders import Geometry, SemanticCNN
from semconv.indicators import Coordinates, Indicators, Mask
from semconv.mechanisms import Partial
from semconv.mechanisms.partial import Border, Update, _Visible
from tests.experiments import encoder_factory
from tests.oracles import (
    BATCH,
    CHANNELS,
    MODES,
    SIZE,
    assert_same,
    build,
    coordinate_map,
    draw,
    draw_mask,
    draw_view,
    every_geometry,
    learned,
    mask_map,
    randomise,
    source,
)
from tests.pairwise import pairwise, together

POWERS = (0, 0.5, 1)

every_border = pytest.mark.parametrize("border", get_args(Border))
every_power = pytest.mark.parametrize("power", POWERS)
every_update = pytest.mark.parametrize("update", get_args(Update))


def partial(power: float = 1.0, border: Border = "valid", update: Update = "none") -> MechanismFactory:
    return functools.partial(Partial, power=power, border=border, update=update)


def read(i: int, j: int, size: tuple[int, int], mode: Any, border: str) -> tuple[int, int] | bool:
    """Which site a tap reads; where it reads none, whether what it finds counts as visible."""
    if border == "invalid" and not (0 <= i < size[0] and 0 <= j < size[1]):
        return False
    row, column = source(i, size[0], mode), source(j, size[1], mode)
    return True if row is None or column is None else (row, column)


def slow(
    convolution: nn.Conv2d, x: Tensor, visible: Tensor, power: float = 1.0, border: str = "valid", told: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The answer and how many sites each window sees, one number at a time.

    `told` is what is added to the bias at each output site, `1 c h w`.
    """
    (kh, kw), (sh, sw), (dh, dw) = convolution.kernel_size, convolution.stride, convolution.dilation
    assert isinstance(convolution.padding, tuple)
    ph, pw = convolution.padding
    weight, groups = convolution.weight.detach().numpy(), convolution.groups
    pixels, shares = x.detach().numpy(), visible[:, 0].numpy()
    height = (x.shape[2] + 2 * ph - (kh - 1) * dh - 1) // sh + 1
    width = (x.shape[3] + 2 * pw - (kw - 1) * dw - 1) // sw + 1
    out, count = np.zeros((len(x), len(weight), height, width)), np.zeros((len(x), 1, height, width))
    inputs, outputs = x.shape[1] // groups, len(weight) // groups
    for b, i, j in itertools.product(range(len(x)), range(height), range(width)):
        for di, dj in itertools.product(range(kh), range(kw)):
            place = read(i * sh + di * dh - ph, j * sw + dj * dw - pw, (x.shape[2], x.shape[3]), convolution.padding_mode, border)
            if isinstance(place, bool):
                count[b, 0, i, j] += place
                continue
            share = shares[b, place[0], place[1]]
            if share == 0:
                continue
            count[b, 0, i, j] += share
            for group in range(groups):
                o, c = slice(group * outputs, (group + 1) * outputs), slice(group * inputs, (group + 1) * inputs)
                out[b, o, i, j] += weight[o, :, di, dj] @ (share * pixels[b, c, place[0], place[1]])
        n = count[b, 0, i, j]
        if n == 0:
            out[b, :, i, j] = 0
            continue
        out[b, :, i, j] *= (kh * kw / n) ** power
        if convolution.bias is not None:
            out[b, :, i, j] += convolution.bias.detach().numpy()
        if told is not None:
            out[b, :, i, j] += told[0, :, i, j].numpy()
    return torch.from_numpy(out), torch.from_numpy(count)


def visible_map(view: View, height: int, width: int) -> Tensor:
    return 1 - mask_map(view.mask, height, width)


@every_geometry
def test_visible_sites_alone_are_read_and_made_up_for(kernel, stride, groups, mode):
    view = draw_view(count=13)
    borders: dict[Border, float] = {"valid": 1, "invalid": 0.5}
    for border, power in borders.items():
        module, indicators = build(partial(power, border), [Mask()], kernel, stride, groups, mode)
        expected, _ = slow(module.convolution, view.pixels, visible_map(view, *SIZE), power, border)
        assert_same(module(view.pixels, indicators(view)), expected)


@together("mode, power, border", pairwise(MODES, POWERS, get_args(Border)))
def test_powers_and_borders(mode, power, border):
    view = draw_view(count=14)
    module, indicators = build(partial(power, border), [Mask()], mode=mode)
    expected, count = slow(module.convolution, view.pixels, visible_map(view, *SIZE), power, border)
    assert (count == 0).any()
    assert_same(module(view.pixels, indicators(view)), expected)


OPTIONS: list[dict[str, Any]] = [
    {"kernel_size": (3, 5), "padding": (1, 2)},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": (1, 3), "padding": (0, 3), "dilation": (1, 3), "stride": (2, 1)},
    {"kernel_size": 4, "padding": 1, "stride": 3},
    {"kernel_size": 3, "padding": 1, "groups": 2, "bias": False},
    {"kernel_size": 2, "padding": 0, "stride": 2},
]


@together("options, mode, border", pairwise(OPTIONS, MODES, get_args(Border)))
def test_any_convolution_can_be_partial(options, mode, border):
    view, indicators = draw_view((8, 8), count=13), Indicators([Mask()])
    convolution = nn.Conv2d(CHANNELS, 6, padding_mode=mode, **options).double()
    mechanism = partial(1, border)(convolution, indicators)
    expected, _ = slow(convolution, view.pixels, visible_map(view, 8, 8), 1, border)
    assert_same(mechanism(convolution, view.pixels, indicators(view)), expected)


@every_border
@every_power
def test_a_site_that_is_masked_in_part_counts_in_part(power, border):
    view = View(draw(BATCH, CHANNELS, 4, 8), draw_mask(BATCH, (16, 16), 200), 200)
    module, indicators = build(partial(power, border), [Mask()])
    visible = visible_map(view, 4, 8)
    assert ((visible > 0) & (visible < 1)).any()
    expected, _ = slow(module.convolution, view.pixels, visible, power, border)
    assert_same(module(view.pixels, indicators(view)), expected)


@every_border
def test_position_is_told_beside_the_bias_where_something_is_visible(border):
    view = draw_view(count=14)
    module, indicators = build(partial(1, border), None)
    told = torch.einsum("bkhw,ok->bohw", coordinate_map(*SIZE), learned(module, "from_signals.weight")[:, :, 0, 0])
    expected, _ = slow(module.convolution, view.pixels, visible_map(view, *SIZE), 1, border, told)
    assert_same(module(view.pixels, indicators(view)), expected)


class Several(nn.Module):
    """Partial convolutions, the last two at half resolution, with activations and skips between them."""

    def __init__(self, mechanism: MechanismFactory) -> None:
        super().__init__()
        self.indicators = Indicators([Mask()])
        make = functools.partial(SemanticConv2d, indicators=self.indicators, mechanism=mechanism)
        first = [make(CHANNELS, CHANNELS, 3), make(CHANNELS, CHANNELS, 3)]
        self.layers = nn.ModuleList([*first, make(CHANNELS, 2, 3, stride=2), make(2, 2, 3)])
        self.double()
        randomise(self)

    def forward(self, view: View) -> Tensor:
        signals, x = self.indicators(view), view.pixels
        for layer in self.layers:
            y = layer(x, signals).tanh()
            x = x + y if x.shape == y.shape else y
        return x


@every_border
@every_update
def test_what_a_layer_leaves_is_what_the_next_one_sees(update, border):
    view = draw_view((8, 16), (4, 8), count=30)
    module = Several(partial(1, border, update))
    x, visible = view.pixels, visible_map(view, 8, 16)
    for layer in module.layers:
        y, count = slow(layer.convolution, x, visible, 1, border)  # type: ignore[arg-type]
        x = x + y.tanh() if x.shape == y.shape else y.tanh()
        if update == "none":
            visible = visible_map(view, y.shape[2], y.shape[3])
        else:
            visible = (count > 0).double() if update == "hard" else count / 9
    assert_same(module(view), x)


def test_where_no_told_layer_has_been_the_mask_is_seen_as_it_is():
    """At another resolution than that at which something was left."""
    view = draw_view((8, 16))
    module, indicators = build(partial(update="hard"), [Mask()])
    signals = indicators(view)
    for _ in range(2):  # at 8 x 16, until more is visible there
        module(view.pixels, signals)
    coarse = view.pixels[:, :, ::2, ::2]
    assert_same(module(coarse, signals), slow(module.convolution, coarse, visible_map(view, 4, 8))[0])


def test_a_module_keeps_nothing_between_forwards():
    view = draw_view((8, 16), count=13)
    module, indicators = build(partial(update="hard"), [Mask()])
    first, second = (module(view.pixels, indicators(view)) for _ in range(2))
    assert torch.equal(first, second)
    assert not any(isinstance(value, Tensor) for value in vars(module.mechanism).values())


@pytest.mark.parametrize(("update", "times"), [("none", 2), ("hard", 3), ("soft", 3)])
def test_layers_of_one_geometry_and_state_share_their_windows(update, times, monkeypatch):
    counted: list[Any] = []
    original = Partial._count

    def count(self: Partial, *rest: Any) -> Any:
        counted.append(rest)
        return original(self, *rest)

    monkeypatch.setattr(Partial, "_count", count)
    view = draw_view((8, 16))
    indicators = Indicators([Mask()])
    layers = [SemanticConv2d(CHANNELS, CHANNELS, k, indicators=indicators, mechanism=partial(update=update)) for k in (3, 3, 5)]
    signals, x = indicators(view), view.pixels.float()
    for layer in layers:
        x = layer(x, signals)
    assert len(counted) == times


@every_power
def test_where_a_window_is_visible_it_is_plain(power):
    view = draw_view((8, 16), count=0)
    for mode in MODES:
        module, indicators = build(partial(power), [Mask()], 5, mode=mode)
        assert_same(module(view.pixels, indicators(view)), module.convolution(view.pixels))


def test_an_invalid_border_is_made_up_for_though_nothing_is_masked():
    view = draw_view((8, 16), count=0)
    module, indicators = build(partial(border="invalid"), [Mask()])
    y, plain = module(view.pixels, indicators(view)), module.convolution(view.pixels)
    assert module.convolution.bias is not None
    bias = module.convolution.bias.detach()
    assert_same(y[:, :, 1:-1, 1:-1], plain[:, :, 1:-1, 1:-1])
    assert_same(y[:, :, 0, 0] - bias, (plain[:, :, 0, 0] - bias) * 9 / 4)


@together("mode, border, update", pairwise(MODES, get_args(Border), get_args(Update)))
def test_what_is_masked_cannot_reach_the_answer_not_even_as_nan(mode, border, update):
    view = draw_view((8, 16), (4, 8), count=24)
    hidden = mask_map(view.mask, 8, 16) == 1
    module, indicators = build(partial(1, border, update), [Mask()], mode=mode)
    answers: list[Tensor] = []
    gradients: list[Tensor] = []
    for content in (0.0, 5.0, math.nan):
        pixels = torch.where(hidden, content, view.pixels).requires_grad_()
        answers.append(module(pixels, indicators(view)))
        gradients += torch.autograd.grad(answers[-1].square().sum(), pixels)
    for y, gradient in zip(answers, gradients, strict=True):
        assert torch.equal(y, answers[0])
        assert torch.equal(gradient, gradients[0])
    assert (gradients[0][hidden.expand_as(view.pixels)] == 0).all()
    assert (gradients[0][~hidden.expand_as(view.pixels)] != 0).all()


@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_deviations_are_as_the_docstring_says(power):
    """Of inputs of mean zero a share f of which is visible: f ** .5 ** (1 - 2 p)."""
    torch.manual_seed(0)
    indicators = Indicators([Mask()])
    convolution = nn.Conv2d(8, 8, 7, bias=False)
    mask = torch.rand(4, 64 * 64).argsort(1).view(4, 64, 64) < 3072
    pixels = torch.randn(4, 8, 64, 64)
    mechanism = Partial(convolution, indicators, power)
    ratio = mechanism(convolution, pixels, indicators(View(pixels, mask, 3072))).std() / convolution(pixels).std()
    # n varies between windows of 49 sites, and the mean of 1/n is above 1/mean
    assert ratio.item() == pytest.approx(0.25 ** (0.5 - power), rel=0.07)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_update
def test_half_precision_stays_finite_when_next_to_nothing_is_visible(update, dtype):
    mask = torch.ones(1, 16, 16, dtype=torch.bool)
    mask[0, 3, 4] = False
    view = View(torch.randn(1, CHANNELS, 16, 16), mask, 255)
    indicators = Indicators([Mask()])
    for sides in (6 * [7], 2 * [11]):  # 11 x 11 sites over the least share would be beyond float16
        layers = nn.ModuleList(
            SemanticConv2d(CHANNELS, CHANNELS, side, indicators=indicators, mechanism=partial(1, "invalid", update))
            for side in sides
        ).to(dtype)
        signals, x = indicators(view), view.pixels.to(dtype)
        for layer in layers:
            x = layer(x, signals)
            assert x.isfinite().all()
            assert x.dtype == dtype


@every_power
def test_a_window_that_sees_next_to_nothing_is_empty(power):
    """A soft update may leave such shares."""
    module, indicators = build(partial(power, "invalid", "soft"), [Mask()])
    view = draw_view((8, 8))
    signals = indicators(view)
    share = torch.full((BATCH, 1, 8, 8), 2.0**-16, dtype=torch.float64)
    share[..., 4:] = 1
    signals.carried["partial", 8, 8] = _Visible(share, False, 1)
    y = module(view.pixels, signals)
    assert (y[..., :3] == 0).all()
    assert (y[..., 3:] != 0).any(1).all()


@pytest.mark.parametrize("border", get_args(Border))
def test_the_constant_control_reads_nothing(border):
    """All is masked: what is left is bias where a window reaches a border that counts as valid."""
    view = draw_view((8, 16))
    module, indicators = build(partial(1, border, "none"), [Mask()])
    indicators.control = Constant()
    y = module(view.pixels, indicators(view))
    assert module.convolution.bias is not None
    assert (y[:, :, 1:-1, 1:-1] == 0).all()
    edge = module.convolution.bias.detach() if border == "valid" else torch.zeros(CHANNELS, dtype=torch.float64)
    assert torch.equal(y[:, :, 0, 0], edge.expand(BATCH, -1))


@every_update
@every_border
def test_a_network_of_constant_controls_stays_finite(border, update):
    encoder = SemanticCNN(Geometry(3, (32, 32), 4), "test", [Mask(), Coordinates()], partial(1, border, update), "all", mlp_ratio=2)
    set_control(encoder, Constant())
    view = View(torch.randn(2, 3, 32, 32), draw_mask(2, (8, 8), 48), 48)
    features = encoder(view).features
    features.square().sum().backward()
    assert features.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    other = encoder(view._replace(pixels=torch.randn(2, 3, 32, 32))).features
    assert torch.equal(features, other)


def published(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Equations 1 and 2 of Liu et al. (2018), window by window: M is as large as X, and padded by zeros as X is.

    Args:
        x: one image, `c h w`.
        mask: of the same shape, 1 where valid.
        weight: `o c k k`.
        bias: `o`.
        stride: of the windows.
    """
    k = weight.shape[2]
    x, mask = (nn.functional.pad(each, (k // 2,) * 4) for each in (x, mask))
    height, width = ((side - k) // stride + 1 for side in x.shape[1:])
    out, updated = torch.zeros(len(weight), height, width).double(), torch.zeros(len(weight), height, width).double()
    for o, i, j in itertools.product(range(len(weight)), range(height), range(width)):
        window = slice(None), slice(i * stride, i * stride + k), slice(j * stride, j * stride + k)
        valid = mask[window].sum()
        if valid > 0:
            out[o, i, j] = (weight[o] * x[window] * mask[window]).sum() * mask[window].numel() / valid + bias[o]
            updated[o, i, j] = 1
    return out, updated


def test_the_published_variant_is_the_paper_s_equations_layer_by_layer():
    mechanism = encoder_factory("cnn_partial_published").keywords["mechanism"]
    indicators, view = Indicators([Mask()]), draw_view((8, 16), (4, 8), count=30)
    layers = nn.ModuleList(
        SemanticConv2d(CHANNELS, CHANNELS, kernel, stride=stride, indicators=indicators, mechanism=mechanism)
        for kernel, stride in ((5, 1), (3, 2), (3, 1))
    ).double()
    randomise(layers)
    signals, x = indicators(view), view.pixels
    for layer in layers:
        x = layer(x, signals)
    for b in range(BATCH):
        y = view.pixels[b]
        mask = visible_map(view, 8, 16)[b].expand_as(y)
        convolutions: list[Any] = [layer.convolution for layer in layers]
        for convolution in convolutions:
            y, mask = published(y, mask, convolution.weight.detach(), convolution.bias.detach(), convolution.stride[0])
        assert_same(x[b], y)


@pytest.mark.parametrize("power", [2, -1, 0.25])
def test_another_power_is_refused_in_one_line(power):
    with pytest.raises(ValueError, match=r"it must be 0, 0\.5 or 1") as caught:
        build(partial(power))
    assert "\n" not in str(caught.value)


def test_other_words_are_refused():
    wrong: list[dict[str, Any]] = [{"border": "open"}, {"update": "slow"}]
    for options in wrong:
        with pytest.raises(ValueError, match=r"(border|update) is '\w+': choose among"):
            Partial(torch.nn.Conv2d(4, 4, 3), Indicators([Mask()]), **options)


def test_without_a_mask_there_is_nothing_to_leave_out():
    with pytest.raises(ValueError, match=r"Partial needs the mask: list semconv\.indicators\.Mask"):
        build(partial(), [Coordinates()])
