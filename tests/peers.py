"""Hugging Face's masked autoencoder, against which ours is measured."""

import torch
from torch import Tensor
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from semconv.decoders import TransformerDecoder
from semconv.encoders import Geometry, MAEViT, Size
from semconv.encoders.sizes import dimensions

BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def make_hugging_face(geometry: Geometry, size: Size, num_masked: int, normalise: bool = True) -> ViTMAEForPreTraining:
    """Their model of one of our sizes, every weight of it random, biases and norms too."""
    vit, decoder = dimensions(size).vit, dimensions(size).decoder
    num_cells = geometry.grid[0] * geometry.grid[1]
    config = ViTMAEConfig(
        hidden_size=vit.width,
        num_hidden_layers=vit.depth,
        num_attention_heads=vit.heads,
        intermediate_size=4 * vit.width,
        decoder_hidden_size=decoder.width,
        decoder_num_hidden_layers=decoder.depth,
        decoder_num_attention_heads=decoder.heads,
        decoder_intermediate_size=4 * decoder.width,
        image_size=geometry.size,
        patch_size=geometry.cell,
        mask_ratio=(num_masked - 0.5) / num_cells,  # they keep int(n (1 - ratio)): half a cell away from the next number
        norm_pix_loss=normalise,
        layer_norm_eps=1e-6,  # the release's; their default is 1e-12
    )
    model = ViTMAEForPreTraining(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    # theirs are zeros until weights are loaded
    model.vit.embeddings.position_embeddings.data = make_positions(geometry.grid, vit.width)
    model.decoder.decoder_pos_embed.data = make_positions(geometry.grid, decoder.width)
    return model


def make_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Their positions with a class token, in the order of the published weights: `1 1+n width`."""
    row, column = build_2d_sinusoidal_position_embedding(*grid, embed_dim=width, cls_token=True).chunk(2, dim=1)
    return torch.cat([column, row], dim=1)[None]


def noise_of(mask: Tensor) -> Tensor:
    """Noise under which they mask the same cells (bool `b gh gw`), and see the others in a random order."""
    flat = mask.flatten(1)
    order = torch.rand(flat.shape, generator=torch.Generator().manual_seed(1)).argsort(1)
    return flat + order / (2 * flat.shape[1])


def name_as_released(model: ViTMAEForPreTraining) -> dict[str, Tensor]:
    """Their weights in the official release's naming."""
    theirs = model.state_dict()
    released = {
        "cls_token": theirs["vit.embeddings.cls_token"],
        "pos_embed": theirs["vit.embeddings.position_embeddings"],
        "mask_token": theirs["decoder.mask_token"],
        "decoder_pos_embed": theirs["decoder.decoder_pos_embed"],
    }
    layers = {
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "norm": "vit.layernorm",
        "decoder_embed": "decoder.decoder_embed",
        "decoder_norm": "decoder.decoder_norm",
        "decoder_pred": "decoder.decoder_pred",
    }
    stacks = (
        ("blocks", "vit.layers", model.vit.layers),
        ("decoder_blocks", "decoder.decoder_layers", model.decoder.decoder_layers),
    )
    for ours, their, blocks in stacks:
        for i in range(len(blocks)):
            layers |= {f"{ours}.{i}.{name}": f"{their}.{i}.{peer}" for name, peer in BLOCK.items()}
            for kind in ("weight", "bias"):
                parts = [theirs[f"{their}.{i}.attention.{part}_proj.{kind}"] for part in "qkv"]
                released[f"{ours}.{i}.attn.qkv.{kind}"] = torch.cat(parts)
    released |= {f"{name}.{kind}": theirs[f"{peer}.{kind}"] for name, peer in layers.items() for kind in ("weight", "bias")}
    return released


def copy_weights(model: ViTMAEForPreTraining, encoder: MAEViT, decoder: TransformerDecoder) -> None:
    """Give ours their weights, every one of them."""
    released = name_as_released(model)
    parts = {True: {}, False: {}}  # type: dict[bool, dict[str, Tensor]]
    for name, tensor in released.items():
        parts[name.startswith("decoder_")][name.removeprefix("decoder_")] = tensor
    parts[True]["token.mask_token"] = parts[False].pop("mask_token").mT[..., None]
    encoder.load_state_dict(parts[False], strict=True)
    decoder.load_state_dict(parts[True], strict=True)
