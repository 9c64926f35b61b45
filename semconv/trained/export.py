"""Encoders for use elsewhere: weights in timm's naming, or a folder that `semconv.load_exported` reads.

Nothing is masked where features are used. An encoder that is conditioned on the mask alone, and is a model of timm's but for that,
is then this very model; all others go into a wrapper.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from semconv.controls import set_control
from semconv.encoders import Encoder, Geometry, MAEViT, Size, TimmEncoder
from semconv.evaluation.features import everything, pool
from semconv.indicators import Control
from semconv.tasks import MaskedReconstruction
from semconv.tracking.files import write_text, write_whole
from semconv.trained.run import TRUSTED, LoadedRun, build_parts, check_classes, load_run
from semconv.version import __version__

MARK = "export.json"
WEIGHTS = "model.safetensors"
ARCHITECTURES: dict[Size, str] = {
    "test": "vit_tiny_patch16_224",
    "tiny": "vit_tiny_patch16_224",
    "small": "vit_small_patch16_224",
    "base": "vit_base_patch16_224",
    "large": "vit_large_patch16_224",
    "huge": "vit_huge_patch14_224",
}
TIMM_README = """# {name}

The encoder of a run of semconv, as timm's {architecture}.

    import timm
    model = timm.create_model("local-dir:{output}", pretrained=True)
    features = model.forward_features(pixels)

`pixels` are `b {channels} {height} {width}`, scaled to 0..1 and normalised by mean {mean} and deviation {std} per channel, as
`config.json` says. There is no classifier: give `num_classes` to put an untrained one there. {why}
"""
WRAPPER_README = """# {name}

The encoder of a run of semconv, with its indicators and mechanisms. It is no model of timm's: {why}.

    import semconv
    model = semconv.load_exported("{output}")
    features = model(pixels)              # b {features} {rows} {columns}: one vector per site
    vectors = model(pixels, pooled=True)  # b {features}: their mean

`pixels` are `b {channels} h w`, scaled to 0..1 and normalised by mean {mean} and deviation {std} per channel (`model.mean`,
`model.std`); h and w are multiples of {cell}, and {height} x {width} is what it was trained on. `config.yaml` says what the encoder
is made of, and `model.safetensors` holds its weights; semconv {version} wrote them.
"""


class Exported(NamedTuple):
    """The result of an export."""

    folder: Path
    architecture: str | None  # timm's name; None: a wrapper
    why: str  # that it is this and not the other


class ExportedEncoder(nn.Module):
    """An encoder as it sees whole images.

    Args:
        encoder: from a view to features.
        geometry: what it was built for.
        mean: per channel, on the scale of 0 to 1, that its images are normalised with.
        std: likewise the deviation.
    """

    def __init__(self, encoder: Encoder, geometry: Geometry, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.encoder, self.geometry, self.mean, self.std = encoder, geometry, tuple(mean), tuple(std)

    def forward(self, pixels: Tensor, pooled: bool = False) -> Tensor:
        """Features of images of which nothing is masked.

        Args:
            pixels: `b c h w`, normalised.
            pooled: the mean over all sites, `b d`, in place of the map `b d h w`.

        Raises:
            ValueError: the images are no multiple of the cell, or have other channels.
        """
        cell, channels = self.geometry.cell, self.geometry.channels
        if pixels.dim() != 4 or pixels.shape[1] != channels or pixels.shape[2] % cell or pixels.shape[3] % cell:
            raise ValueError(f"pixels are {tuple(pixels.shape)}: give b {channels} h w, of which h and w are multiples of {cell}")
        encoding = self.encoder(everything(pixels, cell))
        return pool(encoding) if pooled else encoding.features


def export(folder: str | Path, output: str | Path, overwrite: bool = False, trust: Sequence[str] = ()) -> Exported:
    """Write a run's encoder into a folder of its own, for use elsewhere.

    Args:
        folder: the run's.
        output: made if it is not there. One that holds something is refused, unless it is an earlier export of the same run.
        overwrite: write into it all the same; what has other names stays.
        trust: further modules whose classes the run may name.

    Raises:
        ValueError: the folder is no run's or has no whole checkpoint; its encoder has no weights, or is conditioned on an external
            map; or the place is taken.
    """
    run = load_run(folder, trust)
    task, output = run.task, Path(output)
    if not isinstance(task, MaskedReconstruction):
        raise ValueError(f"{folder} is no run of masked reconstruction: export the run that it started from")
    if not any(True for _ in task.encoder.parameters()):
        raise ValueError(f"{folder}: {type(task.encoder).__name__} has no weights to export")
    if "oracle" in task.encoder.conveys:
        raise ValueError(
            f"{folder}: its encoder is conditioned on a map that comes with each image, and pixels alone have no features"
        )
    _claim(output, run, overwrite)
    mean, std = run.data.moments  # type: ignore[attr-defined]
    texts = {
        "name": f"{run.config.get('experiment')} ({run.folder.path.resolve().name})",
        "output": output,
        "channels": task.geometry.channels,
        "height": task.geometry.size[0],
        "width": task.geometry.size[1],
        "cell": task.geometry.cell,
        "mean": _listed(mean),
        "std": _listed(std),
        "version": __version__,
    }
    found = _as_timm(task, run.config)
    if isinstance(found, str):
        _write_wrapper(run, task, output, texts, found)
        return Exported(output, None, found)
    architecture, arguments, state, why = found
    _write_weights(output, state)
    config = _timm_config(architecture, arguments, task, mean, std)
    write_text(output / "config.json", json.dumps(config, indent=2) + "\n")
    write_text(output / "README.md", TIMM_README.format(**texts, architecture=architecture, why=why))
    return Exported(output, architecture, why)


def load_exported(folder: str | Path, trust: Sequence[str] = ()) -> ExportedEncoder:
    """An encoder that `semconv export` wrote as a wrapper, in evaluation mode: from pixels to features `b d h w`.

    Args:
        folder: the export's.
        trust: modules besides semconv and torch.nn whose classes it may name, such as `my_package`.

    Raises:
        ValueError: the folder is no such export, is damaged, or names a class that is not trusted.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file() or not (folder / MARK).is_file():
        remedy = f'it is of timm\'s: timm.create_model("local-dir:{folder}", pretrained=True)'
        raise ValueError(
            f"{folder} holds no wrapper: "
            + (remedy if (folder / "config.json").is_file() else "give the folder that semconv export wrote")
        )
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    check_classes({key: config.get(key) for key in ("encoder", "control")}, (*TRUSTED, *trust))
    geometry = Geometry(config["channels"], tuple(config["image_size"]), config["cell"], config["padding_mode"])
    types = {"encoder": Callable[[Geometry, Size], Encoder], "control": Control | None}
    built = build_parts(config, folder / "config.yaml", types)
    encoder = built.encoder(geometry, config["size"])
    set_control(encoder, built.control)
    try:
        encoder.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ValueError(f"{folder}/{WEIGHTS} cannot be loaded: export the run again") from error
    return ExportedEncoder(encoder, geometry, config["mean"], config["std"]).eval()


