"""timm's CNNs as encoders of the protocol, by the files in experiments/any_cnn."""

from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from semconv.checks.leakage import Circumstances, find_leak
from semconv.convolution import MechanismFactory, Plain, SemanticConv2d
from semconv.corruption import CamouflageFill, Hide, ZeroFill
from semconv.decoders import ConvDecoder, PyramidDecoder, TransformerDecoder
from semconv.encoders import Encoder, Geometry, TimmEncoder, initialise
from semconv.encoders.encoder import TimmModel
from semconv.finetuning import set_drop_path
from semconv.indicators import Coordinates, CropFrame, ExternalMap, Indicators, LearnedTable, Mask, VisibleClusters
from semconv.masking import RandomMasker, spread_mask
from semconv.mechanisms import AppendedValues, Channels, Gradual, MaskToken, OverlayReplace, Sparse
from semconv.tracking.facts import derived_facts
from tests.cnns import NAMES, draw
from tests.experiments import FOLDER, encoder_factory, look, make_task, parsed, random_images, stir
from tests.pairwise import together

ANY = FOLDER / "any_cnn"
MODELS = ["resnet18", "resnet50", "convnextv2_atto"]
FILE = ("any_cnn/resnet18", f"-c={ANY / 'channels.yaml'}", f"-c={FOLDER / 'indicators' / 'both.yaml'}")
GEOMETRY = Geometry(3, (64, 64), 8)

every_model = pytest.mark.parametrize("name", NAMES)


def overrides(name: str) -> tuple[str, ...]:
    # not every model can be built for another stride than its own
    return f"--model.encoder.name={name}", f"--model.encoder.output_stride={8 if name.startswith('resnet') else 'null'}"


def make(
    name: str = "test_resnet", mechanism: MechanismFactory = Channels, seed: int = 0, geometry: Geometry = GEOMETRY, **options: Any
) -> TimmEncoder:
    indicators = None if mechanism is Plain else [Mask(), Coordinates()]
    encoder = TimmEncoder(geometry, "test", name, indicators, mechanism, **options)
    initialise(encoder, seed)
    return encoder


@every_model
def test_it_trains_under_the_protocol(name):
    task = make_task(*FILE, *overrides(name)).train()
    stir(task)
    images = random_images(task, 4)
    optimizer = torch.optim.AdamW(task.parameters(), 1e-3)
    losses = []
    for _ in range(2):
        view, mask = look(task, images, RandomMasker(), task.corruption)
        losses.append(task.objective(task(view), images, mask))
        optimizer.zero_grad()
        losses[-1].backward()
        assert [key for key, weight in task.named_parameters() if weight.requires_grad and weight.grad is None] == []
        optimizer.step()
    assert losses[1] < losses[0]


@every_model
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_hidden_pixels_reach_neither_the_prediction_nor_the_statistics_of_the_batch(name, training):
    task = make_task(*FILE, *overrides(name)).train(training)
    stir(task)
    setting = Circumstances("train" if training else "test")
    for fill in (ZeroFill(), CamouflageFill()):
        assert find_leak(task, random_images(task), RandomMasker(), Hide(fill), setting) is None, fill
    task.train()
    kept = {key: tensor.clone() for key, tensor in task.state_dict().items()}
    images, states = random_images(task), []
    hidden = spread_mask(look(task, images, RandomMasker(), Hide())[1], task.geometry.size)
    for content in (images, images.masked_fill(hidden, 7.0)):
        task.load_state_dict(kept)
        task(look(task, content, RandomMasker(), Hide())[0])
        states.append({key: tensor.clone() for key, tensor in task.state_dict().items()})
    assert all(torch.equal(states[0][key], states[1][key]) for key in kept)


