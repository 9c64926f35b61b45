"""Vision transformers: the masked autoencoder's encoder, and the ways in which it can treat masked patches."""

from functools import partial
from typing import Literal

import torch
from einops import rearrange, repeat
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from semconv.configuration import require, require_choice
from semconv.corruption import View
from semconv.encoders.encoder import Encoder, Encoding, Geometry, TimmModel
from semconv.encoders.sizes import Size, dimensions

# timm's names, of which width, depth and patch are arguments
ARCHITECTURES: dict[Size, str] = {
    "small": "vit_small_patch16_224",
    "base": "vit_base_patch16_224",
    "large": "vit_large_patch16_224",
    "huge": "vit_huge_patch14_224",
}

Masked = Literal["drop", "token", "see"]


class MAEViT(Encoder):
    """A vision transformer with fixed 2-D sine-cosine positions and a class token (He et al., 2022).

    Args:
        geometry: the images to build for.
        size: width, depth and heads, by name or written out.
        masked: what becomes of masked patches: they are dropped (MAE), replaced by a learned token (SimMIM; Xie et al., 2022), or
            seen as the corruption left them (a denoising autoencoder).
        patch_size: side of a patch in pixels, which must divide the mask cell; the cell itself where it is not given.
        drop_path: share of the residual branches that is dropped in training, rising from 0 to this with depth.

    Raises:
        ValueError: the patch does not divide the mask cell, or an argument is none of its values.
    """

    num_prefix_tokens = 1

    def __init__(
        self,
        geometry: Geometry,
        size: Size,
        masked: Masked = "drop",
        patch_size: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        require("drop_path", drop_path, 0, 1, exclude="high")
        require_choice("masked", masked, Masked)
        self.stride = geometry.cell if patch_size is None else patch_size
        if self.stride < 1 or geometry.cell % self.stride:
            raise ValueError(f"patches of {self.stride} pixels do not tile mask cells of {geometry.cell}: change patch_size")
        given = dimensions(size).vit
        width = given.width
        self.num_features, self.masked, self._size, self._image_size = width, masked, size, geometry.size
        self.drops_masked = masked == "drop"
        self.conveys = frozenset({"position"} if masked == "see" else {"mask", "position"})
        self.grid = grid = (geometry.size[0] // self.stride, geometry.size[1] // self.stride)
        self.patch_embed = PatchEmbed(geometry.channels, width, self.stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width)) if masked == "token" else None
        self.pos_embed = nn.Parameter(position_embedding(width, grid, num_prefix_tokens=1), requires_grad=False)
        self.blocks = make_blocks(width, given.depth, given.heads, drop_path)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.apply(self.init_weights)

    def forward(self, view: View) -> Encoding:
        """Encode a view; where masked patches are dropped, the map holds zeros at their sites."""
        return self._encode(view, [len(self.blocks)])[-1]

    def encode_stages(self, view: View) -> list[Encoding]:
        """After the patch projection and after each quarter of the blocks."""
        depth = len(self.blocks)
        return self._encode(view, [0, *(round(depth * quarter / 4) for quarter in range(1, 5))])

    def as_timm(self) -> TimmModel | str:
        arguments = {
            "img_size": list(self._image_size),
            "patch_size": self.stride,
            "embed_dim": self.num_features,
            "depth": len(self.blocks),
            "num_heads": self.blocks[0].attn.num_heads,  # type: ignore[union-attr]
            "global_pool": "token",
        }
        state = {name: tensor for name, tensor in self.state_dict().items() if name != "mask_token"}
        architecture = ARCHITECTURES.get(self._size, "vit_tiny_patch16_224")
        return TimmModel(architecture, arguments, state, "The first token is the class token, one per patch follows.")

    def _encode(self, view: View, ends: list[int]) -> list[Encoding]:
        """Features after the given numbers of blocks, the last of them being all."""
        view.check()
        tokens, grid = self.patch_embed(view.pixels)
        times = grid[0] // view.mask.shape[1]
        mask = repeat(view.mask, "b gh gw -> b (gh p) (gw q)", p=times, q=times)
        masked = rearrange(mask, "b gh gw -> b (gh gw)")
        if self.mask_token is not None:
            tokens = torch.where(masked[..., None], self.mask_token, tokens)
        tokens = tokens + resized_positions(self.pos_embed, self.grid, grid, self.num_prefix_tokens)[:, 1:]
        if not self.drops_masked:
            return [Encoding(_to_map(seen, grid), prefix=prefix) for prefix, seen in self._transform(tokens, ends)]
        visible = _visible_indices(masked, masked.shape[1] - times * times * view.num_masked)
        encodings = []
        for prefix, seen in self._transform(tokens.gather(1, visible.expand(-1, -1, tokens.shape[2])), ends):
            whole = torch.zeros_like(tokens, dtype=seen.dtype).scatter(1, visible.expand_as(seen), seen)
            encodings.append(Encoding(_to_map(whole, grid), valid=~mask, prefix=prefix))
        return encodings

    def init_weights(self, module: nn.Module) -> None:
        init_transformer(module)
        if module is self:
            nn.init.normal_(self.cls_token, std=0.02)
            if self.mask_token is not None:
                nn.init.normal_(self.mask_token, std=0.02)

    def _transform(self, tokens: Tensor, ends: list[int]) -> list[tuple[Tensor, Tensor]]:
        """The class token's and the patches' features after the given numbers of blocks; after the last, normalised."""
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        x = torch.cat([first, tokens], dim=1)
        shown = [x] if 0 in ends else []
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number in ends:
                shown.append(x)
        return [(x[:, :1], x[:, 1:]) for x in (*shown[:-1], self.norm(shown[-1]))]


class PatchEmbed(nn.Module):
    """One vector per patch: `b c h w` to `b n d`, and the rows and columns of patches."""

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, stride=patch_size)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        patches = self.proj(pixels)
        return rearrange(patches, "b d gh gw -> b (gh gw) d"), (patches.shape[2], patches.shape[3])


