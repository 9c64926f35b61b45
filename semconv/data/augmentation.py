"""Crops and flips that are looked up by (seed, epoch, index), and the fixed crop of evaluation.

Each image has its own key, so what happens to it depends on neither its batch nor the process that reads it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semconv.hashing import make_keys, uniform

ATTEMPTS = 10  # as torchvision's RandomResizedCrop
RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Augmentation:
    """Random resized crop and horizontal flip of training images."""

    seed: int
    crop_scale: tuple[float, float] | None  # share of the image's area; None: the crop of evaluation
    flip: bool

    def __call__(self, images: Tensor | Sequence[Tensor], size: tuple[int, int], epoch: int, index: Tensor) -> Tensor:
        """Augment uint8 images (each c h w, any size) to uint8 of b c and `size`; `index` (b) and `epoch` choose how."""
        if self.crop_scale is None:
            pixels = centre_crops(images, size)
        else:
            pixels = random_crops(images, make_keys(self.seed, "crop", epoch, index), size, self.crop_scale)
        if self.flip:
            flipped = uniform(make_keys(self.seed, "flip", epoch, index), 1)[:, 0] < 0.5
            pixels = torch.where(flipped[:, None, None, None], pixels.flip(-1), pixels)
        return pixels


def crop_boxes(
    keys: Tensor, height: Tensor, width: Tensor, scale: tuple[float, float], ratio: tuple[float, float] = RATIO
) -> Tensor:
    """The boxes of torchvision's RandomResizedCrop: area uniform, aspect ratio log-uniform, ten attempts, then the centre.

    Args:
        keys: one per image: n.
        height: of each image in pixels: n, int64.
        width: of each image in pixels: n, int64.
        scale: least and greatest share of the image's area.
        ratio: least and greatest width / height.

    Returns:
        top, left, height and width in pixels: n 4, int64.
    """
    areas, ratios, place = uniform(keys, 2 * ATTEMPTS + 2).double().split([ATTEMPTS, ATTEMPTS, 2], dim=-1)
    areas = (height * width)[:, None] * _between(areas, *scale)
    ratios = _between(ratios, math.log(ratio[0]), math.log(ratio[1])).exp()
    sizes = torch.stack([(areas / ratios).sqrt().round(), (areas * ratios).sqrt().round()], dim=-1).long()
    bounds = torch.stack([height, width], dim=-1)
    fits = ((sizes > 0) & (sizes <= bounds[:, None])).all(-1)
    first = (fits.cumsum(-1) == 0).sum(-1)  # ATTEMPTS where none fits
    sizes = torch.cat([sizes, _central_sizes(bounds, ratio)[:, None]], dim=1)
    chosen = sizes[torch.arange(len(keys)), first]
    random = (place * (bounds - chosen + 1)).long()
    corner = torch.where((first < ATTEMPTS)[:, None], random, (bounds - chosen) // 2)
    return torch.cat([corner, chosen], dim=-1)


def random_crops(images: Tensor | Sequence[Tensor], keys: Tensor, size: tuple[int, int], scale: tuple[float, float]) -> Tensor:
    """Crop each uint8 image (c h w) by its key and resize it to `size`, bicubic and antialiased: b c and `size`."""
    bounds = torch.tensor([image.shape[-2:] for image in images])
    boxes = crop_boxes(keys, bounds[:, 0], bounds[:, 1], scale).tolist()
    cut = [
        image[:, top : top + height, left : left + width] for image, (top, left, height, width) in zip(images, boxes, strict=True)
    ]
    return torch.stack([resize(image, size) for image in cut])


def centre_crops(images: Tensor | Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Resize each uint8 image (c h w) until it just covers `size`, and cut out the centre: b c and `size`."""
    if isinstance(images, Tensor) and images.shape[-2:] == size:
        return images
    return torch.stack([_centre_crop(image, size) for image in images])


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a uint8 image (c h w) to `size`, bicubic and antialiased."""
    # what torchvision's v2 resize calls, at half its overhead
    return F.interpolate(image[None], size=size, mode="bicubic", antialias=True)[0]


def _centre_crop(image: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = image.shape[-2:]
    zoom = max(size[0] / height, size[1] / width)
    covering = (max(size[0], round(height * zoom)), max(size[1], round(width * zoom)))
    if covering != (height, width):
        image = resize(image, covering)
    top, left = (covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


def _central_sizes(bounds: Tensor, ratio: tuple[float, float]) -> Tensor:
    """The largest height and width inside `bounds` (n 2) with an aspect ratio that is allowed: n 2."""
    height, width = bounds.unbind(-1)
    narrowest, widest = (width / ratio[0]).round().long(), (height * ratio[1]).round().long()
    return torch.stack([torch.minimum(height, narrowest), torch.minimum(width, widest)], dim=-1)


def _between(uniforms: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniforms
