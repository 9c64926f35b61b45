"""Files of weights."""

import argparse
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


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
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read: it is damaged, or holds more than tensors, such as code, which is never run"
        ) from error
    state = content.get("model", content.get("state_dict", content)) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path} holds no tensors by name, neither at its top nor under the key model or state_dict")
    return state
