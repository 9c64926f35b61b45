"""Decoders: from features to an image-shaped prediction.

Every decoder fits every encoder, and all decoders are conditioned on the mask in the same way: a learned token stands at sites
without an encoding, and a learned vector that starts at zero is added at masked sites with one.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from semconv.encoders.cnn import check_kernel, check_padding
from semconv.encoders.encoder import Encoder, Encoding, Geometry
from semconv.encoders.sizes import Size, dimensions
from semconv.encoders.vit import init_transformer, make_blocks, position_embedding, resized_positions
from semconv.indicators import Grid, PaddingMode, masked_fraction
from semconv.timm_models import ConvNeXtBlock, init_convolutional, make_norm


class Decoder(nn.Module, ABC):
    """A decoder: from an encoding to a prediction. It is built as `subclass(geometry, size, encoder, **its own arguments)`.

    Attributes:
        part: the network's name within the model; it seeds the weights, so that decoder and encoder blocks start differently.
    """

    part: ClassVar[str] = "decoder"

    @abstractmethod
    def forward(self, encoding: Encoding, mask: Tensor) -> Tensor:
        """Predict an image in target space: `b c h w`.

        Args:
            encoding: the encoder's output.
            mask: bool `b gh gw`, True = masked: the view's mask.
        """

    @abstractmethod
    def init_weights(self, module: nn.Module) -> None:
        """Draw the weights that `module`, one of this network's modules, holds itself."""


class TransformerDecoder(Decoder):
    """Transformer blocks over all sites: the decoder of MAE (He et al., 2022).

    Args:
        geometry: the geometry of the images.
        size: width, depth and heads; base, large and huge are the published 512, 8 and 16.
        encoder: the encoder whose output is decoded.
        told: condition on the mask: add a learned vector at masked sites that have an encoding.
    """

    def __init__(self, geometry: Geometry, size: Size, encoder: Encoder, told: bool = True) -> None:
        super().__init__()
        given = dimensions(size).decoder
        width = given.width
        self.stride, self.num_prefix_tokens = encoder.stride, encoder.num_prefix_tokens
        self.grid = grid = _sites(geometry, encoder)
        self.embed = nn.Linear(encoder.num_features, width)
        self.token = MaskedSites(width, encoder.drops_masked, told)
        self.pos_embed = nn.Parameter(position_embedding(width, grid, encoder.num_prefix_tokens), requires_grad=False)
        self.blocks = make_blocks(width, given.depth, given.heads)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pred = nn.Linear(width, encoder.stride**2 * geometry.channels)
        self.apply(self.init_weights)

    def forward(self, encoding: Encoding, mask: Tensor) -> Tensor:
        rows, columns = encoding.features.shape[2:]
        embedded = self.embed(rearrange(encoding.features, "b d sh sw -> b sh sw d"))
        sites = self.token(rearrange(embedded, "b sh sw d -> b d sh sw"), encoding, mask)
        tokens = rearrange(sites, "b d sh sw -> b (sh sw) d")
        if encoding.prefix is not None:
            tokens = torch.cat([self.embed(encoding.prefix), tokens], dim=1)
        positions = resized_positions(self.pos_embed, self.grid, (rows, columns), self.num_prefix_tokens)
        tokens = self.norm(self.blocks(tokens + positions))[:, self.num_prefix_tokens :]
        return rearrange(
            self.pred(tokens), "b (sh sw) (p q c) -> b c (sh p) (sw q)", sh=rows, sw=columns, p=self.stride, q=self.stride
        )

    def init_weights(self, module: nn.Module) -> None:
        init_transformer(module)
        _init_token(module)


class ConvDecoder(Decoder):
    """ConvNeXt blocks over all sites, then a linear map from each site to its pixels (as in FCMAE; Woo et al., 2023).

    Args:
        geometry: the geometry of the images.
        size: width and depth.
        encoder: the encoder whose output is decoded.
        told: condition on the mask: add a learned vector at masked sites that have an encoding.
        kernel_size: side of the depthwise kernels.
    """

    def __init__(self, geometry: Geometry, size: Size, encoder: Encoder, told: bool = True, kernel_size: int = 7) -> None:
        super().__init__()
        check_kernel(kernel_size)
        check_padding(geometry.padding_mode, _sites(geometry, encoder), kernel_size)
        width = dimensions(size).decoder.width
        self.embed = nn.Conv2d(encoder.num_features, width, 1)
        self.token = MaskedSites(width, encoder.drops_masked, told)
        self.blocks = nn.Sequential(
            *(
                ConvNeXtBlock(
                    nn.Conv2d(
                        width, width, kernel_size, padding=kernel_size // 2, groups=width, padding_mode=geometry.padding_mode
                    ),
                    width,
                )
                for _ in range(dimensions(size).decoder.conv_blocks)
            )
        )
        self.norm = make_norm("layer", width)
        self.pred = nn.Conv2d(width, encoder.stride**2 * geometry.channels, 1)
        self.to_pixels = nn.PixelShuffle(encoder.stride)
        self.apply(self.init_weights)

    def forward(self, encoding: Encoding, mask: Tensor) -> Tensor:
        x = self.token(self.embed(encoding.features), encoding, mask)
        return self.to_pixels(self.pred(self.norm(self.blocks(x))))

    def init_weights(self, module: nn.Module) -> None:
        init_convolutional(module)
        _init_token(module)


class PyramidDecoder(Decoder):
    """From the coarsest features up to pixels, with the finer ones added on the way: the decoder of SparK (Tian et al., 2023).

    D = B(D) + P(S) at each resolution. P is a pointwise projection of the features S of an encoder's stage; a learned vector stands
    at sites without an encoding, one for each resolution. B doubles the resolution and halves the width: a transposed convolution,
    and two 3 x 3 convolutions with batch norms. The last blocks, finer than the encoder, add nothing, and so do all blocks behind
    an encoder of a single resolution. For strides that are no power of two, a linear map from each site to its pixels is the rest.

    Args:
        geometry: the geometry of the images.
        size: width at the coarsest features.
        encoder: the encoder whose output is decoded.
        told: condition on the mask: add a learned vector, one for each resolution, at masked sites that have an encoding.
    """

    NARROWEST: ClassVar[int] = 16  # as published: 512 / 32

    def __init__(self, geometry: Geometry, size: Size, encoder: Encoder, told: bool = True) -> None:
        super().__init__()
        check_padding(geometry.padding_mode, _sites(geometry, encoder), kernel_size=3)
        widest = dimensions(size).decoder.width
        doublings = (encoder.stride & -encoder.stride).bit_length() - 1
        widths = [max(widest >> number, self.NARROWEST) for number in range(doublings + 1)]
        width_at = {encoder.stride >> number: width for number, width in enumerate(widths)}
        levels = [(encoder.num_features, encoder.stride), *encoder.finer]
        self.strides = [stride for _, stride in levels]
        self.laterals = nn.ModuleList(
            _Lateral(features, width_at[stride], encoder.drops_masked, told, normalise=stride < encoder.stride)
            for features, stride in levels
        )
        self.blocks = nn.ModuleList(_Doubling(*pair, geometry.padding_mode) for pair in pairwise(widths))
        rest = encoder.stride >> doublings
        self.pred = nn.Conv2d(widths[-1], rest**2 * geometry.channels, 1)
        self.to_pixels = nn.PixelShuffle(rest)
        self.apply(self.init_weights)

    def forward(self, encoding: Encoding, mask: Tensor) -> Tensor:
        levels = zip(self.strides, self.laterals, (encoding, *encoding.finer), strict=True)
        added = {stride: lateral(level, mask) for stride, lateral, level in levels}
        stride = self.strides[0]
        x = added[stride]
        for block in self.blocks:
            stride //= 2
            x = block(x) + added[stride] if stride in added else block(x)
        return self.to_pixels(self.pred(x))

    def init_weights(self, module: nn.Module) -> None:
        init_convolutional(module)
        _init_token(module)


class _Lateral(nn.Module):
    """The features of one resolution, filled where none stands, and projected to a decoder's width."""

    def __init__(self, features: int, width: int, replaces: bool, told: bool, normalise: bool) -> None:
        super().__init__()
        self.norm = make_norm("layer", features) if normalise else nn.Identity()  # an encoder normalises its last features itself
        self.token = MaskedSites(features, replaces, told)
        self.project = nn.Conv2d(features, width, 1)

    def forward(self, encoding: Encoding, mask: Tensor) -> Tensor:
        return self.project(self.token(self.norm(encoding.features), encoding, mask))


class _Doubling(nn.Module):
    """A map at twice the resolution."""

    def __init__(self, inputs: int, outputs: int, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.padding_mode = padding_mode
        self.enlarge = nn.ConvTranspose2d(inputs, inputs, 4, stride=2, padding=3)  # 1, and 2 that the map is extended by
        self.refine = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, padding=1, bias=False, padding_mode=padding_mode),
            nn.BatchNorm2d(inputs),
            nn.ReLU6(),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, padding_mode=padding_mode),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.refine(self.enlarge(Grid(x.shape[2], x.shape[3], (1, 1), self.padding_mode).extend(x)))


class MaskedSites(nn.Module):
    """The learned vector by which a decoder is conditioned on the mask.

    Args:
        width: channels.
        replaces: put the vector, as a token, at sites without an encoding.
        told: add it to the encodings of masked sites, times the masked share of the site. Such encodings exist in a network that
            computes all sites, and where a control makes a network that drops masked sites take one for visible.
    """

    def __init__(self, width: int, replaces: bool, told: bool) -> None:
        super().__init__()
        self.replaces, self.adds = replaces, told
        self.mask_token = nn.Parameter(torch.zeros(1, width, 1, 1)) if replaces or told else None

    def forward(self, x: Tensor, encoding: Encoding, mask: Tensor) -> Tensor:
        if self.mask_token is None:
            return x
        if self.adds:
            x = x + (masked_fraction(mask, *x.shape[2:]) * self.mask_token).to(x.dtype)
        if encoding.valid is None:  # several processes wait for the gradient of a token that only replaces
            return x if self.adds else x + 0 * self.mask_token.to(x.dtype)
        return torch.where(encoding.valid[:, None], x, self.mask_token.to(x.dtype))


def _sites(geometry: Geometry, encoder: Encoder) -> tuple[int, int]:
    """Rows and columns of an encoder's last map."""
    return geometry.size[0] // encoder.stride, geometry.size[1] // encoder.stride


def _init_token(module: nn.Module) -> None:
    # a token that is added starts at zero, so that at first it changes nothing
    if isinstance(module, MaskedSites) and module.replaces and module.mask_token is not None:
        nn.init.normal_(module.mask_token, std=0.02)
