"""timm's CNNs, rewritten so that they can be told things."""

import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any, Literal, cast

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from semconv import semanticize
from semconv.convolution import Plain
from semconv.indicators import Coordinates, Mask, SemanticMap
from semconv.mechanisms import (
    AppendedValues,
    Channels,
    FiLM,
    Gated,
    Gradual,
    LocalAttention,
    MaskToken,
    OverlayAdd,
    OverlayReplace,
    Partial,
)
from tests.cnns import FIRST, call, draw, every_model, every_model_by, own, plain, rewrite
from tests.oracles import Mean


@every_model_by(Channels, AppendedValues, OverlayAdd, FiLM, Gated)
def test_until_something_is_learned_outputs_are_the_models_to_the_bit(name, mechanisms):
    for mechanism in mechanisms:
        model, network, view = own(name), rewrite(name, mechanism, told=False), draw()
        for training in (False, True):
            model.train(training)
            network.train(training)
            assert torch.equal(call(network, view), model(view.pixels))
        expected, state = model.state_dict(), network.timm_state_dict()  # with the statistics of the batch
        assert list(state) == list(expected)
        assert all(torch.equal(state[key], expected[key]) for key in expected)


@every_model
def test_the_stem_and_the_first_spatial_convolution_of_each_stage_are_told(name):
    network = semanticize(plain(name), Channels, [Mask()], "stages")
    assert list(network.conditioned) == FIRST[name]
    assert list(semanticize(plain(name), Channels, [Mask()], "stem").conditioned) == FIRST[name][:1]
    assert list(semanticize(plain(name), Channels, [Mask()], [3, 1]).conditioned) == [FIRST[name][1], FIRST[name][3]]


@every_model
def test_all_spatial_convolutions_are_told_and_no_others(name):
    convolutions = {path: module for path, module in plain(name).named_modules() if isinstance(module, nn.Conv2d)}
    spatial = {path for path, module in convolutions.items() if module.kernel_size != (1, 1)}
    assert len(convolutions) >= len(spatial) >= 10
    assert rewrite(name, Channels).conditioned.keys() == spatial
    assert not any(part in f".{path}." for path in spatial for part in (".se.", ".se_module.", ".downsample.0.", ".fc."))


@every_model
def test_stages_give_what_timms_modules_do(name):
    model, network, view = own(name).eval(), rewrite(name, Channels, told=False), draw()
    given = []
    for stage in cast(Any, model).feature_info:
        model.get_submodule(stage["module"]).register_forward_hook(lambda module, inputs, output: given.append(output.clone()))
    logits, maps = model(view.pixels), network.forward_stages(view.pixels, network.indicators(view))
    assert len(maps) == len(FIRST[name])
    assert torch.equal(maps[-1], logits)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(maps[-len(given) : -1], given[:-1], strict=True))
    reductions = [64 // x.shape[2] for x in maps[:-1]]
    assert reductions == sorted(reductions)


@every_model_by(Channels, AppendedValues, OverlayAdd, OverlayReplace, MaskToken, FiLM, Gated, Partial, LocalAttention, Gradual)
def test_what_is_told_is_heard_and_every_weight_is_trained(name, mechanisms):
    for mechanism in mechanisms:
        network, view = rewrite(name, mechanism), draw()
        other = view._replace(mask=view.mask.flip(1))
        assert not torch.equal(call(network, view), call(network, other))
        network.train()
        call(network, view).square().sum().backward()
        assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []


@every_model_by(Channels, AppendedValues, OverlayAdd, OverlayReplace, MaskToken, FiLM, Partial)
def test_with_nothing_masked_it_is_timms_network(name, mechanisms):
    for mechanism in mechanisms:
        network, view, model = rewrite(name, mechanism, Mask()), draw(share=0), own(name).eval()
        with torch.no_grad():
            for parameter in network.network.parameters():
                parameter.mul_(1.01)  # as if it had been trained
        assert network.unlike_timm == ""
        assert network.model_name == name
        model.load_state_dict(network.timm_state_dict(), strict=True)
        with torch.no_grad():
            # sums of float32 in another order
            torch.testing.assert_close(model(view.pixels), call(network, view), rtol=1e-5, atol=1e-5)


def test_what_tells_of_places_or_pads_otherwise_is_not_timms_network():
    assert "conditioned on Coordinates by Channels" in rewrite("test_resnet", Channels, Mask(), Coordinates()).unlike_timm
    assert "pads in another way" in semanticize(plain("test_resnet"), Channels, [Mask()], padding_mode="circular").unlike_timm
    assert semanticize(plain("test_resnet"), Channels, [Mask()], padding_mode="zeros").unlike_timm == ""
    # these hear nothing where nothing is masked
    assert semanticize(plain("test_resnet"), Plain, [Mask(), Coordinates()]).unlike_timm == ""
    assert rewrite("test_resnet", MaskToken, Mask(), Coordinates()).unlike_timm == ""


@pytest.mark.parametrize("name", ["test_resnet", "convnextv2_atto"])
def test_it_is_copied_pickled_saved_and_loaded(name):
    network, view = rewrite(name, Channels), draw()
    expected, file = call(network, view), io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    pickled = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(network))))
    for other in (deepcopy(network), pickled, torch.load(file, weights_only=False)):
        assert torch.equal(call(other, view), expected)
        with torch.no_grad():
            cast(Channels, next(iter(other.conditioned.values())).mechanism).from_signals.weight.add_(1)
        assert not torch.equal(call(other, view), expected)
    assert torch.equal(call(network, view), expected)
    fresh = rewrite(name, Channels, told=False)
    assert not torch.equal(call(fresh, view), expected)
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(call(fresh, view), expected)


