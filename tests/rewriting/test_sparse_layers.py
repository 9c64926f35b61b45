"""Sparse CNNs of timm's: what is visible is all there is."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from semconv.controls import Constant
from semconv.corruption import View
from semconv.indicators import Mask
from semconv.mechanisms import Sparse
from semconv.rewriting.network import SemanticNetwork, semanticize
from tests.cnns import call, draw, every_model, own, plain
from tests.pairwise import together


def half(model: torch.nn.Module, training: bool, count: int = 2) -> tuple[list[torch.Tensor], SemanticNetwork]:
    """A sparse network's stages on the left half of images, the right half hidden, and the network."""
    network = semanticize(model, Sparse, [Mask()], "all").train(training)
    pixels = draw(count).pixels.repeat(1, 1, 1, 2)
    mask = torch.zeros(count, 2, 4, dtype=torch.bool)
    mask[:, :, 2:] = True
    view = View(pixels, mask, 4)
    maps = network.forward_stages(view.pixels, network.indicators(view))
    return [x[..., : x.shape[3] // 2] if x.ndim == 4 else x for x in maps], network


@every_model
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_with_half_of_an_image_hidden_it_is_the_plain_network_on_the_other_half(name, training):
    """Statistics of the batch, running ones, pools and squeeze-excite included."""
    model = own(name).train(training)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.5
    maps, network = half(model, training)
    expected = model(draw().pixels)
    # sums of float32 in another order, through many layers of stirred weights
    torch.testing.assert_close(maps[-1], expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    state = network.timm_state_dict()
    assert list(state) == list(model.state_dict())
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(state[key], tensor, rtol=1e-3, atol=1e-3 * tensor.abs().max().item() + 1e-5)
    assert network.unlike_timm == ""
    assert network.sees_visible_alone


def test_with_a_classifier_it_answers_for_what_is_visible():
    network, view = semanticize(plain("test_resnet"), Sparse, [Mask()], "all").eval(), draw()
    cells = view._replace(mask=torch.zeros(2, 2, 2, dtype=torch.bool).index_fill(2, torch.tensor([1]), True), num_masked=2)
    hidden = cells.mask.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    logits = call(network, cells)
    assert logits.shape == (2, 10)
    assert torch.equal(call(network, cells._replace(pixels=view.pixels.masked_fill(hidden, float("nan")))), logits)


def test_told_at_stages_it_masks_there_and_leaves_other_layers_alone():
    network = semanticize(plain("test_resnet"), Sparse, [Mask()], "stages")
    assert not network.sees_visible_alone
    assert len(network.conditioned) == 5


@pytest.mark.parametrize("name", ["resnet18", "convnextv2_atto"])
def test_every_weight_is_trained_and_a_control_that_sees_nothing_is_finite(name):
    network, view = semanticize(plain(name), Sparse, [Mask()], "all").train(), draw()
    view = view._replace(mask=torch.tensor([[[True, False], [False, True]]]).expand(2, -1, -1), num_masked=2)
    call(network, view).square().sum().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    network.indicators.control = Constant()
    assert call(network, view).isfinite().all()


def test_cells_that_leave_sites_masked_in_part_are_refused():
    network, view = semanticize(plain("test_resnet"), Sparse, [Mask()], "all"), draw()
    with pytest.raises(ValueError, match="a cell that is a multiple of the stride"):
        call(network, view)


WITHOUT = [
    ("resnet18:cbam", "CbamModule"),
    ("resnet18:coord", "CoordAttn"),
    ("skresnet18", "split"),
    ("resnetblur18", "BlurPool2d"),
]
WITHOUT += [("tresnet_m", "SpaceToDepth"), ("selecsls42b", "SelectSeq"), ("hrnet_w18_small", "Sequential")]


@together("name, layer", WITHOUT)
def test_a_layer_without_a_sparse_form_is_refused(name, layer):
    name, _, attention = name.partition(":")
    with torch.device("meta"):
        model = timm.create_model(name, **({"block_args": {"attn_layer": attention}} if attention else {}))
    with pytest.raises(ValueError, match=f"{layer} of .* has no sparse form: give depth stages"):
        semanticize(model, Sparse, [Mask()], "all")


def test_a_pool_that_leaves_a_map_is_refused():
    model: Any = own("test_resnet")
    model.global_pool = nn.AdaptiveAvgPool2d((2, 2))
    with pytest.raises(ValueError, match=r"AdaptiveAvgPool2d of .* has no sparse form"):
        semanticize(model, Sparse, [Mask()], "all")