def make_blocks(width: int, depth: int, heads: int, drop_path: float = 0.0) -> nn.Sequential:
    """Transformer blocks of timm's, pre-norm, with fused attention; drop path rises from 0 to `drop_path` with depth."""
    rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
    norm = partial(nn.LayerNorm, eps=1e-6)
    return nn.Sequential(*(Block(width, heads, 4.0, qkv_bias=True, norm_layer=norm, drop_path=rate) for rate in rates))


def position_embedding(width: int, grid: tuple[int, int], num_prefix_tokens: int = 0) -> Tensor:
    """Fixed 2-D sine-cosine positions, `1 num_prefix_tokens+n width`, in MAE's layout.

    The first half of a vector codes the column, the second the row; each half is sines and then cosines of width / 4 frequencies
    from 1 down to almost 1 / 10000. Tokens of no place have zeros.

    Raises:
        ValueError: the width is not divisible by 4.
    """
    if width % 4:
        raise ValueError(f"2-D sine-cosine positions need a width divisible by 4, not {width}")
    # float64 until the end: float32 frequencies differ in the last bits from the published table's
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * frequency for axis in (column, row)]
    table = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return torch.cat([table.new_zeros(num_prefix_tokens, width), table]).float()[None]


def resized_positions(table: Tensor, grid: tuple[int, int], wanted: tuple[int, int], num_prefix_tokens: int) -> Tensor:
    """A table of positions, `1 num_prefix_tokens+n width`, for images of another size: bicubic, as timm resamples it."""
    if grid == wanted:
        return table
    return resample_abs_pos_embed(table, list(wanted), list(grid), num_prefix_tokens=num_prefix_tokens)


def init_transformer(module: nn.Module) -> None:
    """MAE's initialisation: linear weights Xavier-uniform (q, k and v as one), biases 0, norms 1 and 0.

    The patch projection is drawn as the linear layer that it is; its bias keeps PyTorch's default.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, PatchEmbed):
        module.proj.reset_parameters()
        nn.init.xavier_uniform_(module.proj.weight.flatten(1))


def _visible_indices(masked: Tensor, count: int) -> Tensor:
    """Numbers of the visible patches in reading order: int64 `b count 1`."""
    return masked.int().argsort(dim=1, stable=True)[:, :count, None]


def _to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return rearrange(tokens, "b (gh gw) d -> b d gh gw", gh=grid[0], gw=grid[1])
