import pytest
import torch

from semconv.controls import Constant, Fixed, Noise, Only, Shuffled, Zero, freeze_dropped, set_control
from semconv.corruption import Hide, View
from semconv.encoders import Geometry, SemanticCNN
from semconv.encoders.encoder import initialise
from semconv.encoders.sizes import CNNSize, DecoderSize, Dimensions, ViTSize
from semconv.indicators import (
    Control,
    Coordinates,
    CropFrame,
    Grid,
    Indicator,
    Indicators,
    LearnedTable,
    Mask,
    MaskRatio,
    SemanticMap,
    VisibleColour,
)
from semconv.masking import RandomMasker
from semconv.mechanisms import AppendedValues, Channels, FiLM, Gated, MaskToken, OverlayAdd, OverlayReplace, Partial
from tests.experiments import built, encoder_factory, look, make_task, parsed, random_images, stir
from tests.pairwise import together

DEAD = [Zero(), Constant(), Fixed(), Shuffled()]  # noise is a function of all masks: it is new in every step
MECHANISMS = [AppendedValues, Channels, FiLM, Gated, MaskToken, OverlayAdd, OverlayReplace, Partial]
GEOMETRY = Geometry(3, (32, 48), 4)


def network(mechanism: type, control: Control | None, *others: Indicator) -> SemanticCNN:
    """One that is told of the mask, and of others, by weights that are not zero."""
    encoder = SemanticCNN(GEOMETRY, "test", [Mask(), *others], mechanism, mlp_ratio=2)
    initialise(encoder, 0)
    stir(encoder)
    set_control(encoder, control)
    return encoder.eval()


def view(count: int = 3, seed: int = 0) -> View:
    generator = torch.Generator().manual_seed(seed)
    mask = RandomMasker()(torch.arange(seed, seed + count), (8, 12), 72)
    return View(torch.randn(count, 3, 32, 48, generator=generator), mask, 72)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@torch.no_grad()
def test_a_control_knows_nothing_of_its_own_mask(mechanism):
    """With the pixels as they are and an image's mask changed, its own features stay (those of its neighbour may change)."""
    seen = view()
    mask = seen.mask.clone()
    mask[1] = view(seed=9).mask[1]
    other = seen._replace(mask=mask)
    placed, unplaced = network(mechanism, None, Coordinates()), network(mechanism, None)
    assert not torch.equal(placed(seen).features[1], placed(other).features[1])
    for control in DEAD:
        encoder = unplaced if isinstance(control, Shuffled) else placed  # the frame of position is drawn from all masks
        set_control(encoder, control)
        assert torch.equal(encoder(seen).features[1], encoder(other).features[1]), control


