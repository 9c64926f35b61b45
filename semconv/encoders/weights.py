"""Files of weights."""

import argparse
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor

Value = TypeVar("Value")
# parts of names that PyTorch's wrappers add: data parallel, torch.compile, FSDP, activation checkpoints
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, those under the key `model` or `state_dict` where there is one.

    Args:
        path: `.safetensors`, or a file of torch.save's, of which tensors alone are read and no code is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            # the release's training writes its arguments beside the weights; a Namespace runs nothing when it is read
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises almost any for a damaged file
        raise ValueError(
            f"{path} cannot be read: it is damaged, or holds more than tensors, such as code, which is never run"
        ) from error
    state = content.get("model", content.get("state_dict", content)) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(name, str) and isinstance(state[name], Tensor) for name in state):
        raise ValueError(f"{path} holds no tensors by name, neither at its top nor under the key model or state_dict")
    return state


def aligned(given: Mapping[str, Value], names: Collection[str]) -> dict[str, Value]:
    """Name weights as a model does, whatever wrappers they were saved in or the model is built in; other names lose their wrappers.

    Args:
        given: values by name.
        names: the model's.
    """
    known = {_unwrapped(name): name for name in names}
    renamed = {known.get(_unwrapped(name), _unwrapped(name)): value for name, value in given.items()}
    return renamed if len(known) == len(names) and len(renamed) == len(given) else dict(given)


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def require_fit(given: Mapping[str, Tensor], model: Mapping[str, Tensor], source: str | Path, remedy: str) -> None:
    """Refuse tensors that do not fill a model, all of it and nothing else.

    Args:
        given: the tensors by name.
        model: the model's.
        source: of the given ones, as errors call it.
        remedy: what is to be done about it.

    Raises:
        ValueError: a tensor is missing, has no place in the model, or is of another shape.
    """
    fault = ""
    if missing := model.keys() - given.keys():
        fault = f"it lacks {_first(missing)}"
    elif unknown := given.keys() - model.keys():
        fault = f"the model has no place for its {_first(unknown)}"
    elif unequal := [name for name in sorted(given) if given[name].shape != model[name].shape]:
        there, here = (" x ".join(map(str, tensors[unequal[0]].shape)) for tensors in (given, model))
        fault = f"{unequal[0]} is {there} there and {here} here"
    if fault:
        raise ValueError(f"{source} is of another model: {fault}; {remedy}")


def _first(names: AbstractSet[str]) -> str:
    return min(names) + (f" and {len(names) - 1} more" if len(names) > 1 else "")