@pytest.mark.parametrize("name", ["test_resnet", "convnextv2_atto"])
def test_a_blank_image_shows_its_mask_and_its_place_iff_they_are_told(name):
    geometry, view = Geometry(3, (32, 32), 4), draw()
    encoders = {
        "both": make(name, geometry=geometry),
        "mask": TimmEncoder(geometry, "test", name, [Mask()], Channels),
        "none": make(name, Plain, geometry=geometry),
    }
    for kind, encoder in encoders.items():
        stir(encoder.eval())
        blank = view._replace(pixels=torch.zeros(2, 3, 32, 32))
        with torch.no_grad():
            first, second = encoder(blank).features
        assert torch.equal(first, second) == (kind == "none")
    assert [encoder.conveys for encoder in encoders.values()] == [{"mask", "position"}, {"mask"}, set()]


def test_it_knows_no_place_that_it_is_not_told_where_nothing_is_padded_with_zeros():
    geometry = Geometry(3, (64, 64), 8, "circular")
    for told in (False, True):
        # without pools, which pad in their own way
        encoder = TimmEncoder(geometry, "test", "regnety_002", [Mask(), Coordinates()] if told else [Mask()], Channels)
        stir(encoder.eval())
        view = draw()
        moved = view._replace(pixels=view.pixels.roll((32, 32), (2, 3)), mask=view.mask.roll((4, 4), (1, 2)))
        with torch.no_grad():
            still, rolled = encoder(view).features.roll((1, 1), (2, 3)), encoder(moved).features
        # float32 rounding differs between positions
        assert ((still - rolled).abs().max() < 1e-3) == (not told)


@every_model
def test_the_last_stage_is_what_it_gives(name):
    encoder, view = make(name).eval(), draw()
    with torch.no_grad():
        stages, whole = encoder.encode_stages(view), encoder(view)
    assert len(stages) >= 5
    assert torch.equal(stages[-1].features, whole.features)
    assert whole.features.shape == (2, encoder.num_features, 64 // encoder.stride, 64 // encoder.stride)


@together("decoder", [ConvDecoder, PyramidDecoder, TransformerDecoder])
@pytest.mark.parametrize(("size", "cell"), [((64, 96), 4), ((64, 32), 8), ((32, 64), 16), ((32, 32), 32)])
def test_decoders_reach_the_pixels_from_sites_coarser_than_a_cell(decoder, size, cell):
    geometry = Geometry(1, size, cell)
    encoder = make("test_resnet", geometry=geometry).eval()
    built = decoder(geometry, "test", encoder)
    initialise(built, 0)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 1, *size, generator=generator)
    count = geometry.grid[0] * geometry.grid[1] // 2
    mask = torch.rand(2, geometry.grid[0] * geometry.grid[1], generator=generator).argsort(1).view(2, *geometry.grid) < count
    view = draw()._replace(pixels=pixels, mask=mask, num_masked=count)
    assert encoder.stride == 32
    prediction = built(encoder(view), mask)
    assert prediction.shape == pixels.shape
    assert (prediction.flatten(1).std(1) > 0).all()


@pytest.mark.parametrize(
    "indicator", [ExternalMap(3), CropFrame(), LearnedTable(), VisibleClusters()], ids=lambda one: type(one).__name__
)
def test_it_can_be_told_what_comes_with_an_image_is_learned_or_seen(indicator):
    encoder = TimmEncoder(GEOMETRY, "test", "test_resnet", [indicator], Channels, "all")
    initialise(encoder, 0)
    stir(encoder)
    view = draw()._replace(external=torch.ones(2, 1, *GEOMETRY.size, dtype=torch.uint8))
    assert encoder(view).features.isfinite().all()
    assert encoder.conveys == {indicator.conveys}


def weights(encoder: TimmEncoder) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in encoder.model.timm_state_dict().items()}


def test_weights_are_timms_own_drawn_from_the_seed_alike_for_every_mechanism():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    told, plain, other = weights(make()), weights(make(mechanism=Plain)), weights(make(seed=1))
    torch.manual_seed(5)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(told[key], plain[key]) for key in told | plain)
    drawn = [key for key in told if told[key].numel() > 1 and told[key].std() > 0]
    assert len(drawn) == 15
    assert not any(torch.equal(told[key], other[key]) for key in drawn)
    deviation = (2 / (48 * 9)) ** 0.5  # He's, of the fan out, as timm has it for residual networks
    assert told["layer2.0.conv2.weight"].std().item() == pytest.approx(deviation, rel=0.02)
    assert (told["layer1.0.bn2.weight"] == 0).all()  # residual branches start asleep