def test_networks_on_two_threads_do_not_mix():
    networks = [rewrite("test_resnet", Channels), rewrite("test_resnet", OverlayReplace)]
    work = [(network, draw(seed=seed)) for seed in range(2) for network in (*networks, networks[0])]
    with torch.no_grad():
        expected = [call(*each) for each in work]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda each: torch.no_grad()(call)(*each), work * 2))
    assert all(torch.equal(one, other) for one, other in zip(found, expected * 2, strict=True))


def test_the_model_that_is_given_is_left_as_it_is():
    model, view = own("test_resnet").train(), draw()
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    network = semanticize(model, Channels, [Mask()], "all", padding_mode="reflect")
    assert network.training
    call(network, view).sum().backward()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    first = model.get_submodule("conv1.0")
    assert type(first) is nn.Conv2d
    assert first.padding_mode == "zeros"


def test_parts_keep_their_modes_their_precision_and_their_device():
    model, view = own("test_resnet").train(), draw()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # as of a part that is not trained
    network = semanticize(model, Channels, [Mask()], "all")
    assert torch.equal(call(network, view), model(view.pixels))
    half = semanticize(own("test_resnet").bfloat16(), Gated, [Mask(), SemanticMap()], "all")
    assert call(half, view._replace(pixels=view.pixels.bfloat16())).dtype == torch.bfloat16
    elsewhere = semanticize(own("test_resnet").to("meta"), Channels, [Mask(), SemanticMap()], "all")
    assert {parameter.device.type for parameter in elsewhere.parameters()} == {"meta"}


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_100"])
def test_dropout_drops_in_training_alone(name):
    torch.manual_seed(0)
    model = timm.create_model(name, drop_rate=0.5).eval()  # which calls dropout as a function
    network, view = semanticize(model, Channels, [Mask()]), draw()
    assert not network.training
    assert torch.equal(call(network, view), model(view.pixels))
    for each in (model, network):
        each.train()
    torch.manual_seed(1)
    expected = model(view.pixels)
    torch.manual_seed(1)
    assert torch.equal(call(network, view), expected)
    assert not torch.equal(call(network, view), expected)


COMPILED = {"test_resnet": "stages", "resnet18": "all", "convnextv2_atto": "all", "mobilenetv3_large_100": "all"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "test_resnet" else pytest.mark.slow) for name in COMPILED])
def test_it_compiles_into_one_graph(name):
    network, view = rewrite(name, Channels, depth=COMPILED[name]), draw()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(view.pixels, network.indicators(view)), call(network, view))


def test_a_mechanism_is_told_once_how_deep_it_stands_among_all_spatial_convolutions():
    told = semanticize(plain("resnet18"), Mean, [], [0, 2, 4]).conditioned
    assert [convolution.mechanism.depths for convolution in told.values()] == [[0], [5 / 16], [13 / 16]]
    assert [each.mechanism.depths for each in semanticize(plain("resnet18"), Mean, [], "all").conditioned.values()][-1] == [1]


def test_a_mechanism_in_the_place_of_a_kernel_has_no_plain_model():
    network = semanticize(plain("test_resnet"), Mean, [], "all")
    assert call(network, draw()).shape == (2, 10)
    assert "conditioned by Mean" in network.unlike_timm
    with pytest.raises(ValueError, match=r"Mean has taken the place of the kernel of conv1\.0: there is no plain model"):
        network.timm_state_dict()
    network.load_timm_state_dict(timm.create_model("test_resnet", num_classes=10).state_dict())


class Branching(nn.Module):
    """Calls other layers in training."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x) if self.training else x


class Deciding(Branching):
    """Calls other layers for other pixels."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x) if x.sum() > 0 else x


class Idle(Branching):
    """Holds a weight that it never uses: the third, of which there is no other, or the second spatial one."""

    def __init__(self, called: int = 2) -> None:
        super().__init__()
        self.called = called
        self.third = nn.Conv2d(4, 4, 1) if called == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) if self.called == 2 else self.first(x)


