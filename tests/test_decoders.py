import functools
import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semconv.controls import Zero, set_control
from semconv.corruption import View
from semconv.decoders import ConvDecoder, Decoder, MaskedSites, PyramidDecoder, TransformerDecoder
from semconv.encoders import Encoder, Encoding, Geometry, MAEViT, SemanticCNN, initialise
from semconv.indicators import Mask
from semconv.mechanisms import Channels, Sparse
from tests.oracles import mask_map
from tests.pairwise import pairwise, together

DECODERS: list[type[Decoder]] = [TransformerDecoder, ConvDecoder, PyramidDecoder]
ENCODERS = {
    "drop": lambda geometry: MAEViT(geometry, "test"),
    "token": lambda geometry: MAEViT(geometry, "test", masked="token"),
    "see": lambda geometry: MAEViT(geometry, "test", masked="see"),
    "small patches": lambda geometry: MAEViT(geometry, "test", patch_size=geometry.cell // 2),
    "cnn": lambda geometry: SemanticCNN(geometry, "test"),
    "told cnn": lambda geometry: SemanticCNN(geometry, "test", [Mask()], Channels),
    "sparse cnn": lambda geometry: SemanticCNN(geometry, "test", [Mask()], Sparse),
}
DROPPING = ["drop", "small patches", "sparse cnn"]
STAYING = [name for name in ENCODERS if name not in DROPPING]
GEOMETRY = Geometry(3, (16, 24), 4)


def draw_view(geometry: Geometry, share: float = 0.75, seed: int = 0) -> View:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = geometry.grid
    num_masked = round(share * rows * columns)
    ranks = torch.rand(2, rows * columns, generator=generator).argsort(1).argsort(1)
    pixels = torch.randn(2, geometry.channels, *geometry.size, generator=generator)
    return View(pixels, (ranks < num_masked).view(2, rows, columns), num_masked)


@functools.cache
def make_encoder(name: str, geometry: Geometry) -> Encoder:
    encoder = ENCODERS[name](geometry)
    initialise(encoder, 0)
    return encoder.eval()


def build(name: str, decoder: Any, geometry: Geometry = GEOMETRY, told: bool = True) -> tuple[Encoder, Any]:
    encoder = make_encoder(name, geometry)
    built = decoder(geometry, "test", encoder, told=told)
    initialise(built, 0)
    return encoder, built.eval()


def tokens(decoder: Decoder) -> list[nn.Parameter | None]:
    """The learned vectors of a decoder, one for each resolution that it reads."""
    return [part.mask_token for part in decoder.modules() if isinstance(part, MaskedSites)]


def change_tokens(decoder: Decoder) -> None:
    for token in tokens(decoder):
        assert token is not None
        token.data += 1


def changed(encoding: Encoding, change: Callable[[Tensor, Any], tuple[Tensor, Tensor]]) -> Encoding:
    """An encoding with other features and valid sites at every resolution."""

    def at_one(level: Encoding) -> Encoding:
        return Encoding(*change(level.features, level.valid), level.prefix)

    return at_one(encoding)._replace(finer=tuple(map(at_one, encoding.finer)))


@pytest.mark.parametrize(("name", "decoder", "told"), pairwise(ENCODERS, DECODERS, [True, False]))
def test_every_decoder_fits_every_encoder(name: str, decoder: type[Decoder], told: bool) -> None:
    for channels, size, cell in ((3, (32, 32), 4), (1, (16, 48), 8)):
        geometry = Geometry(channels, size, cell)
        network, built = build(name, decoder, geometry, told)
        view = draw_view(geometry)
        prediction = built(network(view), view.mask)
        assert prediction.shape == (2, channels, *size)
        assert prediction.isfinite().all()
        assert (prediction.flatten(1).std(dim=1) > 0).all()


@pytest.mark.parametrize(("decoder", "mode", "side"), [(ConvDecoder, "reflect", 3), (PyramidDecoder, "reflect", 1)])
def test_maps_that_are_smaller_than_their_padding_are_refused(decoder: type[Decoder], mode: Any, side: int) -> None:
    geometry = Geometry(3, (4 * side, 4 * side), 4, mode)
    with pytest.raises(ValueError, match=f"padding_mode is reflect, and the last map has {side} x {side} sites"):
        decoder(geometry, "test", MAEViT(geometry, "test"))


@together("decoder", DECODERS)
def test_a_token_has_a_gradient_where_a_control_says_that_nothing_is_masked(decoder: type[Decoder]) -> None:
    encoder = SemanticCNN(GEOMETRY, "micro", [Mask()], Sparse, mlp_ratio=2)
    set_control(encoder, Zero())
    built, view = decoder(GEOMETRY, "test", encoder, told=False), draw_view(GEOMETRY)
    built(encoder(view), view.mask).square().sum().backward()
    assert all(token is not None and token.grad is not None for token in tokens(built))


@together("decoder", DECODERS)
@pytest.mark.parametrize("name", ENCODERS)
def test_every_pair_trains_every_weight_but_the_fixed_positions(name: str, decoder: type[Decoder]) -> None:
    network, built = build(name, decoder)
    view = draw_view(GEOMETRY)
    network.zero_grad()
    built(network(view), view.mask).square().sum().backward()
    for part in (network, built):
        assert [key for key, weight in part.named_parameters() if weight.requires_grad and weight.grad is None] == []


@together("decoder", DECODERS)
@pytest.mark.parametrize("name", ENCODERS)
def test_bfloat16_is_close_to_float32(name: str, decoder: type[Decoder]) -> None:
    network, built = build(name, decoder)
    view = draw_view(GEOMETRY)
    with torch.autocast("cpu", torch.bfloat16):
        prediction = built(network(view), view.mask)
    expected = built(network(view), view.mask)
    # 8 bits, through a few blocks
    assert (prediction.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_the_transformers_pixels_are_in_rows_columns_and_then_channels() -> None:
    geometry = Geometry(3, (8, 12), 4)
    encoder, decoder = build("drop", TransformerDecoder, geometry)
    assert isinstance(decoder, TransformerDecoder)
    patches = []
    decoder.pred.register_forward_hook(lambda module, inputs, output: patches.append(output))
    view = draw_view(geometry)
    prediction = decoder(encoder(view), view.mask)
    assert patches[0].shape == (2, 6, 48)
    for row in range(8):
        for column in range(12):
            for channel in range(3):
                place = ((row % 4) * 4 + column % 4) * 3 + channel
                assert torch.equal(prediction[:, channel, row, column], patches[0][:, (row // 4) * 3 + column // 4, place])


def test_the_convolutional_decoders_patches_stand_where_their_features_do() -> None:
    encoder, decoder = build("cnn", ConvDecoder)
    assert isinstance(decoder, ConvDecoder)
    decoder.blocks = torch.nn.Sequential()  # so that a site cannot reach its neighbours
    encoding = encoder(draw_view(GEOMETRY))
    mask = torch.zeros(2, 4, 6, dtype=torch.bool)
    before = decoder(encoding, mask)
    for row, column in ((0, 0), (1, 4), (3, 5)):
        features = encoding.features.clone()
        features[:, :, row, column] += torch.randn(features.shape[1], generator=torch.Generator().manual_seed(0))
        changed = (decoder(Encoding(features), mask) != before).any(dim=1)
        expected = torch.zeros_like(changed)
        expected[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = True
        assert torch.equal(changed, expected)


@pytest.mark.parametrize(("name", "decoder", "told"), pairwise(DROPPING, DECODERS, [True, False]))
def test_the_token_replaces_where_nothing_stands(name: str, decoder: type[Decoder], told: bool) -> None:
    encoder, built = build(name, decoder, told=told)
    view = draw_view(GEOMETRY)
    encoding = encoder(view)
    prediction = built(encoding, view.mask)
    dirty = changed(encoding, lambda features, valid: (torch.where(valid[:, None], features, math.nan), valid))
    assert torch.equal(built(dirty, view.mask), prediction)
    change_tokens(built)
    assert not torch.equal(built(encoding, view.mask), prediction)
    everywhere = changed(encoding, lambda features, valid: (features, torch.ones_like(valid)))
    untouched = built(everywhere, view.mask)
    change_tokens(built)
    # a site that is masked and stands all the same, as a control makes it, has the token added where the decoder is told
    assert torch.equal(built(everywhere, view.mask), untouched) == (not told)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", STAYING)
def test_elsewhere_the_mask_is_told_by_what_starts_at_zero(name: str, decoder: type[Decoder]) -> None:
    encoder, built = build(name, decoder)
    view = draw_view(GEOMETRY)
    encoding = encoder(view)
    prediction = built(encoding, view.mask)
    assert torch.equal(built(encoding, ~view.mask), prediction)
    assert torch.equal(build(name, decoder, told=False)[1](encoding, view.mask), prediction)
    change_tokens(built)
    assert not torch.equal(built(encoding, view.mask), prediction)
    assert torch.equal(built(encoding, torch.zeros_like(view.mask)), prediction)


@together("decoder", DECODERS)
@together("name", STAYING)
def test_a_decoder_that_is_not_told_has_no_token(name: str, decoder: type[Decoder]) -> None:
    encoder, built = build(name, decoder, told=False)
    assert all(token is None for token in tokens(built))
    view = draw_view(GEOMETRY)
    encoding = encoder(view)
    assert torch.equal(built(encoding, view.mask), built(encoding, ~view.mask))


def test_the_token_is_added_in_the_share_of_a_site_that_is_masked() -> None:
    token = MaskedSites(2, replaces=False, told=True)
    assert token.mask_token is not None
    token.mask_token.data[:] = torch.tensor([1.0, -2.0])[:, None, None]
    mask = torch.tensor([[[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1]]], dtype=torch.bool)
    x = torch.zeros(1, 2, 2, 2)
    share = torch.tensor([[0.5, 0.0], [1.0, 0.25]])
    assert torch.equal(token(x, Encoding(x), mask)[0], torch.stack([share, -2 * share]))


def test_a_pyramid_adds_every_resolution_on_the_way_to_the_pixels() -> None:
    geometry = Geometry(3, (64, 64), 16)  # features every 4, 8 and 16 pixels
    encoder = SemanticCNN(geometry, "test", [Mask()], Sparse)
    decoder = PyramidDecoder(geometry, "test", encoder).eval()
    for weights in decoder.parameters():  # at the start each resolution says a millionth of what the last block does
        torch.nn.init.normal_(weights, std=max(1, weights[0].numel()) ** -0.5)
    encoding, mask = encoder(view := draw_view(geometry)), view.mask
    assert [stride for _, stride in encoder.finer] == [8, 4]

    def pointwise(layer: Any, x: Tensor) -> Tensor:
        return torch.einsum("oc,bchw->bohw", layer.weight[:, :, 0, 0], x) + layer.bias.view(-1, 1, 1)

    x, blocks, laterals = torch.zeros(2, 64, 4, 4), cast(Any, decoder.blocks), cast(Any, decoder.laterals)
    levels = [*zip((encoding, *encoding.finer), laterals, strict=True), (None, None)]  # the last block is finer than the encoder
    for (level, lateral), block in zip(levels, blocks, strict=True):
        if level is not None:
            features, valid, token = level.features, mask_map(mask, *level.features.shape[2:]) == 0, lateral.token.mask_token
            if level is not encoding:  # an encoder normalises its last features itself
                norm = (features.shape[1:2], lateral.norm.weight, lateral.norm.bias, 1e-6)
                features = F.layer_norm(features.movedim(1, -1), *norm).movedim(-1, 1)
            x = x + pointwise(lateral.project, torch.where(valid, features, token))
        x = block.refine(F.conv_transpose2d(x, block.enlarge.weight, block.enlarge.bias, stride=2, padding=1))
    expected = pointwise(decoder.pred, x)
    torch.testing.assert_close(decoder(encoding, mask), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@together("decoder", [ConvDecoder, PyramidDecoder])
def test_round_the_edges_a_decoder_does_not_know_where_it_is(decoder: type[Decoder]) -> None:
    geometry = Geometry(3, (16, 24), 4, "circular")
    encoder, built = build("sparse cnn", decoder, geometry)
    encoding, mask = encoder(view := draw_view(geometry)), view.mask

    def turn(x: Tensor) -> Tensor:
        """By a cell downwards and two to the right; there are 4 x 6."""
        return x.roll((x.shape[-2] // 4, x.shape[-1] // 3), (-2, -1))

    turned = changed(encoding, lambda features, valid: (turn(features), turn(valid)))
    still, moved = turn(built(encoding, mask)), built(turned, turn(mask))
    torch.testing.assert_close(still, moved, rtol=1e-3, atol=1e-3 * still.abs().max().item())


def test_a_plain_cnn_and_its_decoder_start_blind_to_the_mask_itself() -> None:
    encoder, decoder = build("cnn", ConvDecoder)
    view = draw_view(GEOMETRY)
    other = view._replace(mask=draw_view(GEOMETRY, seed=1).mask)
    assert torch.equal(decoder(encoder(view), view.mask), decoder(encoder(other), other.mask))


def test_decoders_need_their_two_methods() -> None:
    class Half(Decoder):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_that_is_built_alone_has_drawn_its_token(decoder):
    built = decoder(GEOMETRY, "test", ENCODERS["drop"](GEOMETRY))
    for token in tokens(built):
        assert token is not None
        assert token.std().item() == pytest.approx(0.02, rel=0.4)
