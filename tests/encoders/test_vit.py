import math
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from semconv.corruption import View
from semconv.decoders import TransformerDecoder, _init_token
from semconv.encoders import Geometry, MAEViT, Size
from semconv.encoders.vit import position_embedding
from semconv.objective import Objective
from tests.pairwise import together
from tests.peers import copy_weights, make_hugging_face, make_positions, noise_of

GEOMETRY = Geometry(3, (16, 24), 4)


def draw_view(geometry: Geometry, num_masked: int, batch: int = 2) -> View:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(batch, geometry.channels, *geometry.size, generator=generator)
    rows, columns = geometry.grid
    ranks = torch.rand(batch, rows * columns, generator=generator).argsort(1).argsort(1)
    return View(pixels, (ranks < num_masked).view(batch, rows, columns), num_masked)


def hide(view: View, value: float) -> View:
    """The view with a value at every masked pixel."""
    cell = view.pixels.shape[2] // view.mask.shape[1]
    hidden = view.mask.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, None]
    return view._replace(pixels=view.pixels.masked_fill(hidden, value))


def assert_parity(geometry: Geometry, size: Size, normalise: bool) -> None:
    view = draw_view(geometry, num_masked=round(0.75 * geometry.grid[0] * geometry.grid[1]))
    theirs = make_hugging_face(geometry, size, view.num_masked, normalise)
    encoder = MAEViT(geometry, size).eval()
    decoder = TransformerDecoder(geometry, size, encoder).eval()
    copy_weights(theirs, encoder, decoder)
    with torch.no_grad():
        prediction = decoder(encoder(view), view.mask)
        encoded = theirs.vit(view.pixels, noise=noise_of(view.mask))
        tokens = theirs.decoder(encoded.last_hidden_state, encoded.ids_restore).logits
        assert torch.equal(encoded.mask.bool(), view.mask.flatten(1))
        # float32 through twelve blocks, on predictions of order 1
        torch.testing.assert_close(prediction, theirs.unpatchify(tokens, geometry.size), rtol=0, atol=1e-5)
        if geometry.grid[0] == geometry.grid[1]:  # their loss is of square images alone
            loss = Objective(geometry.cell, normalise)(prediction, view.pixels, view.mask)
            theirs_loss = theirs(view.pixels, noise=noise_of(view.mask)).loss
            torch.testing.assert_close(loss, theirs_loss, rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("size", "side", "patch"), [("test", 32, 4), ("tiny", 96, 8)])
def test_prediction_and_loss_equal_hugging_faces(size: Size, side: int, patch: int, normalise: bool) -> None:
    assert_parity(Geometry(3, (side, side), patch), size, normalise)


@pytest.mark.parametrize("image", [(16, 64), (64, 16)])
def test_prediction_for_images_that_are_not_square_equals_hugging_faces(image: tuple[int, int]) -> None:
    # 2 x 8 patches: they can build a grid that is not square only where its number of patches is
    assert_parity(Geometry(3, image, 8), "test", normalise=True)


@pytest.mark.slow
def test_prediction_and_loss_of_the_published_base_size_equal_hugging_faces() -> None:
    assert_parity(Geometry(3, (224, 224), 16), "base", normalise=True)


@together("grid", [(8, 8), (3, 5), (7, 2)])
@together("width", [64, 192, 512])
def test_positions_equal_hugging_faces(grid: tuple[int, int], width: int) -> None:
    assert torch.equal(position_embedding(width, grid, num_prefix_tokens=1), make_positions(grid, width))


def test_parameter_counts_of_base_are_the_published() -> None:
    with torch.device("meta"):
        encoder = MAEViT(Geometry(3, (224, 224), 16), "base")
        decoder = TransformerDecoder(Geometry(3, (224, 224), 16), "base", encoder)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 85_798_656
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 26_109_184
    assert sum(parameter.numel() for parameter in parameters) == 111_907_840
    assert sum(parameter.numel() for parameter in parameters if parameter.requires_grad) == 111_655_680


@pytest.fixture(scope="module")
def base() -> MAEViT:
    return MAEViT(Geometry(3, (64, 64), 16), "base")


def assert_uniform(weight: Tensor, bound: float) -> None:
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.999 * bound
    # deviation of a uniform: bound / sqrt(3), known to .3 % from 100,000 values and more
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_patches_are_projected_by_weights_drawn_as_a_linear_layers(base: MAEViT) -> None:
    assert_uniform(base.patch_embed.proj.weight, 0.0625)  # sqrt(6 / (768 + 3 * 16 * 16)), not a convolution's .0055
    bias = base.patch_embed.proj.bias
    assert bias is not None
    assert 0.99 / math.sqrt(768) < bias.abs().max() <= 1 / math.sqrt(768)  # PyTorch's default


def test_linear_layers_are_xavier_with_q_k_and_v_as_one(base: MAEViT) -> None:
    shapes = {"attn.qkv": (768, 3 * 768), "attn.proj": (768, 768), "mlp.fc1": (768, 3072), "mlp.fc2": (3072, 768)}
    weights = dict(base.blocks.named_parameters())
    for i in range(12):
        for name, sides in shapes.items():
            assert_uniform(weights[f"{i}.{name}.weight"], math.sqrt(6 / sum(sides)))


def test_biases_start_at_0_and_norms_at_1(base: MAEViT) -> None:
    for name, parameter in base.named_parameters():
        if "norm" in name and name.endswith("weight"):
            assert (parameter == 1).all(), name
        elif name.endswith("bias") and name != "patch_embed.proj.bias":
            assert (parameter == 0).all(), name
    assert {module.eps for module in base.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-6}


def test_tokens_start_from_a_normal_of_deviation_002() -> None:
    encoder = MAEViT(GEOMETRY, "test", masked="token")
    token = TransformerDecoder(GEOMETRY, "test", MAEViT(GEOMETRY, "test")).token
    draws: dict[str, list[Tensor]] = {"class": [], "mask": [], "decoder": []}
    for _ in range(100):
        encoder.init_weights(encoder)
        _init_token(token)
        for kind, drawn in zip(draws, (encoder.cls_token, encoder.mask_token, token.mask_token), strict=True):
            assert drawn is not None
            draws[kind].append(drawn.detach().flatten().clone())
    for values in (torch.cat(tokens) for tokens in draws.values()):
        # standard errors at 6400 values: .00025 of the mean and .00018 of the deviation
        assert abs(values.mean().item()) < 0.001
        assert values.std().item() == pytest.approx(0.02, abs=0.0007)
        assert values.abs().max() > 0.05  # it is not cut at two deviations


@pytest.mark.parametrize("grid", [(3, 5), (5, 3), (4, 4), (1, 7)])
def test_positions_are_2d_sine_cosine_with_the_column_first(grid: tuple[int, int]) -> None:
    width = 16
    table = position_embedding(width, grid, num_prefix_tokens=1)
    assert table.shape == (1, 1 + grid[0] * grid[1], width)
    assert (table[0, 0] == 0).all()
    for row in range(grid[0]):
        for column in range(grid[1]):
            expected = []
            for place in (column, row):
                angles = [place / 10000 ** (4 * i / width) for i in range(width // 4)]
                expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            # float64 rounded to float32, once
            torch.testing.assert_close(
                table[0, 1 + row * grid[1] + column].double(), torch.tensor(expected).double(), rtol=0, atol=6e-8
            )


def test_positions_are_fixed_but_saved(base: MAEViT) -> None:
    assert not base.pos_embed.requires_grad
    assert "pos_embed" in base.state_dict()
    assert torch.equal(base.pos_embed, position_embedding(768, (4, 4), num_prefix_tokens=1))


def test_a_width_that_four_waves_do_not_share_is_refused() -> None:
    with pytest.raises(ValueError, match="divisible by 4, not 18"):
        position_embedding(18, (2, 2))


def test_dropped_patches_are_never_read() -> None:
    encoder = MAEViT(GEOMETRY, "test").eval()
    view = draw_view(GEOMETRY, 17)
    clean, dirty = (encoder(hide(view, value)) for value in (0.0, math.nan))
    assert torch.equal(clean.features, dirty.features)
    assert torch.equal(clean.prefix, dirty.prefix)


def test_gradients_reach_visible_pixels_alone() -> None:
    encoder = MAEViT(GEOMETRY, "test")
    view = draw_view(GEOMETRY, 17)
    view.pixels.requires_grad_()
    encoder(view).features.sin().sum().backward()
    assert view.pixels.grad is not None
    touched = rearrange(view.pixels.grad != 0, "b c (gh p) (gw q) -> b gh gw (c p q)", p=4, q=4)
    assert not touched[view.mask].any()
    assert touched[~view.mask].all()


def test_visible_patches_are_encoded_alone_whatever_their_order() -> None:
    encoder = MAEViT(GEOMETRY, "test").eval()
    view = draw_view(GEOMETRY, 17)
    encoding = encoder(view)
    assert encoding.valid is not None
    assert encoding.prefix is not None
    assert torch.equal(encoding.valid, ~view.mask)
    features = rearrange(encoding.features, "b d gh gw -> b (gh gw) d")
    assert (features[view.mask.flatten(1)] == 0).all()
    tokens = encoder.patch_embed(view.pixels)[0] + encoder.pos_embed[:, 1:]
    for i in range(len(tokens)):
        places = (~view.mask[i]).flatten().nonzero()[:, 0]
        places = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(i))]
        sequence = torch.cat([encoder.cls_token[0], tokens[i, places]])[None]
        expected = encoder.norm(encoder.blocks(sequence))[0]
        # attention sums in another order: a few float32 roundings of numbers of order 1
        torch.testing.assert_close(features[i, places], expected[1:], rtol=0, atol=2e-6)
        torch.testing.assert_close(encoding.prefix[i], expected[:1], rtol=0, atol=2e-6)