@pytest.mark.parametrize(
    ("model", "depth", "complaint"),
    [
        ("vit_tiny_patch16_224", "all", "vit_tiny_patch16_224 has no spatial convolutions beside its patch projection: give a CNN"),
        (nn.Sequential(nn.Linear(3, 3)), "all", "Sequential has no spatial convolutions"),
        (Branching(), "all", "Branching cannot be rewritten, as it calls other layers in training"),
        (Deciding(), "all", "Deciding cannot be rewritten, as it decides by what it reads"),
        (Idle(), "all", "Idle never uses its third.bias: give a model without it"),
        (Idle(called=1), "all", "Idle never uses its second.bias: give a model without it"),
        ("tf_mobilenetv3_small_100", "stem", r"conv_stem makes its padding or kernel anew at every call \(Conv2dSame\)"),
        ("nf_resnet26", "stem", r"stem.conv makes its padding or kernel anew at every call \(ScaledStdConv2d\)"),
        ("resnet18", [0, 7], r"depth is \[0, 7\]: stages of resnet18 are numbered 1 to 4, and the stem is 0"),
        ("resnet18", [], r"depth is \[\]: stages of resnet18 are numbered 1 to 4"),
        ("hrnet_w18_small", "stages", "hrnet_w18_small has no feature_info that says .*: give depth stem or all"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_cannot_be_told_is_refused_with_the_remedy(model, depth, complaint):
    if isinstance(model, str):
        with torch.device("meta"):
            model = timm.create_model(model)
    with pytest.raises(ValueError, match=complaint) as caught:
        semanticize(model, Channels, [Mask()], depth)
    assert "\n" not in str(caught.value)


# the first spatial convolution of the stem and of each stage, where timm's definitions are of another make than others'
OTHERS = {
    "vgg11_bn": [f"features.{number}" for number in (0, 4, 8, 15, 22)],
    "convmixer_768_32": ["stem.0", *(f"blocks.{number}.0.fn.0" for number in range(32))],
    "tresnet_m": ["body.conv1.conv", "body.layer2.0.conv1.conv", "body.layer3.0.conv2.conv", "body.layer4.0.conv2.conv"],
    "selecsls42b": ["stem.0", *(f"features.{number}.conv1.0" for number in (0, 2, 4)), "head.0.0", "head.2.0"],
}


@pytest.mark.parametrize("name", OTHERS)
def test_models_of_another_make_are_conditioned_too(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    depth: Any = "stages" if getattr(model, "feature_info", None) else "all"  # convmixer had none in older versions of timm
    assert list(semanticize(model, Channels, [Mask()], depth).conditioned) == OTHERS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_models_of_another_make_keep_their_outputs(name):
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    network, view = semanticize(model, Channels, [Mask()], "all"), draw()
    with torch.no_grad():
        assert torch.equal(call(network, view), model(view.pixels))
    assert network.timm_state_dict().keys() == model.state_dict().keys()
    assert network.unlike_timm == ""


def test_channels_with_nothing_to_tell_are_refused():
    with pytest.raises(ValueError, match="Channels has no indicators"):
        semanticize(plain("test_resnet"), Channels, [])


def test_uneven_padding_is_kept_where_it_is_not_told():
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_b0").eval()
    network, view = semanticize(model, Channels, [Mask()], [1]), draw()
    assert torch.equal(call(network, view), model(view.pixels))


def test_a_network_of_another_source_is_told_at_its_stem_or_everywhere():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)).eval()
    places: dict[Literal["stem", "all"], list[str]] = {"stem": ["0"], "all": ["0", "2"]}
    for depth, paths in places.items():
        network, view = semanticize(model, Channels, [Mask()], depth), draw()
        assert list(network.conditioned) == paths
        assert network.model_name is None
        assert torch.equal(call(network, view), model(view.pixels))
    assert semanticize(model, Plain, [], "all").conditioned.keys() == {"0", "2"}


def train_in_one_of_two_processes(rank: int, file: str, results: str) -> None:
    """A step on half of a batch each; the gradients of both are saved."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    network, view = rewrite("convnextv2_atto", Channels), draw(4)
    parallel = nn.parallel.DistributedDataParallel(network)
    share = view._replace(pixels=view.pixels[2 * rank : 2 * rank + 2], mask=view.mask[2 * rank : 2 * rank + 2])
    parallel(share.pixels, network.indicators(share)).square().mean().backward()
    torch.save({key: parameter.grad for key, parameter in network.named_parameters()}, f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    spawn(train_in_one_of_two_processes, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    network, view = rewrite("convnextv2_atto", Channels), draw(4)
    call(network, view).square().mean().backward()
    shared = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for key, parameter in network.named_parameters():
        assert torch.equal(shared[0][key], shared[1][key])
        scale = cast(Tensor, parameter.grad).abs().max().item()
        # sums of float32 in another order
        torch.testing.assert_close(shared[0][key], parameter.grad, rtol=1e-3, atol=1e-3 * scale)