def _as_timm(task: MaskedReconstruction, config: Mapping[str, Any]) -> str | tuple[str, dict[str, Any], Mapping[str, Tensor], str]:
    """timm's name for an encoder, the arguments to build it with, its weights, and why; or why it has none."""
    encoder = task.encoder
    if isinstance(encoder, MAEViT):
        arguments: dict[str, Any] = {
            "img_size": list(task.geometry.size),
            "patch_size": encoder.stride,
            "embed_dim": encoder.num_features,
            "depth": len(encoder.blocks),
            "num_heads": encoder.blocks[0].attn.num_heads,  # type: ignore[union-attr]
            "global_pool": "token",
        }
        state = {name: tensor for name, tensor in encoder.state_dict().items() if name != "mask_token"}
        return ARCHITECTURES[task.size], arguments, state, "The first token is the class token, one per patch follows."
    if not isinstance(encoder, TimmEncoder):
        return f"{type(encoder).__name__} is none of its architectures"
    model, name = encoder.model, str(encoder.model.model_name)
    if model.indicators.control is not None:
        return f"its {name} has a control, which changes features even where nothing is masked"
    if not model.exports_as_timm:
        mechanisms = sorted({type(layer.mechanism).__name__ for layer in model.conditioned.values()})
        parts = ", ".join(type(part).__name__ for part in model.indicators)
        return f"its {name} is conditioned on {parts} by {', '.join(mechanisms)}, which changes features where nothing is masked"
    stride = config["model"]["init_args"]["encoder"]["init_args"].get("output_stride")
    arguments = {} if stride is None else {"output_stride": stride}
    why = 'For the map of features, one vector per site, give `global_pool=""` and call `model(pixels)`.'
    return name, arguments, model.timm_state_dict(), why


def _timm_config(
    architecture: str, arguments: dict[str, Any], task: MaskedReconstruction, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """A model's config in timm's terms, as it reads it from a folder."""
    return {
        "architecture": architecture,
        "num_classes": 0,
        "num_features": task.encoder.num_features,
        "model_args": {**arguments, "num_classes": 0, "in_chans": task.geometry.channels},
        "pretrained_cfg": {
            "input_size": [task.geometry.channels, *task.geometry.size],
            "num_classes": 0,
            "mean": list(mean),
            "std": list(std),
            "interpolation": "bicubic",
            "crop_pct": 1.0,
        },
    }


def _write_wrapper(run: LoadedRun, task: MaskedReconstruction, output: Path, texts: dict[str, Any], why: str) -> None:
    model = run.config["model"]["init_args"]
    mean, std = run.data.moments  # type: ignore[attr-defined]
    config = {
        "encoder": model["encoder"],
        "control": model.get("control"),
        "size": task.size,
        "channels": task.geometry.channels,
        "image_size": list(task.geometry.size),
        "cell": task.geometry.cell,
        "padding_mode": task.geometry.padding_mode,
        "mean": list(mean),
        "std": list(std),
    }
    with torch.no_grad():
        blank = torch.zeros(1, task.geometry.channels, *task.geometry.size)
        features = ExportedEncoder(task.encoder, task.geometry, mean, std)(blank)
    _write_weights(output, task.encoder.state_dict())
    write_text(output / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    sites = {"features": features.shape[1], "rows": features.shape[2], "columns": features.shape[3]}
    write_text(output / "README.md", WRAPPER_README.format(**texts, **sites, why=why))


def _write_weights(output: Path, state: Mapping[str, Tensor]) -> None:
    content = save({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, {"format": "pt"})
    write_whole(output / WEIGHTS, lambda file: file.write(content))


def _claim(output: Path, run: LoadedRun, overwrite: bool) -> None:
    """Make the folder, and say in it whose export it is.

    Raises:
        ValueError: it holds something else.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file: give a folder")
    mark = {"experiment": run.config.get("experiment"), "run": run.folder.path.resolve().name}
    taken = output.is_dir() and any(output.iterdir())
    if taken and not overwrite and _mark(output) != mark:
        raise ValueError(f"{output} is not empty and holds no export of {mark['run']}: give another folder, or overwrite")
    for name in (WEIGHTS, "config.json", "config.yaml"):  # of an earlier one, which may have been of the other kind
        (output / name).unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / MARK, json.dumps(mark) + "\n")


def _mark(output: Path) -> Any:
    try:
        return json.loads((output / MARK).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
