"""A CNN as the graph that torch.fx traces of it: where its spatial convolutions stand, and where its stages end."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from timm.layers import GatherExcite
from timm.layers.cbam import CbamModule, LightCbamModule
from timm.layers.non_local_attn import BatNonLocalAttn
from timm.models.vgg import ConvMlp
from torch import fx, nn
from torch.fx.proxy import TraceError
from torch.nn import functional as F

# modules whose own spatial convolutions are never conditioned: attention, of which those of squeeze-excite are 1 x 1, and the first
# layer of a classifier, which spans the whole map
CLOSED = (BatNonLocalAttn, CbamModule, ConvMlp, GatherExcite, LightCbamModule)


class Place(NamedTuple):
    """The place of a spatial convolution."""

    path: str
    stage: int  # 0 is the stem; 0 for all where no stages are known


class Traced(NamedTuple):
    """A network's graph. Modules without a spatial convolution are one node each, so that they keep their own ways in training."""

    graph: fx.Graph
    places: list[Place]  # in the order in which they are called
    ends: list[fx.Node]  # what the stem and each stage gives; empty where no stages are known


def trace(model: nn.Module, name: str, shown: Sequence[str] = ()) -> Traced:
    """Trace a CNN.

    Args:
        model: what is traced; dropout that it calls as a function becomes a module of it.
        name: what it is called in errors.
        shown: paths of further modules that are to be nodes of their own.

    Raises:
        ValueError: it is no CNN, or what it does depends on what it reads.
    """
    convolutions = spatial_convolutions(model)
    if len(convolutions) < 2:
        raise ValueError(f"{name} has no spatial convolutions beside its patch projection: give a CNN, such as resnet50")
    stages = _stage_modules(model)
    try:
        tracers = [_trace(model.train(mode), [*convolutions, *stages, *shown]) for mode in (True, False)]
    except TraceError as error:
        raise ValueError(f"{name} cannot be rewritten, as it decides by what it reads ({error}): give another CNN") from error
    graphs = [tracer.graph for tracer in tracers]
    if str(graphs[0]) != str(graphs[1]):
        raise ValueError(f"{name} cannot be rewritten, as it calls other layers in training: give another CNN")
    calls = {stage: tracers[1].calls[stage] for stage in stages}
    return _locate(graphs[1], convolutions, calls)


def spatial_convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Convolutions with a kernel above 1 by path, but for those within `CLOSED` modules."""
    hidden = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, CLOSED))
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and not path.startswith(hidden)
    }


def _stage_modules(model: nn.Module) -> list[str]:
    """Paths of the modules after which resolution changes, as timm lists them; empty where it lists none that are there."""
    info: Any = getattr(model, "feature_info", [])
    modules = dict(model.named_modules())
    paths = [stage["module"] for stage in info if stage["module"]]  # a stem of other steps than modules has an empty one
    return paths if all(path in modules for path in paths) else []


class _Tracer(fx.Tracer):
    """Steps into modules that hold what is looked for, and into no others.

    Args:
        wanted: paths of what is looked for.

    Attributes:
        calls: what went into each of these and what came out of it.
    """

    def __init__(self, wanted: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.opened = {path[:end] for path in wanted for end, letter in enumerate(path) if letter == "."}
        self.wanted, self.calls = wanted, dict[str, tuple[fx.Node, fx.Node]]()

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return path not in self.opened

    def call_module(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        answer, path = super().call_module(module, forward, args, kwargs), self.path_of_module(module)
        if path in self.wanted:
            self.calls[path] = (_first(args[0]).node, _first(answer).node)
        return answer


def _first(value: Any) -> Any:
    """The features among what a module takes or gives: it may pass others on beside them."""
    return _first(value[0]) if isinstance(value, list | tuple) else value


def _trace(model: nn.Module, wanted: list[str]) -> _Tracer:
    tracer = _Tracer(tuple(wanted))
    graph = tracer.trace(model)
    # as a function it would drop for ever or never, as the model was when it was traced
    for number, node in enumerate(graph.find_nodes(op="call_function", target=F.dropout)):
        model.add_module(f"dropout_{number}", nn.Dropout(node.kwargs["p"]))
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.call_module(f"dropout_{number}", (node.args[0],)))
        graph.erase_node(node)
    return tracer


def _locate(graph: fx.Graph, convolutions: dict[str, nn.Conv2d], stages: dict[str, tuple[fx.Node, fx.Node]]) -> Traced:
    """Number the convolutions by stage."""
    position = {node: number for number, node in enumerate(graph.nodes)}
    ends = [end for _, end in stages.values()]
    order = dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "call_module" and node.target in convolutions)
    called = {path: min(position[node] for node in graph.find_nodes(op="call_module", target=path)) for path in order}
    passed = {path: sum(position[end] < number for end in ends) for path, number in called.items()}
    first = next(iter(stages), "").partition(".")[0]
    before = {path for path in passed if passed[path] == 0}
    within = {path for path in before if path.partition(".")[0] == first}
    if stages and before > within > set():  # timm's first stage holds convolutions, and the stem comes before it
        ends = [next(iter(stages.values()))[0], *ends]
        passed = {path: number + (path not in before - within) for path, number in passed.items()}
    last = max(0, len(ends) - 1)
    return Traced(graph, [Place(path, min(number, last)) for path, number in passed.items()], ends)