@pytest.mark.parametrize("control", [Zero(), Constant(), Fixed()], ids=lambda control: type(control).__name__)
@torch.no_grad()
def test_a_control_does_not_know_where_it_is(control):
    encoder = SemanticCNN(Geometry(3, (32, 32), 4, "circular"), "test", [Coordinates(), Mask()], Channels, mlp_ratio=2)
    initialise(encoder, 0)
    stir(encoder)
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    everything = torch.ones(1, 8, 8, dtype=torch.bool)  # a mask that shifts into itself, and so tells no place

    def change() -> float:
        still, moved = (
            encoder.eval()(View(pixels.roll(shift, 3), everything, 64)).features.roll(-shift // 4, 3) for shift in (0, 8)
        )
        return (still - moved).abs().max().item()

    assert change() > 1e-2
    set_control(encoder, control)
    assert change() < 1e-4


@torch.no_grad()
def test_what_each_control_says():
    seen, grid = view(), Grid(16, 24, (1, 1))
    mask, place = Mask(), Coordinates()
    assert not Zero()(mask, seen, grid).any()
    assert not Zero()(place, seen, grid).any()
    assert (Constant()(mask, seen, grid) == 1).all()
    assert (Constant()(place, seen, grid) == 1).all()
    fixed = Fixed()(mask, seen, grid)
    assert (fixed == fixed[:1]).all()
    assert fixed[0, 0, 1:-1, 1:-1].mean() == 72 / 96
    assert torch.equal(fixed, Fixed()(mask, view(seed=5), grid))
    assert not Fixed()(place, seen, grid).any()
    assert torch.equal(Shuffled()(mask, seen, grid), mask(seen, grid).roll(1, 0))
    alone = seen._replace(pixels=seen.pixels[:1], mask=seen.mask[:1])
    assert torch.equal(Shuffled()(mask, alone, grid), mask(alone, grid).flip((2, 3)))
    frame, true = Shuffled()(place, seen, grid), place(seen, grid)
    assert frame.shape == true.shape
    assert torch.equal(frame.flatten(2).sort().values, true.flatten(2).sort().values)
    assert not torch.equal(frame, true)
    assert not torch.equal(frame, Shuffled()(place, view(seed=5), grid))
    noise = Noise()(place, seen, grid)
    assert noise.min() >= -1
    assert noise.max() <= 1
    assert not torch.equal(noise, Noise()(place, view(seed=5), grid))


@torch.no_grad()
def test_a_shifted_frame_is_uniform_over_places():
    """Over many batches every value of x is told as often as every other at the first site."""
    grid, place = Grid(4, 4), Coordinates()
    told = [Shuffled()(place, view(2, seed), grid)[0, 0, 0, 0].item() for seed in range(400)]
    counts = [told.count(value) for value in (-0.75, -0.25, 0.25, 0.75)]
    assert min(counts) > 60  # 100 expected, deviation 8.7
    assert sum(counts) == 400


@torch.no_grad()
def test_one_indicator_alone_can_be_deceived():
    part, other, seen, grid = Mask(), Coordinates(), view(), Grid(8, 12)
    control = Only(part, Zero())
    assert not control(part, seen, grid).any()
    assert torch.equal(control(other, seen, grid), other(seen, grid))

    assert not Only(part, Shuffled(), otherwise=Zero())(other, seen, grid).any()
    assert Only(part, Shuffled(), otherwise=Zero()).num_masked(seen) == seen.num_masked
    assert Only(other, Shuffled(), otherwise=Zero()).num_masked(seen) == 0


@torch.no_grad()
def test_no_shuffled_control_tells_the_truth():
    """Of a batch of whole images, whose frames are all alike, the place in them is still another one."""
    seen, grid = view(), Grid(8, 12)
    for part in (CropFrame(), Coordinates(), Mask()):
        assert not torch.equal(Shuffled()(part, seen, grid), part(seen, grid))
    assert MaskRatio().controls == ("zero",)  # a batch has one ratio, so there is nothing to shuffle


@torch.no_grad()
def test_a_zero_control_of_overlay_replace_is_plain():
    encoder, plain = network(OverlayReplace, Zero(), Coordinates()), SemanticCNN(GEOMETRY, "test", mlp_ratio=2).eval()
    plain.load_state_dict({key: value for key, value in encoder.state_dict().items() if ".mechanism." not in key})
    assert torch.equal(encoder(view()).features, plain(view()).features)


@torch.no_grad()
def test_a_control_of_position_can_be_taken_away():
    encoder, seen = network(Channels, None, Coordinates()), view()
    true = encoder(seen).features
    set_control(encoder, Zero())
    assert not torch.equal(encoder(seen).features, true)
    set_control(encoder, None)
    assert torch.equal(encoder(seen).features, true)


def test_controls_of_what_is_not_told_are_refused():
    with pytest.raises(ValueError, match="without indicators"):
        set_control(SemanticCNN(GEOMETRY, "test", mlp_ratio=2), Zero())
    with pytest.raises(ValueError, match="position alone"):
        set_control(SemanticCNN(GEOMETRY, "test", [Coordinates()], Channels, mlp_ratio=2), Fixed())
    with pytest.raises(ValueError, match="content and position alone"):
        set_control(SemanticCNN(GEOMETRY, "test", [Coordinates(), VisibleColour()], Channels, mlp_ratio=2), Fixed())
    assert Fixed().problem(Indicators([Mask()])) is None
    mask = "--model.encoder.indicators=[{class_path: semconv.indicators.Mask}]"
    with pytest.raises(ValueError, match="no convolution reads the indicators Mask, as all are plain: name a variant with a"):
        make_task("cnn_plain", mask)


@together("control", [Zero(), Constant(), Fixed(), Noise(), Shuffled(), Only(Mask(), Zero(), Zero())])
def test_no_weight_waits_for_a_gradient_that_a_control_keeps_from_it(control):
    """Several processes would wait for it in vain."""
    encoder = SemanticCNN(GEOMETRY, "micro", [Mask(), LearnedTable(), SemanticMap()], Channels, mlp_ratio=2)
    set_control(encoder, control)
    freeze_dropped(encoder)
    stir(encoder)
    encoder(view()).features.square().sum().backward()
    assert [key for key, weight in encoder.named_parameters() if weight.requires_grad and weight.grad is None] == []
    heard = any(key.startswith("indicators.") and weight.requires_grad for key, weight in encoder.named_parameters())
    assert heard == isinstance(control, Shuffled)


@pytest.mark.parametrize("control", ["zero", "constant", "fixed", "shuffled", "noise"])
def test_each_file_makes_the_control_that_it_names(control):
    file = f"experiments/controls/{control}.yaml"
    task = built("cnn_channels", "-c", file).model
    assert type(task.encoder.indicators.control).__name__.lower() == control
    if control == "fixed":
        assert task.encoder.indicators.control.masker.low == 0.75
    images = random_images(make_task("cnn_channels"))
    seen, _ = look(task, images, RandomMasker(), Hide())
    assert task(seen).isfinite().all()


def test_the_unconditioned_decoder_does_not_depend_on_the_mask():
    task = built("controls/cnn_plain_unconditioned_decoder").model
    assert task.decoder.token.mask_token is None
    assert built("controls/cnn_plain_unconditioned_decoder").config["experiment"] == "cnn_plain_unconditioned_decoder"


SHALLOW = Dimensions(ViTSize(96, 4, 4), CNNSize((16, 32, 64, 64), (1, 1, 1, 1)), DecoderSize(64, 2, 4))
# of more operations by signals, attention and another width, response norms; of fewer, where plain is at its narrowest, and not
COSTLY = [("cnn_channels", "test"), ("cnn_gradual", "test"), ("cnn_fcmae", "test"), ("cnn_sparse", SHALLOW)]


@pytest.mark.parametrize(("name", "size"), COSTLY)
def test_wide_plain_has_the_training_flops_of_its_variant(name, size):
    from semconv.encoders.matching import training_flops

    geometry, factory = Geometry(3, (32, 32), 4, batch_size=128, num_masked=48), encoder_factory(name)
    with torch.device("meta"):
        told, wide = factory(geometry, size), factory(geometry, size, as_plain="flops")
        ratio = training_flops(wide, geometry) / training_flops(told, geometry)
    if told.drops_masked and size == "test":  # plain's spatial convolutions alone cost more: its MLPs are as narrow as they get
        assert 1 < ratio < 1.3
        assert {block.mlp.fc1.out_channels for stage in wide.stages for block in stage if hasattr(block, "mlp")} == {8}
    else:
        assert ratio == pytest.approx(1, abs=0.02)
    assert wide.conveys == frozenset()


def test_slow_plain_takes_as_long_as_a_told_network_that_is_slow(monkeypatch):
    """Time is simulated: it goes with the perceptrons' width, and twice as fast for what is told."""
    from semconv.encoders import matching

    def steps(plain, told, geometry):
        return plain.mlp_ratio / (2 * told.mlp_ratio)

    monkeypatch.setattr(matching, "_time_ratio", steps)
    factory = encoder_factory("cnn_channels")
    ordinary, slow = factory(GEOMETRY, "test"), factory(GEOMETRY, "test", as_plain="time")
    assert slow.mlp_ratio == pytest.approx(2 * ordinary.mlp_ratio, rel=0.03)


def test_one_of_several_processes_does_not_measure_time(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match=r"give encoder\.mlp_ratio"):
        encoder_factory("cnn_channels")(GEOMETRY, "test", as_plain="time")


def test_controls_are_named_after_what_they_stand_beside():
    from semconv.tracking.facts import control, variant_name

    names = {
        file: variant_name(parsed("cnn_channels", "-c", f"experiments/controls/{file}.yaml"))
        for file in ("zero", "fixed", "cnn_plain_wide")
    }
    assert names == {"zero": "cnn_channels-zero", "fixed": "cnn_channels-fixed", "cnn_plain_wide": "cnn_channels-plain_wide"}
    assert control(parsed("cnn_channels")) is None
