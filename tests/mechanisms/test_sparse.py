"""The sparse mechanism against a loop over sites, and the sparse network against dense maps that are masked after every layer."""

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.controls import Constant, Fixed, Noise, Only, Shuffled, Zero, set_control
from semconv.convolution import SemanticConv2d
from semconv.corruption import View
from semconv.encoders import Geometry, SemanticCNN, initialise
from semconv.indicators import Coordinates, Mask
from semconv.mechanisms import Sparse
from tests.oracles import SIZE, assert_same, build, convolve, draw, draw_mask, draw_view, gradients, mask_map, pad
from tests.pairwise import together

GEOMETRY = Geometry(3, (16, 32), 4)


def network(dtype: torch.dtype = torch.float64, geometry: Geometry = GEOMETRY, **arguments: Any) -> SemanticCNN:
    encoder = SemanticCNN(geometry, "test", [Mask()], Sparse, mlp_ratio=1, **arguments)
    initialise(encoder, 0)
    for name, parameter in encoder.named_parameters():
        if "norm" in name or "grn" in name or "after" in name or "before" in name or name.endswith("bias"):
            nn.init.uniform_(parameter, 0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    return encoder.to(dtype)


def seen(count: int = 24, batch: int = 3, grid: tuple[int, int] = (4, 8), dtype: torch.dtype = torch.float64) -> View:
    pixels = draw(batch, 3, 4 * grid[0], 4 * grid[1]).to(dtype)
    return View(pixels, draw_mask(batch, grid, count), count)


@together("mode", ["zeros", "circular"])
@together("kernel, stride, groups", [(3, 1, 1), (7, 1, 4), (3, 2, 1), (5, 2, 4), (1, 1, 1)])
def test_a_convolution_reads_and_answers_at_visible_sites_alone(kernel, stride, groups, mode):
    view = draw_view((8, 16))
    module, indicators = build(Sparse, [Mask()], kernel, stride, groups, mode)
    x = torch.where(mask_map(view.mask, 8, 16) == 0, view.pixels, 0)
    y = convolve(pad(x, kernel // 2, mode), module.convolution.weight, module.convolution.bias, stride, groups)
    expected = torch.where(mask_map(view.mask, *y.shape[2:]) == 0, y, 0)
    dirty = torch.where(mask_map(view.mask, 8, 16) == 0, view.pixels, math.nan)
    assert_same(module(dirty, indicators(view)), expected)


def test_where_nothing_is_masked_a_convolution_is_plain_to_the_bit():
    view = draw_view(count=0)
    module, indicators = build(Sparse, [Mask()])
    assert torch.equal(module(view.pixels, indicators(view)), module.convolution(view.pixels))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "Sparse has no indicators"),
        ([Coordinates()], r"Sparse needs the mask: list semconv\.indicators\.Mask"),
        (None, "Coordinates would have no effect"),
    ],
)
def test_what_it_cannot_tell_is_refused_in_one_line(parts, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(Sparse, parts)
    assert "\n" not in str(caught.value)


def test_sites_masked_in_part_are_refused_in_one_line():
    view = draw_view()
    module, indicators = build(Sparse, [Mask()], stride=2)
    with pytest.raises(ValueError, match="need a cell that is a multiple of the stride"):
        module(view.pixels[..., : SIZE[1] // 2], indicators(view))


class Dense:
    """A sparse network on whole maps, each of which is masked, and the statistics of which are taken of visible sites."""

    def __init__(self, encoder: SemanticCNN, view: View) -> None:
        self.encoder, self.view, self.mode = encoder, view, GEOMETRY.padding_mode

    def hide(self, x: Tensor) -> Tensor:
        return torch.where(self.visible(x), x, 0)

    def visible(self, x: Tensor) -> Tensor:
        return mask_map(self.view.mask, x.shape[2], x.shape[3]) == 0

    def convolve(self, layer: SemanticConv2d, x: Tensor) -> Tensor:
        plain = layer.convolution
        padded = pad(self.hide(x), plain.kernel_size[0] // 2, plain.padding_mode)
        return self.hide(F.conv2d(padded, plain.weight, plain.bias, plain.stride, groups=plain.groups))

    def norm(self, layer: Any, x: Tensor) -> Tensor:
        if isinstance(layer, nn.Identity):
            return x
        visible = self.visible(x).to(x.dtype)
        dims: tuple[int, ...] = (2,)  # of b group channel h w
        groups = 1
        if isinstance(layer, nn.BatchNorm2d):
            dims, groups = (0, 2, 3, 4), len(layer.weight)
        elif isinstance(layer, nn.GroupNorm):
            dims, groups = (2, 3, 4), layer.num_groups
        parts = x.unflatten(1, (groups, -1))
        counted = visible[:, :, None].expand_as(parts)
        number = counted.sum(dims, keepdim=True).clamp(min=1)
        mean = (parts * counted).sum(dims, keepdim=True) / number
        variance = ((parts - mean).square() * counted).sum(dims, keepdim=True) / number
        scaled = ((parts - mean) / (variance + layer.eps).sqrt()).flatten(1, 2)
        return self.hide(scaled * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1))

    def perceptron(self, layer: Any, x: Tensor) -> Tensor:
        inner = torch.einsum("oc,bchw->bohw", layer.fc1.weight[:, :, 0, 0], x) + layer.fc1.bias.view(-1, 1, 1)
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        if hasattr(layer, "grn"):
            length = self.hide(inner).square().sum((2, 3), keepdim=True).sqrt()
            scaled = inner * length / (length.mean(1, keepdim=True) + layer.grn.eps)
            inner = inner + layer.grn.weight.view(-1, 1, 1) * scaled + layer.grn.bias.view(-1, 1, 1)
        return self.hide(torch.einsum("oc,bchw->bohw", layer.fc2.weight[:, :, 0, 0], inner) + layer.fc2.bias.view(-1, 1, 1))

    def stages(self, pixels: Tensor) -> list[Tensor]:
        encoder: Any = self.encoder
        maps = [self.norm(encoder.stem.after, self.convolve(encoder.stem.convolution, pixels))]
        for stage in encoder.stages:
            x = maps[-1]
            for layer in stage:
                if hasattr(layer, "mlp"):
                    x = x + self.perceptron(layer.mlp, self.norm(layer.norm, self.convolve(layer.convolution, x)))
                else:
                    x = self.norm(layer.after, self.convolve(layer.convolution, self.norm(layer.before, x)))
            maps.append(x)
        return [*maps[:-1], self.norm(encoder.norm, maps[-1])]


@pytest.mark.parametrize(
    ("norm", "mode", "count", "response_norm"),
    [
        ("layer", "zeros", 24, False),
        ("batch", "zeros", 24, False),
        ("group", "zeros", 24, True),
        ("layer", "circular", 24, True),
        ("group", "zeros", 31, False),
    ],
)
def test_a_sparse_network_is_its_dense_emulation(norm, mode, count, response_norm):
    encoder, view = network(norm=norm, geometry=Geometry(3, (16, 32), 4, mode), response_norm=response_norm), seen(count)
    pixels = view.pixels.requires_grad_()
    ours = [stage.features for stage in encoder.train().encode_stages(view)]
    dense = Dense(encoder, view).stages(pixels)
    assert len(ours) == len(dense) == 5
    for one, other in zip(ours, dense, strict=True):
        # sums of another order, through layers that divide by deviations
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)
    inputs = [pixels, *encoder.parameters()]
    found, expected = (torch.autograd.grad(maps[-1].sin().sum(), inputs) for maps in (ours, dense))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_response_norm_starts_as_none():
    plain, normalised = (
        SemanticCNN(GEOMETRY, "test", [Mask()], Sparse, mlp_ratio=1, response_norm=response_norm) for response_norm in (False, True)
    )
    for encoder in (plain, normalised):
        initialise(encoder, 0)
    assert normalised.state_dict().keys() > plain.state_dict().keys()
    view = seen(dtype=torch.float32)
    assert torch.equal(plain(view).features, normalised(view).features)


def test_batch_norm_keeps_the_statistics_of_visible_sites():
    encoder, view = network(norm="batch"), seen()
    hidden = Dense(encoder, view)
    stem = cast(SemanticConv2d, encoder.stem.convolution)
    values = hidden.convolve(stem, view.pixels).movedim(1, 3)[hidden.visible(torch.zeros(1, 1, 8, 16))[:, 0]]
    encoder.train()(view)
    norm: Any = encoder.stem.after
    assert_same(norm.running_mean, 0.1 * values.mean(0).detach())
    assert_same(norm.running_var, 0.9 + 0.1 * values.var(0).detach())


@pytest.mark.parametrize("norm", ["layer", "batch", "group"])
def test_where_nothing_is_masked_a_network_is_plain_to_the_bit(norm):
    view, sparse = seen(0), network(norm=norm).train()
    plain = SemanticCNN(GEOMETRY, "test", mlp_ratio=1, norm=norm).double().train()
    plain.load_state_dict(sparse.state_dict())
    ours, theirs = sparse.encode_stages(view), plain.encode_stages(view)
    assert all(torch.equal(one.features, other.features) for one, other in zip(ours, theirs, strict=True))
    assert all(stage.valid is None for stage in ours)
    assert sparse.drops_masked
    assert not plain.drops_masked


@pytest.mark.parametrize("norm", ["layer", "batch", "group"])
@pytest.mark.parametrize("training", [True, False])
def test_hidden_content_leaves_no_trace_and_features_stand_at_visible_sites(norm, training):
    encoder, view = network(norm=norm).train(training), seen()
    hidden = mask_map(view.mask, 16, 32) == 1
    clean, dirty = (
        encoder.encode_stages(view._replace(pixels=view.pixels.masked_fill(hidden, value))) for value in (0.0, math.nan)
    )
    for stage, one, other in zip(range(5), clean, dirty, strict=True):
        visible = mask_map(view.mask, *one.features.shape[2:])[:, 0] == 0
        assert torch.equal(one.features, other.features), stage
        assert one.valid is not None
        assert torch.equal(one.valid, visible)
        assert (one.features.movedim(1, 3)[~visible] == 0).all()
        assert (one.features.movedim(1, 3)[visible] != 0).all()


@pytest.mark.parametrize("norm", ["layer", "batch", "group"])
def test_one_visible_cell_is_enough(norm):
    encoder, view = network(torch.float32, norm=norm).train(), seen(31, dtype=torch.float32)
    features = encoder(view).features
    features.square().sum().backward()
    assert features.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(encoder))


def test_each_image_is_encoded_as_if_it_were_alone():
    encoder, view = network(norm="batch").eval(), seen()
    alone = [encoder(View(view.pixels[i : i + 1], view.mask[i : i + 1], view.num_masked)).features for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), encoder(view).features, rtol=1e-10, atol=1e-10)