def test_with_nothing_masked_dropping_and_seeing_are_one() -> None:
    view = draw_view(GEOMETRY, 0)
    dropping, seeing = MAEViT(GEOMETRY, "test").eval(), MAEViT(GEOMETRY, "test", masked="see").eval()
    seeing.load_state_dict(dropping.state_dict())
    torch.testing.assert_close(dropping(view).features, seeing(view).features, rtol=0, atol=2e-6)


def test_a_token_takes_the_place_of_masked_patches() -> None:
    encoder = MAEViT(GEOMETRY, "test", masked="token").eval()
    assert encoder.mask_token is not None
    view = draw_view(GEOMETRY, 17)
    encoding = encoder(hide(view, math.nan))
    assert encoding.valid is None
    assert torch.equal(encoding.features, encoder(view).features)
    tokens, _ = encoder.patch_embed(view.pixels)
    tokens[view.mask.flatten(1)] = encoder.mask_token[0, 0]
    tokens = torch.cat([encoder.cls_token.expand(2, -1, -1), tokens + encoder.pos_embed[:, 1:]], dim=1)
    expected = rearrange(encoder.norm(encoder.blocks(tokens))[:, 1:], "b (gh gw) d -> b d gh gw", gh=4)
    torch.testing.assert_close(encoding.features, expected, rtol=0, atol=2e-6)


def test_a_network_that_sees_is_not_told_the_mask() -> None:
    encoder = MAEViT(GEOMETRY, "test", masked="see").eval()
    view = draw_view(GEOMETRY, 17)
    encoding = encoder(view)
    assert encoding.valid is None
    assert encoder.conveys == {"position"}
    assert torch.equal(encoding.features, encoder(view._replace(mask=~view.mask, num_masked=7)).features)
    assert not torch.equal(encoding.features, encoder(hide(view, 0.0)).features)


def test_patches_smaller_than_a_mask_cell_are_dropped_with_their_cell() -> None:
    geometry = Geometry(3, (16, 24), 8)
    encoder = MAEViT(geometry, "test", patch_size=4).eval()
    view = draw_view(geometry, 4)
    encoding = encoder(hide(view, math.nan))
    fine = view.mask.repeat_interleave(2, 1).repeat_interleave(2, 2)
    same = MAEViT(Geometry(3, (16, 24), 4), "test").eval()
    same.load_state_dict(encoder.state_dict())
    expected = same(View(view.pixels, fine, 16))
    assert encoder.stride == 4
    assert encoding.features.shape == (2, 64, 4, 6)
    assert torch.equal(encoding.features, expected.features)
    assert torch.equal(encoding.valid, expected.valid)


def test_patches_that_do_not_tile_a_cell_are_refused() -> None:
    with pytest.raises(ValueError, match="patches of 3 pixels do not tile mask cells of 4: change patch_size"):
        MAEViT(GEOMETRY, "test", patch_size=3)
    with pytest.raises(ValueError, match="masked is 'Drop': choose among drop, token, see"):
        MAEViT(GEOMETRY, "test", masked="Drop")  # type: ignore[arg-type]


def test_drop_path_rises_with_depth_and_acts_in_training_alone() -> None:
    encoder = MAEViT(GEOMETRY, "test", drop_path=0.3)
    rates = [getattr(block.drop_path2, "drop_prob", 0.0) for block in encoder.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    view = draw_view(GEOMETRY, 17, batch=16)
    torch.manual_seed(0)
    assert not torch.equal(encoder.train()(view).features, encoder(view).features)
    assert torch.equal(encoder.eval()(view).features, encoder(view).features)


def test_every_block_uses_fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    attend = F.scaled_dot_product_attention

    def counted(query: Tensor, *arguments: Any, **options: Any) -> Tensor:
        lengths.append(query.shape[2])
        return attend(query, *arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    encoder = MAEViT(GEOMETRY, "test")
    view = draw_view(GEOMETRY, 17)
    TransformerDecoder(GEOMETRY, "test", encoder)(encoder(view), view.mask)
    assert lengths == [1 + 7] * 4 + [1 + 24] * 2  # the encoder attends to visible patches alone


def test_bfloat16_is_close_to_float32() -> None:
    encoder = MAEViT(GEOMETRY, "test").eval()
    view = draw_view(GEOMETRY, 17)
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(view).features
    # features are normalised; bfloat16 has 8 bits
    torch.testing.assert_close(features.float(), encoder(view).features, rtol=0, atol=0.1)
