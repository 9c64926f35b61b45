from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from semconv.convolution import SemanticConv2d
from semconv.corruption import View
from semconv.decoders import ConvDecoder, TransformerDecoder
from semconv.encoders import Geometry, MAEViT, SemanticCNN, initialise
from semconv.encoders.encoder import count_parameters
from semconv.encoders.vit import init_transformer
from semconv.indicators import Indicators, Mask
from semconv.mechanisms import Channels
from tests.oracles import Mean

GEOMETRY = Geometry(3, (16, 24), 4)


class Loaded(Channels):
    """Channels with as many parameters more as a test asks for."""

    def __init__(self, convolution: nn.Conv2d, indicators: Indicators, extra: int) -> None:
        super().__init__(convolution, indicators)
        self.extra = nn.Parameter(torch.zeros(extra))


def test_parameters_match_whatever_a_mechanism_adds() -> None:
    """Around the share, 3 %, from which on the MLPs are narrowed."""
    geometry, missed = Geometry(3, (32, 32), 4), []
    with torch.device("meta"):
        baseline = count_parameters(MAEViT(geometry, "test"))
        for extra in range(round(0.022 * baseline), round(0.033 * baseline), 250):
            encoder = SemanticCNN(geometry, "test", [Mask()], partial(Loaded, extra=extra), "stem")
            if abs(count_parameters(encoder) / baseline - 1) > 0.03:
                missed.append(extra)
    assert missed == []


def initialised(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    initialise(network, seed)
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


class Crowd(nn.Module):
    """A transformer's layer among others, which come before it."""

    part = "encoder"

    def __init__(self, num_others: int) -> None:
        super().__init__()
        self.others = nn.ModuleList(nn.Linear(5, 7) for _ in range(num_others))
        self.layer = nn.Linear(8, 8)

    def init_weights(self, module: nn.Module) -> None:
        init_transformer(module)


def test_weights_depend_on_seed_and_path_whatever_else_is_in_the_network() -> None:
    first, second = initialised(Crowd(0)), initialised(Crowd(9))
    assert torch.equal(first["layer.weight"], second["layer.weight"])
    drop, token = initialised(MAEViT(GEOMETRY, "test")), initialised(MAEViT(GEOMETRY, "test", masked="token"))
    assert all(torch.equal(drop[name], token[name]) for name in drop if name != "mask_token")


def test_a_told_and_an_untold_cnn_start_from_one_set_of_weights() -> None:
    # one mlp_ratio: matched parameters would narrow the told network's perceptrons
    plain = initialised(SemanticCNN(GEOMETRY, "test", mlp_ratio=4))
    told = initialised(SemanticCNN(GEOMETRY, "test", [Mask()], Channels, mlp_ratio=4))
    assert len(told) > len(plain)
    assert all(torch.equal(plain[name], told[name]) for name in plain)


def convolutions(network: nn.Module) -> list[SemanticConv2d]:
    return [module for module in network.modules() if isinstance(module, SemanticConv2d)]


def test_a_mechanism_is_told_once_how_deep_it_stands() -> None:
    made = convolutions(SemanticCNN(GEOMETRY, "test", mechanism=Mean))
    assert [module.mechanism.depths for module in made] == [[number / 9] for number in range(10)]
    # counted among all spatial convolutions, told or not
    told = convolutions(SemanticCNN(GEOMETRY, "test", mechanism=Mean, depth=[0, 4]))
    assert [getattr(module.mechanism, "depths", None) for module in told] == [[0], *[None] * 6, [7 / 9], None, None]


def test_a_convolution_that_nobody_needs_holds_no_weights() -> None:
    network = SemanticCNN(GEOMETRY, "test", mechanism=Mean, mlp_ratio=4)
    assert all(not list(module.convolution.parameters()) for module in convolutions(network))
    assert all(module.convolution.kernel_size[0] > 1 for module in convolutions(network))
    state = initialised(network)
    assert not any(".convolution.weight" in name or ".convolution.bias" in name for name in state)
    view = View(torch.randn(2, 3, 16, 24), torch.zeros(2, 4, 6, dtype=torch.bool), 0)
    network(view).features.square().sum().backward()
    plain = initialised(SemanticCNN(GEOMETRY, "test", mlp_ratio=4))
    assert all(torch.equal(plain[name], tensor) for name, tensor in state.items() if name in plain)


def test_parameters_that_a_mechanism_saves_are_spent_on_perceptrons() -> None:
    baseline = count_parameters(MAEViT(GEOMETRY, "test"))
    network = SemanticCNN(GEOMETRY, "test", mechanism=Mean)
    assert abs(count_parameters(network) / baseline - 1) <= 0.03
    assert network.mlp_ratio > SemanticCNN(GEOMETRY, "test").mlp_ratio


@pytest.mark.parametrize("make", [MAEViT, SemanticCNN])
def test_seeds_and_paths_differ(make: type[MAEViT] | type[SemanticCNN]) -> None:
    first, second = initialised(make(GEOMETRY, "test"), 0), initialised(make(GEOMETRY, "test"), 1)
    weights = [name for name, tensor in first.items() if tensor.std() > 0 and "pos_embed" not in name]
    assert len(weights) > 10
    assert not any(torch.equal(first[name], second[name]) for name in weights)
    assert len({first[name].sum().item() for name in weights}) == len(weights)


def test_encoder_and_decoder_do_not_start_alike() -> None:
    encoder = MAEViT(GEOMETRY, "test")
    decoder = TransformerDecoder(GEOMETRY, "test", encoder)
    ours, theirs = initialised(encoder), initialised(decoder)
    shared = [name for name in ours.keys() & theirs.keys() if name.startswith("blocks") and ours[name].std() > 0]
    assert len(shared) == 8
    assert not any(torch.equal(ours[name], theirs[name]) for name in shared)


def test_initialising_ignores_and_keeps_the_global_generator() -> None:
    encoder = MAEViT(GEOMETRY, "test")
    networks = [encoder, SemanticCNN(GEOMETRY, "test"), ConvDecoder(GEOMETRY, "test", encoder)]
    for network in networks:
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = initialised(network)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        second = initialised(network)
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_cells_that_do_not_tile_the_image_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"30 x 32 is not divisible by the mask cell of 4: change data.size or model.cell"):
        Geometry(3, (30, 32), 4)


def test_maps_that_are_smaller_than_their_padding_are_refused() -> None:
    for mode, side in (("reflect", 3), ("circular", 2)):
        with pytest.raises(ValueError, match=f"padding_mode is {mode}, and the last map has {side} x {side} sites"):
            SemanticCNN(Geometry(3, (4 * side, 4 * side), 4, cast(Any, mode)), "micro", mlp_ratio=2)
        enough = Geometry(3, (4 * side + 4, 4 * side + 4), 4, cast(Any, mode))
        encoder = SemanticCNN(enough, "micro", mlp_ratio=2)
        assert encoder(enough.blank()).features.shape[2:] == enough.grid


def test_words_that_name_nothing_are_refused() -> None:
    wrong: list[dict[str, Any]] = [{"depth": "stage"}, {"norm": "instance"}, {"as_plain": "parameters"}]
    for options in wrong:
        with pytest.raises(ValueError, match=r"(depth|norm|as_plain) is '\w+': choose among"):
            SemanticCNN(Geometry(3, (16, 16), 4), "micro", mlp_ratio=2, **options)


def test_the_grid_is_rows_and_then_columns() -> None:
    assert Geometry(3, (32, 48), 8).grid == (4, 6)