def test_autocast_gives_bfloat16_near_the_full_answer():
    encoder, view = network(torch.float32), seen(dtype=torch.float32)
    expected = encoder(view).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder(view).features
        found.float().square().sum().backward()
    # features are normalised to order 1; bfloat16 has 8 bits, through 14 layers
    assert (found.float() - expected).abs().max() < 0.2
    assert all(gradient.isfinite().all() and gradient.dtype == torch.float32 for gradient in gradients(encoder))


def test_drop_path_drops_whole_branches_of_an_image():
    """At a rate of 1 nothing but the strided convolutions and norms is left."""
    view, encoder = seen(), network()
    expected = network()
    block: Any
    for block in encoder.modules():
        if hasattr(block, "drop_path"):
            block.drop_path.drop_prob, block.drop_path.scale_by_keep = 1.0, False
    for block in expected.modules():
        if hasattr(block, "mlp"):
            nn.init.zeros_(block.mlp.fc2.weight)
            nn.init.zeros_(block.mlp.fc2.bias)
    assert torch.equal(encoder.train()(view).features, expected(view).features)


@pytest.mark.parametrize("depth", ["stem", "stages", [3]], ids=str)
def test_told_to_some_convolutions_it_masks_again_at_these(depth):
    encoder, view = network(depth=depth), seen()
    told = [module for module in encoder.modules() if isinstance(module, SemanticConv2d) and isinstance(module.mechanism, Sparse)]
    answers = []
    for module in told:
        module.register_forward_hook(lambda module, inputs, y: answers.append(y))
    encoding = encoder(view)
    assert not encoder.drops_masked
    assert encoding.valid is None
    assert len(answers) == {"stem": 1, "stages": 5}.get(str(depth), 1)
    for y in answers:
        hidden = mask_map(view.mask, *y.shape[2:])[:, 0] == 1
        assert (y.movedim(1, 3)[hidden] == 0).all()
    assert (encoding.features != 0).all()