def test_what_tells_is_drawn_from_the_seed_and_its_path():
    def embedding(convolution: nn.Conv2d, indicators: Indicators) -> AppendedValues:
        return AppendedValues(convolution, indicators, "embedding")

    first, again, other = (make(mechanism=embedding, seed=seed) for seed in (0, 0, 1))
    tables = [
        [cast(AppendedValues, told.mechanism).encode.table for told in encoder.model.conditioned.values()]
        for encoder in (first, again, other)
    ]
    assert all(torch.equal(one, two) for one, two in zip(tables[0], tables[1], strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(tables[0], tables[2], strict=True))
    assert not torch.equal(tables[0][0], tables[0][1])


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_given_weights_are_kept_and_a_classifier_is_left_out(suffix, tmp_path):
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=7)
    path = tmp_path / f"model.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": model.state_dict()}, path)
    else:
        save_file(model.state_dict(), path)
    encoder = make(checkpoint_path=str(path))
    state = model.state_dict()
    assert weights(encoder).keys() == state.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(tensor, state[key]) for key, tensor in weights(encoder).items())
    with pytest.raises(ValueError, match=r"model\.\w+ is of another model: .* give the name that timm calls the file's model"):
        make("resnet18", checkpoint_path=str(path))


def test_pretrained_weights_are_kept(monkeypatch):
    create = timm.create_model

    def pretrained(name: str, pretrained: bool, **options: Any) -> nn.Module:
        model = create(name, **options)
        if pretrained:
            nn.init.constant_(model.conv1[0].weight, 0.125)
        return model

    monkeypatch.setattr(timm, "create_model", pretrained)
    assert (weights(make(pretrained=True))["conv1.0.weight"] == 0.125).all()
    assert not (weights(make())["conv1.0.weight"] == 0.125).any()


def sparse(convolution: nn.Conv2d, indicators: Indicators) -> Sparse:
    return Sparse(convolution, Indicators([Mask()]))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": "resnet17"}, "timm has no model resnet17: did you mean resnet18?"),
        ({"name": "densenet121", "output_stride": 8}, "timm's densenet121 cannot be built with output_stride=8"),
        ({"output_stride": 7}, "timm's test_resnet cannot be built with output_stride=7: it has no such choice"),
        (
            {"geometry": Geometry(3, (72, 72), 8)},
            "are no multiple of the stride of test_resnet, 32: change data.size",
        ),
        (
            {"mechanism": MaskToken},
            "layer3.0.conv2 has sites of 16 pixels, masked in part by cells of 8",
        ),
        (
            {"name": "convnextv2_atto", "geometry": Geometry(3, (64, 64), 8, "circular")},
            "64 x 64 pixels are too small",
        ),
        (
            {"mechanism": sparse, "depth": "all"},
            "masked in part: sparse, token and partial at depth need a cell that is",
        ),
        ({"pretrained": True, "checkpoint_path": "x.pth"}, "give pretrained or checkpoint_path"),
        ({"name": "vit_tiny_patch16_224"}, "give a CNN, such as resnet50"),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_what_does_not_fit_is_refused_with_the_remedy(options, complaint):
    with pytest.raises(ValueError) as caught:
        make(**options)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_had_are_refused_with_the_remedy(monkeypatch):
    def offline(*arguments: Any, **options: Any) -> None:
        raise FileNotFoundError("no connection")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match="no weights of timm's test_resnet to be had: no connection; give checkpoint_path a file"):
        make(pretrained=True)


def test_tokens_stand_where_sites_are_whole():
    assert make("test_resnet", MaskToken, output_stride=8).stride == 8
    assert make("test_resnet", MaskToken, depth=[0, 1, 2]).stride == 32
    assert make("test_resnet", OverlayReplace).stride == 32  # a pixel that is masked in part shows both


