"""Any CNN of timm's as a network with semantic convolutions."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Literal

from torch import Tensor, fx, nn

from semconv.convolution import MechanismFactory, SemanticConv2d, unlike_plain
from semconv.indicators import Indicator, Indicators, PaddingMode, Signals
from semconv.mechanisms.sparse import Sparse
from semconv.rewriting.sparse_layers import AtVisible, layers_of_place, make_sparse
from semconv.rewriting.tracing import Place, Traced, spatial_convolutions, trace


class SemanticNetwork(nn.Module):
    """A network that `semanticize` has rewritten. Signals pass through it as an argument: nothing is kept between calls.

    Args:
        network: the rewritten network.
        indicators: the indicators of the network.
        model_name: what timm calls the model.
        padded_as_timm: whether its convolutions pad as the model's do.

    Attributes:
        network: its modules under timm's names; conditioned convolutions are `SemanticConv2d`.
        indicators: called with a view it gives the signals.
        model_name: None where the model is not timm's.
    """

    def __init__(self, network: fx.GraphModule, indicators: Indicators, model_name: str | None, padded_as_timm: bool) -> None:
        super().__init__()
        self.network, self.indicators = network, indicators
        self.model_name, self._padded_as_timm = model_name, padded_as_timm

    def forward(self, pixels: Tensor, signals: Signals) -> Tensor:
        """The output of the model for `pixels`, under the signals of the batch.

        Args:
            pixels: `b c h w`.
            signals: `self.indicators(view)` of the same images.
        """
        return self.network(pixels, signals)[-1]

    def forward_stages(self, pixels: Tensor, signals: Signals) -> list[Tensor]:
        """The maps after the stem and after each stage, but in place of the last what `forward` gives."""
        return list(self.network(pixels, signals))

    @property
    def conditioned(self) -> dict[str, SemanticConv2d]:
        """The conditioned convolutions by path."""
        return {path: module for path, module in self.network.named_modules() if isinstance(module, SemanticConv2d)}

    @property
    def unlike_timm(self) -> str:
        """Why this is not timm's plain network where nothing is masked, as the end of a sentence; empty: it is.

        `timm_state_dict` is then the whole of it.
        """
        if self.model_name is None:
            return "is none of timm's models"
        if not self._padded_as_timm:
            return "pads in another way than timm's"
        return unlike_plain(list(self.conditioned.values()), self.indicators)

    def timm_state_dict(self) -> dict[str, Tensor]:
        """The model's own weights under its own names, all of them and no others.

        Raises:
            ValueError: a mechanism has taken the place of a kernel.
        """
        for path, layer in self.conditioned.items():
            if not layer.mechanism.needs_kernel:
                name = type(layer.mechanism).__name__
                raise ValueError(f"{name} has taken the place of the kernel of {path}: there is no plain model of these weights")
        return self._plain_tensors()

    def load_timm_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take a plain model's weights, by its own names; mechanisms stay as they are.

        A kernel of which a mechanism has left the first channels alone (`Gradual`) takes those.
        """
        for name, tensor in self._plain_tensors().items():
            tensor.copy_(state[name][tuple(map(slice, tensor.shape))])

    @property
    def sees_visible_alone(self) -> bool:
        """True if all spatial convolutions are sparse, and with them all other layers: nothing stands at hidden sites then."""
        return any(isinstance(module, AtVisible) for module in self.network.modules())

    def conditioning_modules(self) -> Iterator[nn.Module]:
        """Every module that the plain model has not: indicators and mechanisms, and what these consist of."""
        for part in (self.indicators, *(layer.mechanism for layer in self.conditioned.values())):
            yield from part.modules()

    def _plain_tensors(self) -> dict[str, Tensor]:
        conditioned = self.conditioned
        mechanisms = tuple(f"{path}.mechanism." for path in conditioned)
        layers = [path for path, module in self.network.named_modules() if isinstance(module, AtVisible)]
        inner = [f"{path}.convolution." for path in conditioned] + [f"{path}.layer." for path in layers]
        tensors = {}
        for name, tensor in self.network.state_dict().items():
            if not name.startswith(mechanisms):
                within = next((prefix for prefix in inner if name.startswith(prefix)), "")
                outer = within[:-1].rpartition(".")[0]
                tensors[f"{outer}.{name.removeprefix(within)}" if within else name] = tensor
        return tensors


