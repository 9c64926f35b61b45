"""What holds for every file in experiments/, those that are added later included."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from semconv.checks.leakage import Circumstances, find_leak
from semconv.controls import find_indicators
from semconv.corruption import CamouflageFill, Hide, View, ZeroFill
from semconv.encoders import Geometry, MAEViT, SemanticCNN, Size
from semconv.encoders.encoder import count_parameters
from semconv.encoders.sizes import SizeName
from semconv.hashing import make_keys
from semconv.indicators import Coordinates, Fourier, Mask, SemanticMap
from semconv.masking import MASKERS, RandomMasker, spread_mask
from semconv.mechanisms import AppendedValues, Channels, FiLM, Gated, MaskToken, OverlayAdd, OverlayReplace, Partial
from semconv.tasks import MaskedReconstruction
from tests.experiments import (
    CNNS,
    FOLDER,
    NAMES,
    all_cnns,
    all_experiments,
    conditioned_factory,
    encoder_factory,
    every_experiment,
    look,
    make_sized,
    make_task,
    parsed,
    random_images,
    stir,
)
from tests.pairwise import pairwise, together

# each fill once, once in training: this way for one half of the experiments, and the other way for the other half
HIDING = [(ZeroFill(), False), (CamouflageFill(), True)], [(ZeroFill(), True), (CamouflageFill(), False)]


@every_experiment
def test_hidden_pixels_cannot_reach_the_prediction(name):
    task = make_task(name)
    stir(task)
    number = NAMES.index(name)
    for turn, (fill, training) in enumerate(HIDING[number % 2], number // 2):
        masker = MASKERS[turn % len(MASKERS)]  # over all names, each of them under each fill, in training and not
        setting = Circumstances("train" if training else "test")
        assert find_leak(task, random_images(task), masker(), Hide(fill), setting) is None, (masker, fill, training)


@every_experiment
def test_clipping_does_not_rule_the_first_step(name):
    """Exact zeros under a layer norm of eps 1e-6 multiply gradients by 1,000: the norm was above 700 for nine variants."""
    task = make_task(name)
    for fill in (ZeroFill(), CamouflageFill()):
        task.zero_grad()
        images = random_images(task, 4)
        view, mask = look(task, images, RandomMasker(), Hide(fill))
        task.objective(task(view), images, mask).backward()
        gradients = [parameter.grad for parameter in task.parameters() if parameter.grad is not None]
        assert torch.nn.utils.get_total_norm(gradients) < 20, fill


def encode(task: MaskedReconstruction, pixels: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        return task.encoder(View(pixels, mask, int(mask[0].sum()))).features


@every_experiment
def test_a_variant_sees_the_mask_in_a_blank_image_iff_it_is_told(name):
    task = make_task(name)
    stir(task.encoder)
    keys = make_keys(0, torch.arange(2))
    blank = torch.zeros(1, 3, *task.geometry.size)
    masks = RandomMasker()(keys, task.geometry.grid, 48)
    first, second = (encode(task, blank, mask[None]) for mask in masks)
    conveys = task.encoder.conveys
    # content is of visible cells, so that where they are may show: nothing is claimed of who is told of it, but not of the mask
    if "mask" in conveys or "content" not in conveys:
        assert torch.equal(first, second) == ("mask" not in conveys)


@every_experiment
def test_a_variant_sees_where_it_is_iff_it_is_told(name):
    task = make_sized(name, Geometry(3, (32, 32), 4, "circular"))
    stir(task.encoder)
    view, mask = look(task, random_images(task, 1), RandomMasker(), Hide())
    cell = task.geometry.cell
    still = encode(task, view.pixels, mask).roll((3, 2), (2, 3))
    moved = encode(task, view.pixels.roll((3 * cell, 2 * cell), (2, 3)), mask.roll((3, 2), (1, 2)))
    # float32 rounding differs between positions, by a few units of 1e-6 at features of order 1
    equal = (still - moved).abs().max() < 1e-4
    # what is told of more than a site's own mask ends at the border of the image, and so shows where that is
    ends = any(part.conveys != "position" and not isinstance(part, Mask) for told in find_indicators(task.encoder) for part in told)
    # so does padding that counts as a hole, in whatever way it would be filled
    holes = any(isinstance(part, Partial) and part.border == "invalid" for part in task.encoder.modules())
    if "position" in task.encoder.conveys or not ends:
        assert equal == ("position" not in task.encoder.conveys and not holes)


@all_experiments
def test_visible_patches_do_not_count(name):
    task = make_task(name)
    images = random_images(task)
    view, mask = look(task, images, RandomMasker(), task.corruption)
    prediction = task(view).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(task.objective(prediction, images, mask), prediction)
    hidden = spread_mask(mask, task.geometry.size).expand_as(gradient)
    assert (gradient[~hidden] == 0).all()
    assert (gradient[hidden] != 0).any()


@every_experiment
def test_every_trainable_weight_is_trained(name):
    task = make_task(name)
    stir(task)
    images = random_images(task)
    view, mask = look(task, images, RandomMasker(), task.corruption)
    task.objective(task(view), images, mask).backward()
    idle = [key for key, parameter in task.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert idle == []


@pytest.mark.parametrize("mechanism", [AppendedValues, Channels, FiLM, Gated, MaskToken, OverlayAdd, OverlayReplace, Partial])
@pytest.mark.parametrize("indicators", [[Mask], [Mask, Coordinates], [Mask, SemanticMap]], ids=str)
def test_no_mechanism_holds_a_weight_that_nothing_trains(mechanism, indicators):
    geometry = Geometry(3, (32, 32), 4)
    encoder = SemanticCNN(geometry, "test", [indicator() for indicator in indicators], mechanism, mlp_ratio=1)
    view = View(torch.randn(1, 3, 32, 32), torch.rand(1, 64).argsort(1).view(1, 8, 8) < 32, 32)
    encoder(view).features.square().sum().backward()
    assert [key for key, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_cnn_variants_differ_below_the_encoder_alone():
    protocols = {}
    for name in CNNS:
        config = deepcopy(parsed(name))
        config["model"]["init_args"].pop("encoder")
        config.pop("experiment")
        if name == "cnn_spark":  # the one whose question is the decoder
            assert config["model"]["init_args"]["decoder"] == {
                "class_path": "semconv.decoders.PyramidDecoder",
                "init_args": {"told": True},
            }
            config["model"]["init_args"]["decoder"] = parsed("cnn_plain")["model"]["init_args"]["decoder"]
        if name == "cnn_denoising":  # the one whose question is the corruption
            corruption = config["model"]["init_args"]["corruption"]
            assert corruption == {"class_path": "semconv.corruption.Noise", "init_args": {"std": 1.0}}
            config["model"]["init_args"]["corruption"] = parsed("cnn_plain")["model"]["init_args"]["corruption"]
        protocols[name] = config
    assert all(protocol == protocols["cnn_plain"] for protocol in protocols.values())


@all_experiments
def test_a_file_is_named_as_its_experiment_and_opens_with_its_command_and_question(name):
    path = Path(__file__).parent.parent / "experiments" / f"{name}.yaml"
    command, question = path.read_text().splitlines()[:2]
    assert parsed(name)["experiment"] == name
    assert command == f"# semconv run -c experiments/base.yaml -c experiments/{name}.yaml"
    assert question.startswith("# ")
    assert "?" in question


GEOMETRIES = [Geometry(3, (32, 32), 4), Geometry(3, (96, 96), 8), Geometry(3, (224, 224), 16)]
LARGEST = ("tiny", "small", "base", "large", "huge")  # the most to build: each of them for every fifth experiment


def met(name: str, geometry: Geometry, size: Size) -> bool:
    return size not in LARGEST or size == LARGEST[NAMES.index(name) % 5]


SETTINGS = pairwise(NAMES, GEOMETRIES, get_args(SizeName), allowed=met)


@cache
def count_baseline(geometry: Geometry, size: Size) -> int:
    with torch.device("meta"):
        return count_parameters(MAEViT(geometry, size))


@every_experiment
def test_encoders_of_one_size_have_as_many_parameters_as_the_baseline(name):
    make, settings = encoder_factory(name), [(geometry, size) for each, geometry, size in SETTINGS if each == name]
    assert {size for _, size in settings} >= set(get_args(SizeName)) - set(LARGEST)
    for geometry, size in settings:
        with torch.device("meta"):
            own = count_parameters(make(geometry, size))
        assert abs(own / count_baseline(geometry, size) - 1) <= 0.03, (geometry, size)


@all_cnns
def test_parameters_match_at_every_depth_of_telling(name):
    make = encoder_factory(name)
    for depth in ("stem", "stages", "all", [3]):
        with torch.device("meta"):
            own = count_parameters(make(GEOMETRIES[0], "test", depth=depth))
        assert abs(own / count_baseline(GEOMETRIES[0], "test") - 1) <= 0.03, depth


@together("path", sorted((FOLDER / "indicators").glob("*.yaml")))
def test_parameters_match_whatever_is_told(path):
    factories = conditioned_factory(path), encoder_factory("cnn_plain")
    with torch.device("meta"):
        own, plain = (count_parameters(make(GEOMETRIES[0], "test")) for make in factories)
    assert abs(own / plain - 1) <= 0.03


def test_what_cannot_be_matched_is_refused_unless_a_width_is_given():
    arguments: dict[str, Any] = {"indicators": [Fourier()], "mechanism": Channels, "depth": "all"}
    with torch.device("meta"):
        with pytest.raises(ValueError, match="the encoder would have 357,760, the baseline has 203,264; condition fewer layers"):
            SemanticCNN(Geometry(3, (32, 32), 4), "test", **arguments)
        assert count_parameters(SemanticCNN(Geometry(3, (32, 32), 4), "test", **arguments, mlp_ratio=1)) > 203_264


@every_experiment
def test_the_last_stage_is_what_an_encoder_gives(name):
    task = make_task(name)
    view, _ = look(task, random_images(task), RandomMasker(), Hide())
    with torch.no_grad():
        stages, whole = task.encoder.encode_stages(view), task.encoder(view)
    if isinstance(task.encoder, MAEViT | SemanticCNN):
        assert len(stages) == 5
    assert torch.equal(stages[-1].features, whole.features)
    assert all(len(stage.features) == 2 for stage in stages)
    height = task.geometry.size[0]
    assert task.encoder.finer == tuple((level.features.shape[1], height // level.features.shape[2]) for level in whole.finer)
    sizes = [level.features.shape[2] for level in (whole, *whole.finer)]
    assert sizes == sorted({stage.features.shape[2] for stage in stages})