def controlled(control: Any, view: View) -> tuple[SemanticCNN, Tensor, Tensor | None]:
    encoder = network()
    set_control(encoder, control)
    encoding = encoder(view)
    return encoder, encoding.features, encoding.valid


def test_a_zero_control_is_plain():
    view = seen()
    encoder, features, valid = controlled(Zero(), view)
    plain = SemanticCNN(GEOMETRY, "test", mlp_ratio=1).double()
    plain.load_state_dict(encoder.state_dict())
    assert torch.equal(features, plain(view).features)
    assert valid is None


def test_a_constant_control_sees_nothing_and_trains_nothing():
    encoder, features, valid = controlled(Constant(), seen())
    assert not features.any()
    assert valid is not None
    assert not valid.any()
    features.sum().backward()
    assert all(not gradient.any() for gradient in gradients(encoder))


@pytest.mark.parametrize("control", [Fixed(), Shuffled(), Noise()], ids=lambda control: type(control).__name__)
def test_other_controls_see_as_many_sites_and_others(control):
    view = seen()
    _, features, valid = controlled(control, view)
    assert valid is not None
    assert (valid.sum((1, 2)) == 8).all()
    assert not torch.equal(valid, ~view.mask)
    assert features.isfinite().all()
    if isinstance(control, Shuffled):
        assert torch.equal(valid, ~view.mask.roll(1, 0))


def test_importance_puts_a_control_in_the_place_of_the_mask():
    view, encoder = seen(), network()
    (mask,) = encoder.indicators
    encoder.indicators.control = Only(mask, Zero())
    assert encoder(view).valid is None
    encoder.indicators.control = Only(Coordinates(), Zero())
    assert torch.equal(encoder(view).valid, ~view.mask)


@pytest.mark.slow
def test_a_network_compiles_without_a_graph_break():
    encoder, view = network(torch.float32), seen(dtype=torch.float32)
    compiled = torch.compile(encoder, fullgraph=True)
    ours, theirs = compiled(view).features, encoder(view).features
    # fused sums round otherwise
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    parameters = list(encoder.parameters())
    for one, other in zip(*(torch.autograd.grad(y.sin().sum(), parameters) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
