"""Finished runs, opened again."""

import importlib.util
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings
from lightning.pytorch import LightningDataModule, LightningModule

from semconv.configuration import get, no_class, one_line
from semconv.data import ImageData
from semconv.data.sources import Moments
from semconv.tracking.checkpoints import read_checkpoint
from semconv.tracking.folder import RunFolder, newest_checkpoint

# what a configuration may name; everything else could be anybody's code
TRUSTED = ("semconv", "torch.nn", "torch.optim", "timm.optim", "timm.scheduler")
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


class LoadedRun(NamedTuple):
    """A run as it ended."""

    task: LightningModule  # with its weights, in evaluation mode
    data: LightningDataModule
    config: dict[str, Any]
    folder: RunFolder


def load_run(folder: str | Path, trust: Sequence[str] = (), initial: bool = False) -> LoadedRun:
    """Rebuild a run's task, with the weights of its newest whole checkpoint, and its data.

    A run's folder may be somebody else's: its configuration is built from classes of semconv and torch.nn, and from optimisers and
    schedules of torch and timm, alone, each a subclass of what its place asks for, and of its checkpoint tensors and plain values
    alone are read.

    Args:
        folder: `runs/<experiment>/<run id>`.
        trust: further modules whose classes the configuration may name, such as `my_package`. Those that the environment variable
            SEMCONV_TRUST names, with commas between them, may be named too.
        initial: build the task with the weights of step 0, for `untrained_encoder`; those that were given have to be there.

    Raises:
        ValueError: the folder is no run's, names a class that is not trusted or does not fit, or has no whole checkpoint; or
            weights that it started from are not there.
    """
    run = RunFolder(folder)
    if not (run.path / "config.yaml").is_file():
        raise ValueError(f"{run.path} holds no config.yaml: give a run's folder, runs/<experiment>/<run id>")
    config = run.config
    check_classes({key: config.get(key) for key in ("model", "data")}, trusted_modules(trust))
    checkpoint = newest_checkpoint(run.checkpoints)
    if checkpoint is None:
        file = shlex.quote(f"{run.path}/config.yaml")
        raise ValueError(f"{run.path} has no whole checkpoint: train it with semconv fit -c {file}")
    described, types = config if initial else _as_trained(config), {"model": LightningModule, "data": LightningDataModule}
    built = build_parts(described, run.path / "config.yaml", types)
    task = built.model
    state = read_checkpoint(checkpoint)
    task.on_load_checkpoint(state)  # says what does not fit
    task.load_state_dict(state["state_dict"])
    mean, std = (run.summary.get(f"data/{name}") for name in ("mean", "std"))
    if isinstance(built.data, ImageData) and isinstance(mean, list) and isinstance(std, list):
        built.data.given_mean, built.data.given_std = mean, std  # no source has to be opened to know them
        if isinstance(values := run.summary.get("data/range"), list):
            built.data.given_range = (float(values[0]), float(values[1]))
    return LoadedRun(task.eval(), built.data, config, run)


def _as_trained(config: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration that builds its task for the weights of a checkpoint alone."""
    encoder = get(config, "model.init_args.encoder")
    if not isinstance(encoder, dict):
        return config
    model = config["model"]
    arguments = {**model["init_args"], "encoder": without_given_weights(encoder)}
    return {**config, "model": {**model, "init_args": arguments}}


def without_given_weights(encoder: Mapping[str, Any]) -> dict[str, Any]:
    """An encoder's configuration that does not load weights to start from: those of a checkpoint take their place."""
    arguments = encoder.get("init_args") or {}
    if str(encoder.get("class_path")).rpartition(".")[2] != "TimmEncoder":
        return dict(encoder)
    return {**encoder, "init_args": {**arguments, "pretrained": False, "checkpoint_path": None}}


def moments_of(run: LoadedRun) -> Moments:
    """Mean and deviation per channel that the images of a run are normalised with.

    Raises:
        ValueError: its data do not say.
    """
    moments: Moments | None = getattr(run.data, "moments", None)
    if moments is None:
        name = type(run.data).__name__
        raise ValueError(f"{run.folder.path}: its data, {name}, have no moments: give {name} a property of mean and deviation")
    return moments


def trusted_modules(trust: Sequence[str] = ()) -> tuple[str, ...]:
    """The modules whose classes a run may name: those of semconv and its libraries, of SEMCONV_TRUST, and further ones."""
    return (*TRUSTED, *filter(None, re.split(r"[,\s]+", os.environ.get("SEMCONV_TRUST", ""))), *trust)


def check_classes(config: Any, trusted: Sequence[str]) -> None:
    """Refuse a configuration that names code from elsewhere. Nothing is imported.

    What is trusted may then be named in every parser of jsonargparse in this process, and its own list of dangerous names may not.

    Args:
        config: mappings, lists and values.
        trusted: modules whose members may be named.

    Raises:
        ValueError: it names something else.
    """
    for name in _named(config):
        if not any(name.startswith(f"{module}.") for module in trusted):
            remedy = f"read that code, then set SEMCONV_TRUST={name.partition('.')[0]}"
            raise ValueError(f"the run names {name}, which is not of {', '.join(trusted)}: {remedy}")
    set_parsing_settings(import_path_allowlist=list(trusted))  # a command that trains allows its parser little more


def _named(config: Any) -> Iterator[str]:
    """Everything that a parser could import: class paths, and text that is a dotted name below a module that is there.

    Raises:
        ValueError: text that a parser would read as a configuration.
    """
    if isinstance(config, dict):
        for key, value in config.items():
            if key == "class_path":
                yield str(value)
            else:
                yield from _named(value)
    elif isinstance(config, list):
        for value in config:
            yield from _named(value)
    elif isinstance(config, str) and ("class_path" in config or config.lower().endswith((".yaml", ".yml", ".json"))):
        raise ValueError(
            f"the run gives a part as text or as another file, {config[:60]!r}: write it out as class_path and init_args"
        )
    elif isinstance(config, str) and DOTTED.fullmatch(config) and importlib.util.find_spec(config.partition(".")[0]):
        yield config


def build_parts(config: dict[str, Any], file: Path, types: dict[str, Any]) -> Any:
    """Build the parts of a configuration that `types` names, each of the type that it says.

    Raises:
        ValueError: the configuration, of `file`, lacks a part or describes one of another type.
    """
    parser = ArgumentParser(exit_on_error=False)
    for key, kind in types.items():
        parser.add_argument(f"--{key}", type=kind)
    try:
        parsed = parser.parse_object({key: config[key] for key in types})
        if other := no_class(parsed.as_dict()):
            raise ValueError(f"{file}: {other[0]} is {other[1]}, which is no class and is not called")
        return parser.instantiate(parsed)
    except (ArgumentError, KeyError) as error:
        other = no_class({key: config.get(key) for key in types})  # of what the parser has imported
        why = f"{other[0]} is {other[1]}, which is no class and is not called" if other else one_line(error)
        raise ValueError(f"{file} cannot be built: {why}") from error
