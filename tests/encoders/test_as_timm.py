"""Encoders as models of timm's, and the architectures that semconv registers there."""

import ast
import runpy
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from timm.optim import create_optimizer_v2
from torch import Tensor

from semconv import timm_models
from semconv.controls import Shuffled, set_control
from semconv.convolution import Plain, SemanticConv2d
from semconv.encoders import Encoder, Geometry, MAEViT, SemanticCNN, Size, initialise
from semconv.encoders.encoder import TimmModel
from semconv.encoders.sizes import CNNSize, DecoderSize, Dimensions, ViTSize
from semconv.evaluation.features import everything
from semconv.indicators import Indicators, Mask
from semconv.mechanisms import Channels
from tests.documents import Document
from tests.experiments import CNNS, FOLDER, encoder_factory, factory_of, make_task, parsed, stir
from tests.pairwise import together

CELL = 4
# in the layout of the encoder's own maps, so that sums are in the same order
PIXELS = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
SCHEDULES = sorted((FOLDER / "controls").glob("gradual_*.yaml"))

# as the documents say: whether it exports to timm, and whether it does conditioned on the mask alone
LISTED = {
    name: row
    for names, row in Document("docs/mechanisms.md").table("variant", "exports to timm").items()
    for name in names.split(", ")
}


def load(found: TimmModel, **options: Any) -> Any:
    """timm's model of an encoder, strictly."""
    model = timm.create_model(found.architecture, num_classes=0, **found.arguments, **options)
    model.load_state_dict(found.state, strict=True)
    return model.eval()


def features(encoder: Encoder, pixels: Tensor = PIXELS) -> Tensor:
    with torch.no_grad():
        return encoder(everything(pixels, CELL)).features


def without_mechanisms(encoder: Encoder) -> Encoder | None:
    """A copy whose kernels are its own and whose mechanisms are gone; None: a mechanism has taken a kernel's place."""
    encoder = deepcopy(encoder)
    for module in encoder.modules():
        if isinstance(module, SemanticConv2d):
            convolution = module.convolution
            if convolution.weight is None or list(convolution.weight.shape[:1]) != [convolution.out_channels]:
                return None
            module.mechanism = Plain(convolution, Indicators())
    return encoder


def scheduled_factory(file: Path) -> Any:
    """The encoder of cnn_gradual with the schedule of a control."""
    config = deepcopy(parsed("cnn_gradual")["model"]["init_args"]["encoder"])
    own = yaml.safe_load(file.read_text())["model"]["init_args"]["encoder"]["init_args"]["mechanism"]
    config["init_args"]["mechanism"]["init_args"] |= own["init_args"]
    return factory_of("encoder", Callable[[Geometry, Size], Encoder], config)


@together("variant", [*CNNS, *SCHEDULES])
def test_a_variant_is_a_model_of_timms_where_nothing_is_masked_if_it_says_so_and_only_then(variant):
    factory = encoder_factory(variant) if variant in CNNS else scheduled_factory(variant)
    encoder = factory(Geometry(3, (32, 32), CELL), "micro").eval()
    initialise(encoder, 0)
    stir(encoder)
    found, plain = encoder.as_timm(), without_mechanisms(encoder)
    try:
        same = plain is not None and torch.allclose(features(plain), features(encoder), rtol=1e-4, atol=1e-5)
    except RuntimeError:  # of a network whose width is split
        same = False
    assert isinstance(found, TimmModel) == same, found
    if variant in CNNS:
        layers = [module for module in encoder.modules() if isinstance(module, SemanticConv2d)]
        on_mask = all(layer.mechanism.silent_when_visible for layer in layers)
        assert LISTED[variant] == ["yes" if each else "no" for each in (same, on_mask)]
    if isinstance(found, TimmModel):
        with torch.no_grad():
            # the same operations on the same numbers; a partial convolution adds its bias apart
            torch.testing.assert_close(load(found).forward_features(PIXELS), features(encoder), rtol=1e-5, atol=1e-5)