def semanticize(
    model: nn.Module,
    mechanism: MechanismFactory,
    indicators: Sequence[Indicator],
    depth: Literal["stem", "stages", "all"] | list[int] = "stages",
    padding_mode: PaddingMode | None = None,
) -> SemanticNetwork:
    """Turn a CNN into a network `forward(pixels, signals)`, by rewriting what torch.fx traces of it.

    Spatial convolutions (kernel above 1) can be conditioned; squeeze-excite and pointwise convolutions never are. Weights stay,
    and the model that is given is left as it is. With mechanisms that start at zero (channels, appended values, overlay add)
    outputs are the model's to the bit, in training and in evaluation, until something is learned. `Sparse` at all convolutions
    makes the whole network sparse: norms and their statistics, pools, squeeze-excite and global response norm see visible sites
    alone, too.

        network = semanticize(timm.create_model("resnet50", pretrained=True), Channels, [Mask(), Coordinates()])
        logits = network(view.pixels, network.indicators(view))

    Args:
        model: a CNN of timm's, or another that torch.fx can trace.
        mechanism: how signals enter a convolution.
        indicators: the indicators to condition it on.
        depth: where: at the stem; at the stem and the first spatial convolution of each stage; at all spatial convolutions; or at
            the first spatial convolution of the listed stages, of which 0 is the stem. A stage ends where timm says so, in
            `model.feature_info`.
        padding_mode: how spatial convolutions continue a map beyond its border; None: as the model does. Pools keep their own way.

    Raises:
        ValueError: the model is no CNN, cannot be traced, or has no such stage; or a convolution to condition makes its
            padding or its kernel anew at every call, as TensorFlow's (`tf_*`) and standardised ones (`nf_*`) do; or a layer has no
            sparse form.
    """
    training, name = model.training, type(model).__name__
    model = deepcopy(model)
    modes = {module: module.training for module in model.modules()}  # those of norms may be another
    model_name = getattr(model, "pretrained_cfg", {}).get("architecture")
    convolutions = spatial_convolutions(model)
    for convolution in convolutions.values():
        _number_padding(convolution)
    padded_as_timm = padding_mode is None or all(layer.padding_mode == padding_mode for layer in convolutions.values())
    if not padded_as_timm:
        _set_padding(convolutions, padding_mode)
    traced = trace(model, model_name or name, layers_of_place(model))
    paths = _choose(traced, depth, model_name or name)
    for path in paths:
        _require_plain(path, convolutions[path])
    things = Indicators(indicators).to(next(iter(convolutions.values())).weight)
    order = [place.path for place in traced.places]
    last = max(1, len(order) - 1)
    conditioned = {path: SemanticConv2d.around(convolutions[path], things, mechanism, order.index(path) / last) for path in paths}
    sparse = depth == "all" and all(isinstance(layer.mechanism, Sparse) for layer in conditioned.values())
    others = make_sparse(traced.graph, dict(model.named_modules()), paths, model_name or name) if sparse else []
    _pass_signals(traced, [*paths, *others])
    network = fx.GraphModule(model, traced.graph)
    unused = model.state_dict().keys() - network.state_dict().keys()
    if unused:
        raise ValueError(f"{model_name or name} never uses its {min(unused)}: give a model without it")
    for path in (*conditioned, *others):
        parent, _, leaf = path.rpartition(".")
        setattr(
            network.get_submodule(parent),
            leaf,
            conditioned[path] if path in conditioned else AtVisible(network.get_submodule(path)),
        )
    made = SemanticNetwork(network, things, model_name, padded_as_timm).train(training)
    for module, mode in modes.items():
        module.training = mode
    return made


def _choose(traced: Traced, depth: Literal["stem", "stages", "all"] | list[int], name: str) -> list[str]:
    """Paths of the convolutions to condition."""
    if depth == "all":
        return [place.path for place in traced.places]
    if depth != "stem" and not traced.ends:
        raise ValueError(f"{name} has no feature_info that says after which modules its stages end: give depth stem or all")
    first: dict[int, Place] = {}
    for place in traced.places:
        first.setdefault(place.stage, place)
    wanted: list[int] = [0] if depth == "stem" else list(first) if depth == "stages" else depth
    if not wanted or not set(wanted) <= first.keys():
        raise ValueError(f"depth is {depth}: stages of {name} are numbered 1 to {max(first)}, and the stem is 0")
    return [first[stage].path for stage in sorted(set(wanted))]


def _require_plain(path: str, convolution: nn.Conv2d) -> None:
    if type(convolution).forward is not nn.Conv2d.forward or isinstance(convolution.padding, str):
        raise ValueError(
            f"{path} makes its padding or kernel anew at every call ({type(convolution).__name__}), and cannot be conditioned: "
            "choose other stages by depth, or give a model that does not, as efficientnet_b0 for tf_efficientnet_b0, at its stride"
        )


def _number_padding(convolution: nn.Conv2d) -> None:
    """Say in numbers a padding that is said in words, where it is the same on both sides."""
    reach = [(kernel - 1) * step for kernel, step in zip(convolution.kernel_size, convolution.dilation, strict=True)]
    if convolution.padding == "valid":
        convolution.padding = (0, 0)
    elif convolution.padding == "same" and not any(side % 2 for side in reach):
        convolution.padding = (reach[0] // 2, reach[1] // 2)


def _set_padding(convolutions: dict[str, nn.Conv2d], padding_mode: str | None) -> None:
    for path, convolution in convolutions.items():
        _require_plain(path, convolution)
        convolution.padding_mode = padding_mode  # type: ignore[assignment]


def _pass_signals(traced: Traced, conditioned: list[str]) -> None:
    """Give the graph a second argument, hand it to the conditioned convolutions, and let the graph return its stages, too."""
    graph = traced.graph
    pixels = next(iter(graph.find_nodes(op="placeholder")))
    with graph.inserting_after(pixels):
        signals = graph.placeholder("signals")
    for node in graph.nodes:
        if node.op == "call_module" and node.target in conditioned:
            node.args = (*node.args, signals)
    output = graph.output_node()
    output.args = ((*traced.ends[:-1], output.args[0]),)
    graph.lint()
