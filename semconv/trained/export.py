"""Encoders for use elsewhere: weights in timm's naming, or a folder that `semconv.load_exported` reads.

Nothing is masked where features are used. An encoder that does what plain does there, as one that is conditioned on the mask alone,
is then a model of timm's; all others go into a wrapper.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from huggingface_hub import CommitOperationAdd, HfApi
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from semconv.controls import set_control
from semconv.encoders import Encoder, Geometry, Size
from semconv.encoders.encoder import TimmModel
from semconv.encoders.weights import aligned
from semconv.evaluation.features import everything, pool
from semconv.files import user_path, write_text, write_whole
from semconv.indicators import Control, PaddingMode
from semconv.tasks import MaskedReconstruction
from semconv.trained.run import LoadedRun, build_parts, check_classes, load_run, moments_of, trusted_modules, without_given_weights
from semconv.version import __version__
from semconv.yaml_files import read_yaml, to_yaml

MARK = "export.json"
WEIGHTS = "model.safetensors"
MODULE = "semantic_cnn.py"
README = "README.md"
FILES = (WEIGHTS, "config.json", "config.yaml", MODULE)
OF_RUNS = ("checkpoints", "summary.json")  # what a run's folder holds, and no export
# the type of each of a wrapper's numbers, by key of config.yaml
PLAIN: dict[str, Any] = {
    "channels": int,
    "image_size": tuple[int, int],
    "cell": int,
    "padding_mode": PaddingMode,
    "mean": list[float],
    "std": list[float],
}
HEADER = """---
library_name: {library}
tags:
- semconv
- masked-image-modeling
pipeline_tag: image-feature-extraction
---
"""
TIMM_README = """# {name}

The encoder of a run of semconv, as timm's {architecture}.

{usage}
    features = model.forward_features(pixels)

`pixels` are `b {channels} {height} {width}`, scaled to 0..1 and normalised by mean {mean} and deviation {std} per channel, as
`config.json` says. There is no classifier: `num_classes=10` puts an untrained one of ten classes there, and `in_chans=1` makes a
model of grey images of the same weights. {note}
"""
WRAPPER_README = """# {name}

The encoder of a run of semconv, with its indicators and mechanisms. It is no model of timm's: {why}.

{usage}
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
    why: str  # that it is a wrapper
    usage: list[str]  # the lines that load it


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