OWN = Dimensions(ViTSize(40, 5, 5), CNNSize((16, 24, 40, 48), (1, 2, 1, 1)), DecoderSize(24, 3, 2))


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, OWN), ({"norm": "batch", "response_norm": True, "kernel_size": 5}, "test"), ({"norm": "group"}, OWN)],
    ids=["own size", "batch norm", "group norm, own size"],
)
@pytest.mark.parametrize("cell", [2, 16])
def test_every_option_of_the_network_reaches_timms_model(options, cell, size):
    geometry = Geometry(3, (32, 32), cell, "replicate")
    encoder = SemanticCNN(geometry, size, [Mask()], Channels, "stages", mlp_ratio=2, **options)
    stir(encoder.train())
    encoder(everything(PIXELS, cell))  # statistics of batch norms
    found = encoder.eval().as_timm()
    assert isinstance(found, TimmModel)
    with torch.no_grad():
        expected = encoder(everything(PIXELS, cell)).features
        torch.testing.assert_close(load(found).forward_features(PIXELS), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cnn_channels", "its SemanticCNN is conditioned on Coordinates by Channels, which is heard where nothing is masked"),
        ("cnn_gated", "its SemanticCNN is conditioned by Gated, which is not a plain convolution even where nothing is masked"),
    ],
)
def test_what_is_no_model_of_timms_says_why(name, reason):
    assert str(make_task(name).encoder.as_timm()).startswith(reason)


def test_a_control_is_no_model_of_timms():
    encoder = SemanticCNN(Geometry(3, (32, 32), 8), "test", [Mask()], Channels)
    set_control(encoder, Shuffled())
    assert encoder.as_timm() == "its SemanticCNN has a control, which changes features even where nothing is masked"


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return timm.create_model("semantic_cnn_test", num_classes=7, output_stride=4).eval()


def test_timms_calls_take_the_architecture(model):
    assert timm.list_models("semantic_cnn*") == sorted(timm_models.ARCHITECTURES)
    with torch.no_grad():
        maps = model.forward_features(PIXELS)
        assert maps.shape == (2, model.num_features, 8, 8)
        vectors = model.forward_head(maps, pre_logits=True)
        torch.testing.assert_close(vectors, maps.mean((2, 3)))
        torch.testing.assert_close(model(PIXELS), model.get_classifier()(vectors))
        model.reset_classifier(3, "max")
        assert model(PIXELS).shape == (2, 3)
        torch.testing.assert_close(model.forward_head(maps, pre_logits=True), maps.amax((2, 3)))
        model.reset_classifier(0, "")
        assert torch.equal(model(PIXELS), maps)
    assert model.num_classes == 0


def test_a_pyramid_of_features_is_the_encoders():
    encoder = SemanticCNN(Geometry(3, (32, 32), CELL), "test", mlp_ratio=2).eval()
    found = encoder.as_timm()
    assert isinstance(found, TimmModel)
    pyramid = timm.create_model("semantic_cnn_test", features_only=True, **found.arguments).eval()
    pyramid.load_state_dict({name.replace("stages.", "stages_"): tensor for name, tensor in found.state.items()}, strict=True)
    with torch.no_grad():
        maps, stages = pyramid(PIXELS), encoder.encode_stages(everything(PIXELS, CELL))[1:]
    for number, (x, stage) in enumerate(zip(maps, stages, strict=True)):
        torch.testing.assert_close(x, stage.features, rtol=1e-5, atol=1e-6)
        assert x.shape[1:] == (pyramid.feature_info.channels()[number], *2 * [32 // pyramid.feature_info.reduction()[number]])


def test_layers_learn_at_rates_that_fall_towards_the_stem(model):
    optimizer = create_optimizer_v2(model, "adamw", lr=1.0, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scale = {names[id(each)]: group["lr_scale"] for group in optimizer.param_groups for each in group["params"]}
    assert scale.keys() == set(names.values())
    order = ["stem.convolution.weight", "stages.0.0.norm.weight", "stages.3.1.norm.weight", "head.fc.weight"]
    assert [scale[name] for name in order] == sorted(scale[name] for name in order)
    assert len({scale[name] for name in order}) == 4
    assert scale["stem.after.weight"] == scale["stem.convolution.weight"]


def test_the_file_registers_the_architectures_without_semconv(monkeypatch):
    file, found = Path(timm_models.__file__), list[Any]()
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes]
    assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "torch", "timm"}
    monkeypatch.setattr(timm.models, "register_model", found.append)
    runpy.run_path(str(file))
    assert [each.__name__ for each in found] == list(timm_models.ARCHITECTURES)


def test_a_vit_is_timms():
    encoder = MAEViT(Geometry(3, (32, 32), CELL), "test").eval()
    found = encoder.as_timm()
    assert isinstance(found, TimmModel)
    with torch.no_grad():
        tokens = load(found).forward_features(PIXELS)[:, 1:]
    torch.testing.assert_close(tokens.mT.unflatten(2, (8, 8)), features(encoder), rtol=1e-5, atol=1e-5)
