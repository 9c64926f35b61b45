"""Published weights of masked autoencoders, in the naming of the official release and of timm."""

import math
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from semconv.decoders import TransformerDecoder
from semconv.encoders.sizes import SIZES
from semconv.encoders.vit import MAEViT, position_embedding
from semconv.encoders.weights import aligned, read_tensors, require_fit
from semconv.files import user_path

CLASSIFIER = ("head.", "fc_norm.")
DECODER = ("decoder_", "mask_token")


class LoadReport(NamedTuple):
    """The use of a checkpoint's tensors; names are the file's."""

    loaded: tuple[str, ...]
    ignored: tuple[str, ...]  # a classifier's, and a decoder's where no decoder was given
    notes: tuple[str, ...]  # sentences: what did not come from the file, or is not as published


def load_mae_checkpoint(path: str | Path, encoder: MAEViT, decoder: TransformerDecoder | None = None) -> LoadReport:
    """Load published weights of a masked autoencoder (He et al., 2022) into a model of the same size.

    Files are those of the official release, with or without a decoder, and timm's `vit_*.mae`: `.pth`, of which tensors alone are
    read and no code is run, or `.safetensors`. All tensors of the model are filled, or nothing is changed. Fixed positions of
    another grid make way for the model's own; all other positions are loaded. The weights expect images normalised by ImageNet's
    mean and deviation.

    Args:
        path: the file.
        encoder: what is filled. It drops masked patches, or, without a decoder, may see all.
        decoder: filled as well. Where the file has none it stays as it is, which a warning says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, is of another model, or the encoder treats masked patches in another way than MAE's.
    """
    if encoder.mask_token is not None or (decoder is not None and not encoder.drops_masked):
        raise ValueError(
            f"MAE's weights are of an encoder that drops masked patches, and this one has masked={encoder.masked}: "
            "build it with masked=drop, or load it with masked=see and no decoder"
        )
    path = user_path(path)
    of_encoder, of_decoder = encoder.state_dict(), decoder.state_dict() if decoder is not None else {}
    published = {_published_name(name): tensor for name, tensor in of_decoder.items()}
    state = aligned(read_tensors(path), {**of_encoder, **published})
    targets, notes = dict(of_encoder), []
    if decoder is not None and any(name.startswith("decoder_") for name in state):
        targets |= published
    elif decoder is not None:
        notes.append(f"{path} holds an encoder alone: the decoder stays untrained, so what it predicts means nothing yet")
        warnings.warn(notes[-1], stacklevel=2)
    ignored = {name for name in state.keys() - targets.keys() if name.startswith(CLASSIFIER + DECODER)}
    values = {
        name: _place(name, tensor, targets[name], notes) if name in targets else tensor
        for name, tensor in state.items()
        if name not in ignored
    }
    require_fit(values, targets, path, _describe(state))
    for name, target in targets.items():
        target.copy_(values[name])
    return LoadReport(tuple(targets), tuple(sorted(ignored)), tuple(notes))


def _published_name(name: str) -> str:
    """Name of a tensor of the decoder in the release."""
    return "mask_token" if name == "token.mask_token" else f"decoder_{name}"


def _place(name: str, there: Tensor, here: Tensor, notes: list[str]) -> Tensor:
    """The file's tensor as it is laid out here; what is not taken as it is, is noted."""
    if name == "mask_token":
        return there.mT[..., None]  # 1 1 d to 1 d 1 1: our decoder lays its token on a map
    if name not in ("pos_embed", "decoder_pos_embed") or _close(there, here):
        return there
    side = math.isqrt(there.shape[1] - 1)
    if there.shape[2] == here.shape[2] and _close(there, position_embedding(there.shape[2], (side, side), num_prefix_tokens=1)):
        notes.append(f"{name} in the file is the fixed table of {side} x {side} patches: the model's own, of its grid, is kept")
        return here
    notes.append(f"{name} in the file is not MAE's fixed table, but was learned: it is loaded as it is")
    return there


def _close(there: Tensor, here: Tensor) -> bool:
    # half precision rounds numbers below 1 by up to 2.5e-4
    return there.shape == here.shape and torch.allclose(there.float(), here, rtol=0, atol=1e-3)


def _describe(state: dict[str, Tensor]) -> str:
    """Of what model a file is, as a remedy."""
    if "patch_embed.proj.weight" not in state:
        return "a file of MAE's or timm's naming is needed, and this one has no patch_embed.proj.weight"
    width, channels, patch = state["patch_embed.proj.weight"].shape[:3]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    known = {(given.vit.width, given.vit.depth): name for name, given in SIZES.items()}
    size = known.get((width, depth), f"none of ours, but {width} wide and {depth} deep")
    pooling = ", fine-tuned with average pooling (fc_norm), which MAE's has not" if "fc_norm.weight" in state else ""
    side = math.isqrt(state["pos_embed"].shape[1] - 1) * patch if "pos_embed" in state else "unknown"
    return (
        f"build the model as the file's was: size {size}, patches of {patch} pixels, images of {channels} channels "
        f"and {side} pixels a side{pooling}"
    )
