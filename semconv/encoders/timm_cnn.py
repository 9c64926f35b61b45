"""Any CNN of timm's as an encoder."""

from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from semconv.convolution import MechanismFactory, Plain, SemanticConv2d
from semconv.corruption import View
from semconv.encoders.cnn import Depth
from semconv.encoders.encoder import Encoder, Encoding, Geometry, TimmModel, with_finer
from semconv.encoders.sizes import Size
from semconv.encoders.weights import aligned, read_tensors, require_fit
from semconv.files import user_path
from semconv.indicators import Grid, Indicator
from semconv.rewriting.network import semanticize
from semconv.timm_models import init_convolutional


class TimmEncoder(Encoder):
    """A CNN of timm's without its classifier, rewritten by `semconv.semanticize`.

    Its width and depth are those of `name`, whatever the size of the protocol: parameters do not match the baseline's, and there is
    no plain control of equal cost; compare variants of one name. Features stand at the network's own stride, 32 pixels for most;
    stages coarser than a mask cell get the masked fraction. Pools keep their own padding under every padding mode.

    Without given weights timm's own initialisation is drawn from the run's seed, the same for every mechanism. timm's published
    weights expect images normalised by the mean and deviation that timm names (`pretrained_cfg`).

    Args:
        geometry: the images to build for.
        size: not used: `name` says it.
        name: what timm calls the model, such as resnet50, convnext_tiny, efficientnet_b0.
        indicators: the indicators to condition on.
        mechanism: how signals enter a convolution.
        depth: where: at the stem; at the stem and the first spatial convolution of each stage; at all spatial convolutions; or at
            the first spatial convolution of the listed stages, of which 0 is the stem.
        pretrained: start from the weights that timm publishes, which are downloaded.
        checkpoint_path: start from the weights of a file in timm's naming, with or without a classifier.
        output_stride: pixels per site, where the model can be built for another than its own.
        drop_path: share of the residual branches that is dropped in training; None: as the model has it.

    Raises:
        ValueError: timm has no such model, or it is no CNN that can be conditioned there; the image is no multiple of its stride;
            the cell is none, and the mechanism needs whole sites; or the weights do not fit.
    """

    def __init__(
        self,
        geometry: Geometry,
        size: Size,
        name: str,
        indicators: list[Indicator] | None = None,
        mechanism: MechanismFactory = Plain,
        depth: Depth | list[int] = "stages",
        pretrained: bool = False,
        checkpoint_path: str | None = None,
        output_stride: int | None = None,
        drop_path: float | None = None,
    ) -> None:
        super().__init__()
        if pretrained and checkpoint_path:
            raise ValueError(f"weights are to come from timm and from {checkpoint_path}: give pretrained or checkpoint_path")
        given = {"output_stride": output_stride, "drop_path_rate": drop_path}
        options = {key: value for key, value in given.items() if value is not None}
        self._output_stride = output_stride
        self._create = partial(_create, name, geometry.channels, options)
        plain = self._create(pretrained=pretrained)
        if checkpoint_path:
            _load(plain, user_path(checkpoint_path))
        self.weights_given = pretrained or checkpoint_path is not None
        # what the model pads with zeros is left as it is: TensorFlow's cannot be changed
        padding_mode = None if geometry.padding_mode == "zeros" else geometry.padding_mode
        self.model = semanticize(plain, mechanism, indicators or [], depth, padding_mode)
        conditioned = any(not isinstance(convolution.mechanism, Plain) for convolution in self.model.conditioned.values())
        self.conveys = self.model.indicators.conveys if conditioned else frozenset()
        self.drops_masked = self.model.sees_visible_alone
        self.stride = cast(Any, plain).feature_info[-1]["reduction"]
        self.num_features, self.finer = self._measure(geometry, name)

    def forward(self, view: View) -> Encoding:
        """Encode a view; features stand at every `stride` pixels: `b num_features sh sw`."""
        return with_finer(self.encode_stages(view))

    def encode_stages(self, view: View) -> list[Encoding]:
        """After the stem and after each stage."""
        pixels = view.pixels.contiguous(memory_format=torch.channels_last)
        signals = self.model.indicators(view)
        maps = self.model.forward_stages(pixels, signals)
        if not self.drops_masked:
            return [Encoding(x) for x in maps]
        visible = [signals.visible(Grid(x.shape[2], x.shape[3])) for x in maps]
        return [Encoding(sites.only(x), sites.valid) for x, sites in zip(maps, visible, strict=True)]

    def as_timm(self) -> TimmModel | str:
        if difference := self.model.unlike_timm:
            return f"its {self.model.model_name} {difference}"
        arguments = {} if self._output_stride is None else {"output_stride": self._output_stride}
        note = 'For the map of features, one vector per site, give `global_pool=""` and call `model(pixels)`.'
        return TimmModel(str(self.model.model_name), arguments, self.model.timm_state_dict(), note)

    def init_weights(self, module: nn.Module) -> None:
        """Draw what `module` holds; timm's network is drawn as a whole, in timm's way, unless weights were given."""
        if module is self.model and not self.weights_given:
            self.model.load_timm_state_dict(self._create().state_dict())
        elif any(module is part for part in self.model.conditioning_modules()):
            init_convolutional(module)

    def _measure(self, geometry: Geometry, name: str) -> tuple[int, tuple[tuple[int, int], ...]]:
        """`num_features` and `finer`, as a call with a blank image shows them; that call tries whether all sites are whole."""
        heights: dict[str, int] = {}

        def note(path: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
            heights[path] = output.shape[2]

        conditioned, (height, width) = self.model.conditioned, geometry.size
        hooks = [module.register_forward_hook(partial(note, path)) for path, module in conditioned.items()]
        try:
            with torch.no_grad():
                encoding = self.eval()(geometry.blank())
        except RuntimeError as error:
            raise ValueError(f"images of {height} x {width} pixels are too small for {name}: {error}") from error
        self.train()
        for hook in hooks:
            hook.remove()
        _, features, rows, columns = encoding.features.shape
        if height % self.stride == width % self.stride == 0 and (rows, columns) != (height // self.stride, width // self.stride):
            raise ValueError(
                f"{name} gives {rows} x {columns} sites and not {height // self.stride} x {width // self.stride}: it has layers "
                "behind its last features that are no classifier's; choose another CNN"
            )
        if (rows * self.stride, columns * self.stride) != (height, width):
            raise ValueError(
                f"images of {height} x {width} pixels are no multiple of the stride of {name}, {self.stride}: change data.size, or "
                "model.encoder.output_stride"
            )
        for path, sites in heights.items():
            _require_whole_sites(conditioned[path], path, height // sites, geometry.cell)
        return features, tuple((stage.features.shape[1], height // stage.features.shape[2]) for stage in encoding.finer)


def _create(name: str, channels: int, options: dict[str, Any], pretrained: bool = False) -> nn.Module:
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=1)
        raise ValueError(f"timm has no model {name}" + (f": did you mean {near[0]}?" if near else ": see timm.list_models()"))
    try:
        return timm.create_model(name, pretrained, in_chans=channels, num_classes=0, global_pool="", **options)
    except (TypeError, AssertionError) as error:  # what timm says of arguments that a model has not
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise ValueError(f"timm's {name} cannot be built with {given}: {str(error) or 'it has no such choice'}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise ValueError(f"there are no weights of timm's {name} to be had: {error}; give checkpoint_path a file") from error


def _load(model: nn.Module, path: Path) -> None:
    """Fill a model from a file; a classifier in the file is left out."""
    if not path.is_file():
        raise ValueError(f"there is no file of weights {path}: correct checkpoint_path, or leave it out")
    own = model.state_dict()
    state = aligned(read_tensors(path), own)
    classifiers = model.pretrained_cfg["classifier"]  # type: ignore[index]
    prefixes = tuple(f"{name}." for name in ([classifiers] if isinstance(classifiers, str) else classifiers))
    state = {name: tensor for name, tensor in state.items() if name in own or not name.startswith(prefixes)}
    require_fit(state, own, path, "give the name that timm calls the file's model, and images of as many channels")
    model.load_state_dict(state)


def _require_whole_sites(conditioned: SemanticConv2d, path: str, stride: int, cell: int) -> None:
    if conditioned.mechanism.needs_whole_sites and cell % stride:
        raise ValueError(
            f"{type(conditioned.mechanism).__name__} at {path} has sites of {stride} pixels, masked in part by cells of {cell}: "
            f"give a model.cell that is a multiple of {stride}, a smaller model.encoder.output_stride, or earlier stages by depth"
        )