@pytest.mark.parametrize("decoder", [ConvDecoder, PyramidDecoder, TransformerDecoder])
def test_a_sparse_encoder_leaves_hidden_sites_to_the_decoder(decoder):
    geometry = Geometry(3, (64, 64), 16)
    encoder = TimmEncoder(geometry, "test", "test_resnet", [Mask()], Sparse, "all", output_stride=16)
    built = decoder(geometry, "test", encoder)
    assert encoder.drops_masked
    assert not TimmEncoder(geometry, "test", "test_resnet", [Mask()], Sparse, output_stride=16).drops_masked
    mask = draw(seed=1).mask[:, ::2, ::2]
    view = draw()._replace(mask=mask[:1].expand(2, -1, -1), num_masked=int(mask[0].sum()))
    for encoding in encoder.encode_stages(view):
        assert encoding.valid is not None
        sites = encoding.valid.shape[1] // 4
        assert torch.equal(encoding.valid, ~view.mask.repeat_interleave(sites, 1).repeat_interleave(sites, 2))
        assert (encoding.features.permute(0, 2, 3, 1)[~encoding.valid] == 0).all()
    assert built(encoder(view), view.mask).shape == view.pixels.shape


def test_fine_tuning_drops_paths_where_the_model_has_them():
    encoder = make("convnextv2_atto", Plain).train()
    view = draw()
    assert torch.equal(encoder(view).features, encoder(view).features)
    set_drop_path(encoder, 0.5)
    assert not torch.equal(encoder(view).features, encoder(view).features)


def test_it_is_chosen_by_class_path_alone():
    task = make_task("cnn_plain", "--model.encoder=semconv.encoders.TimmEncoder", "--model.encoder.name=mobilenetv3_small_100")
    encoder = task.encoder
    assert isinstance(encoder, Encoder)
    assert encoder.stride == 32
    assert {type(module.mechanism) for module in encoder.modules() if isinstance(module, SemanticConv2d)} == {Plain}
    images = random_images(task)
    view, mask = look(task, images, RandomMasker(), task.corruption)
    assert task.objective(task(view), images, mask).isfinite()


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name == "resnet50" else ()) for name in MODELS])
def test_every_file_conditions_every_model_and_says_what_leaves_for_timm(name):
    mechanisms = sorted(path.stem for path in ANY.glob("*.yaml") if path.stem not in MODELS)
    assert mechanisms == ["appended", "channels", "gradual", "sparse"]
    geometry = Geometry(3, (64, 64), 32)
    for mechanism in ["plain", *mechanisms]:
        files = [] if mechanism == "plain" else [f"-c={ANY / mechanism}.yaml"]
        config = parsed(f"any_cnn/{name}", *files)
        assert config["experiment"] == f"{name}_{mechanism}"
        assert derived_facts(config)["indicators"] == ("none" if mechanism == "plain" else "Mask")
        encoder = encoder_factory(f"any_cnn/{name}", *files)(geometry, "test")
        assert encoder(geometry.blank(2)).features.isfinite().all()
        found = encoder.as_timm()
        assert isinstance(found, TimmModel) == (mechanism != "gradual"), found


def test_a_narrowed_kernel_takes_the_first_channels_of_timms_weights():
    encoder = make(mechanism=Gradual, depth="all")
    plain = make(mechanism=Plain, depth="all").model.conditioned
    narrowed = 0
    for path, layer in encoder.model.conditioned.items():
        whole, kept = plain[path].convolution.weight, layer.convolution.weight
        if kept is not None:
            narrowed += kept.shape != whole.shape
            assert torch.equal(kept, whole[: kept.shape[0], : kept.shape[1]])
    assert narrowed == 8


@pytest.mark.parametrize("path", sorted(ANY.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_file_opens_with_its_command_and_question(path: Path) -> None:
    command, question = path.read_text().splitlines()[:2]
    model, before, files = path.stem, "", list[str]()
    if path.stem not in MODELS:
        model, before, files = "resnet18", " -c experiments/any_cnn/resnet18.yaml", [f"-c={path}"]
    begin = f"# semconv run -c experiments/base.yaml{before} -c experiments/any_cnn/{path.name}"
    assert command.startswith(begin)
    assert parsed(f"any_cnn/{model}", *files, *command.removeprefix(begin).split())
    assert question.startswith("# ")
    assert "?" in question