def export(
    folder: str | Path, output: str | Path, overwrite: bool = False, trust: Sequence[str] = (), push: str | None = None
) -> Exported:
    """Write a run's encoder into a folder of its own, for use elsewhere.

    Args:
        folder: the run's.
        output: made if it is not there. One that holds something is refused, unless it is an earlier export of the same run.
        overwrite: write into it all the same, unless it is a run's; what has other names stays.
        trust: further modules whose classes the run may name.
        push: repository of the Hugging Face Hub, as `user/name`, to upload the folder to.

    Raises:
        ValueError: the folder is no run's or has no whole checkpoint; its encoder has no weights, or is conditioned on an external
            map; its data have no moments; the place is taken; or the Hub cannot be reached, or refuses.
    """
    run = load_run(folder, trust)
    task, output = run.task, user_path(output)
    if not isinstance(task, MaskedReconstruction):
        raise ValueError(f"{folder} is no run of masked reconstruction: export the run that it started from")
    if not any(True for _ in task.encoder.parameters()):
        raise ValueError(f"{folder}: {type(task.encoder).__name__} has no weights to export")
    if "oracle" in task.encoder.conveys:
        raise ValueError(
            f"{folder}: its encoder is conditioned on a map that comes with each image, and pixels alone have no features"
        )
    mean, std = moments_of(run)
    texts: dict[str, Any] = {
        "name": f"{run.config.get('experiment')} ({run.folder.path.resolve().name})",
        "channels": task.geometry.channels,
        "height": task.geometry.size[0],
        "width": task.geometry.size[1],
        "cell": task.geometry.cell,
        "mean": _listed(mean),
        "std": _listed(std),
        "version": __version__,
    }
    found = task.encoder.as_timm()
    if isinstance(found, str):
        made = Exported(output, None, found, _wrapper_usage(output, push))
        files, sides = _wrapper_files(run, task)
        readme = WRAPPER_README.format(**texts, **sides, why=found, usage=_indented(made.usage))
    else:
        made = Exported(output, found.architecture, "", _timm_usage(found, output, push))
        files = _timm_files(found, task, mean, std)
        readme = TIMM_README.format(**texts, architecture=found.architecture, note=found.note, usage=_indented(made.usage))
    _claim(output, run, overwrite)
    for name, content in {**files, README: readme.encode()}.items():
        write_whole(output / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    if push:
        upload(output, push, (*files, MARK), library="timm" if made.architecture else "semconv")
    return made


def upload(folder: Path, repository: str, names: Sequence[str], library: str) -> None:
    """Upload an export to the Hugging Face Hub, by the account of `hf auth login` or HF_TOKEN.

    Args:
        folder: the export's.
        repository: `user/name`; made, private, if it is not there.
        names: its files, besides README.md; others in the folder are the user's own.
        library: the one that loads it, as the Hub calls it.

    Raises:
        ValueError: the Hub cannot be reached, refuses, or has no such names.
    """
    readme = HEADER.format(library=library) + (folder / README).read_text(encoding="utf-8")
    files = {name: folder / name for name in names} | {README: readme.encode()}
    try:
        api = HfApi(library_name="semconv", library_version=__version__)
        api.create_repo(repository, private=True, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(repository, operations, commit_message="Upload an encoder of semconv")
    except Exception as error:  # its HTTP library, and with it the errors of the network, differ by version
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{folder} is written, but could not be uploaded to {repository}: {reason}; log in by hf auth login, check the network"
        ) from error


def load_exported(folder: str | Path, trust: Sequence[str] = ()) -> ExportedEncoder:
    """An encoder that `semconv export` wrote as a wrapper, in evaluation mode: from pixels to features `b d h w`.

    Args:
        folder: the export's.
        trust: modules whose classes it may name besides those that `load_run` trusts, such as `my_package`.

    Raises:
        ValueError: the folder is no such export, is damaged, or names a class that is not trusted.
    """
    folder = user_path(folder)
    if not (folder / "config.yaml").is_file() or not (folder / MARK).is_file():
        remedy = f'it is of timm\'s: timm.create_model("local-dir:{folder}", pretrained=True)'
        raise ValueError(
            f"{folder} holds no wrapper: "
            + (remedy if (folder / "config.json").is_file() else "give the folder that semconv export wrote")
        )
    config, plain, geometry = _read_config(folder / "config.yaml")
    check_classes({key: config.get(key) for key in ("encoder", "control")}, trusted_modules(trust))
    types = {"encoder": Callable[[Geometry, Size], Encoder], "control": Control | None, "size": Size}
    built = build_parts(config, folder / "config.yaml", types)
    encoder = built.encoder(geometry, built.size)
    set_control(encoder, built.control)
    try:
        encoder.load_state_dict(aligned(load_file(folder / WEIGHTS), encoder.state_dict()))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ValueError(f"{folder}/{WEIGHTS} cannot be loaded: export the run again") from error
    return ExportedEncoder(encoder, geometry, plain.mean, plain.std).eval()


def _read_config(file: Path) -> tuple[dict[str, Any], Any, Geometry]:
    """A wrapper's configuration: all of it, its numbers by name, and the geometry that they say.

    Raises:
        ValueError: it is damaged.
    """
    try:
        config = read_yaml(file)
        if not isinstance(config, dict):
            raise ValueError("it holds no keys")
        plain = build_parts({key: config[key] for key in PLAIN if key in config}, file, PLAIN)
        return config, plain, Geometry(plain.channels, plain.image_size, plain.cell, plain.padding_mode)
    except ValueError as error:
        raise ValueError(f"{file} is damaged: export the run again ({error})") from error


def _timm_usage(model: TimmModel, output: Path, push: str | None) -> list[str]:
    source = f"hf-hub:{push}" if push else f"local-dir:{output}"
    register = ["import semconv.timm_models"] if model.module else []
    return ["import timm", *register, f'model = timm.create_model("{source}", pretrained=True)']


def _wrapper_usage(output: Path, push: str | None) -> list[str]:
    if push:
        return ["import huggingface_hub, semconv", f'model = semconv.load_exported(huggingface_hub.snapshot_download("{push}"))']
    return ["import semconv", f'model = semconv.load_exported("{output}")']


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _timm_files(model: TimmModel, task: MaskedReconstruction, mean: Sequence[float], std: Sequence[float]) -> dict[str, bytes]:
    """The files of a model of timm's, by name."""
    config = json.dumps(_timm_config(model, task, mean, std), indent=2) + "\n"
    module = {MODULE: model.module.read_bytes()} if model.module else {}
    return {WEIGHTS: _weights(model.state), "config.json": config.encode(), **module}


def _timm_config(model: TimmModel, task: MaskedReconstruction, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """A model's config in timm's terms, as it reads it from a folder."""
    known = timm.get_pretrained_cfg(model.architecture)
    return {
        "architecture": model.architecture,
        "num_classes": 0,
        "num_features": task.encoder.num_features,
        "model_args": {**model.arguments, "num_classes": 0, "in_chans": task.geometry.channels},
        "pretrained_cfg": {
            "input_size": [task.geometry.channels, *task.geometry.size],
            "num_classes": 0,
            "mean": list(mean),
            "std": list(std),
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            # what timm adapts where other classes or channels are asked for
            "first_conv": known.first_conv,
            "classifier": known.classifier,
        },
    }


def _wrapper_files(run: LoadedRun, task: MaskedReconstruction) -> tuple[dict[str, bytes], dict[str, int]]:
    """The files of a wrapper, by name, and the sides of its features."""
    model = run.config["model"]["init_args"]
    mean, std = moments_of(run)
    config = {
        "encoder": without_given_weights(model["encoder"]),
        "control": model.get("control"),
        "size": model["size"],
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
    files = {WEIGHTS: _weights(task.encoder.state_dict()), "config.yaml": to_yaml(config).encode()}
    return files, {"features": features.shape[1], "rows": features.shape[2], "columns": features.shape[3]}


def _weights(state: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, {"format": "pt"})


def _claim(output: Path, run: LoadedRun, overwrite: bool) -> None:
    """Make the folder, and say in it whose export it is.

    Raises:
        ValueError: it holds something else, or is a run's.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file: give a folder")
    if output.resolve() == run.folder.path.resolve() or any((output / name).exists() for name in OF_RUNS):
        raise ValueError(f"{output} is the folder of a run, which an export would destroy: give another folder")
    mark = {"experiment": run.config.get("experiment"), "run": run.folder.path.resolve().name}
    taken = output.is_dir() and any(output.iterdir())
    if taken and not overwrite and _mark(output) != mark:
        raise ValueError(f"{output} is not empty and holds no export of {mark['run']}: give another folder, or overwrite")
    if (output / MARK).exists():
        for name in FILES:  # of an earlier one, which may have been of the other kind
            (output / name).unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / MARK, json.dumps(mark) + "\n")


def _mark(output: Path) -> Any:
    try:
        return json.loads((output / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # damaged
        return None


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
