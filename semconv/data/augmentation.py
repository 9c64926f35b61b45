"""Crops and flips as functions of (seed, epoch, index), and the fixed crop of evaluation.

Each image has its own key, so that its augmentation depends neither on its batch nor on the process that reads it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semconv.data.batch import Batch
from semconv.hashing import make_keys, uniform

ATTEMPTS = 10  # as torchvision's RandomResizedCrop
RATIO = (3 / 4, 4 / 3)
LONG = 4  # an image of which the crop of evaluation keeps less than 1/4 is not resized whole


@dataclass(frozen=True)
class Augmentation:
    """Random resized crop and horizontal flip of training images."""

    seed: int
    crop_scale: tuple[float, float] | None  # share of the image's area; None: the crop of evaluation
    flip: bool

    def boxes(self, sides: Tensor, epoch: int, index: Tensor) -> Tensor | None:
        """The crop boxes of images of given height and width (n 2): n 4, see `crop_boxes`; None for the crop of evaluation."""
        if self.crop_scale is None:
            return None
        return crop_boxes(make_keys(self.seed, "crop", epoch, index), sides[:, 0], sides[:, 1], self.crop_scale)

    def flips(self, epoch: int, index: Tensor) -> Tensor | None:
        """True for the images that are flipped: n, bool; None without flips."""
        return uniform(make_keys(self.seed, "flip", epoch, index), 1)[:, 0] < 0.5 if self.flip else None


def augment(batch: Batch, size: tuple[int, int]) -> Batch:
    """Apply the crops and flips of a batch on its device: images of `size`, uint8."""
    images = batch.images
    if batch.boxes is not None:
        # equal results; a CPU is faster image by image, because it then skips the pixels outside of the boxes
        crop = crop_each if images.device.type == "cpu" else crop_together
        images = crop(images, batch.boxes, size)
    if batch.flipped is not None:
        images = torch.where(batch.flipped[:, None, None, None], images.flip(-1), images)
    return batch._replace(images=images, boxes=None, flipped=None)


def crop_boxes(
    keys: Tensor, height: Tensor, width: Tensor, scale: tuple[float, float], ratio: tuple[float, float] = RATIO
) -> Tensor:
    """Draw boxes as torchvision's RandomResizedCrop does: uniform area, log-uniform aspect ratio, ten attempts, then the centre.

    Args:
        keys: one per image: n.
        height: of each image in pixels: n, int64.
        width: of each image in pixels: n, int64.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width / height.

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


def crop_each(images: Tensor | Sequence[Tensor], boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut a box (n 4) out of each uint8 image (c h w, any size) and resize it to `size`: n c and `size`."""
    cut = [
        image[:, top : top + height, left : left + width]
        for image, (top, left, height, width) in zip(images, boxes.tolist(), strict=True)
    ]
    return torch.stack([resize(image, size) for image in cut])


def crop_together(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut a box (b 4) out of each uint8 image (b c h w) and resize it to `size`, all at once, by two matrix products.

    Bicubic and antialiased, with torchvision's weights and rounding. Up to about 256 pixels a side, it differs from torchvision's
    result by 1/255 at most, in very few pixels. It takes b c h w (h + w) operations: cut larger images one by one.
    """
    top, left, height, width = boxes.unbind(-1)
    rows = resize_weights(top, height, images.shape[2], size[0])
    columns = resize_weights(left, width, images.shape[3], size[1])
    wide = _weigh("bchw,bow->bcho", images.float(), *columns)
    return _weigh("bchw,boh->bcow", wide, *rows).to(torch.uint8)


def resize_weights(start: Tensor, length: Tensor, full: int, out: int) -> tuple[Tensor, Tensor]:
    """The weight of each of `full` pixels in each of `out` resized ones, in whole numbers as in torch's resizing of uint8.

    Args:
        start: first pixel of the part that is resized: b.
        length: length of that part in pixels: b.
        full: pixels along the side.
        out: resized pixels.

    Returns:
        weights, whole numbers below 2^15 as float32: b out full; and their sum: b 1 1.
    """
    scale = (length.double() / out)[:, None, None]
    centre = scale * (torch.arange(out, device=start.device)[:, None] + 0.5)
    place = (torch.arange(full, device=start.device) - start[:, None])[:, None, :]
    return _in_whole_numbers(_weights(scale, centre, place, length[:, None, None]))


def centre_crops(images: Tensor | Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Resize each uint8 image (c h w) until it just covers `size`, and crop the centre: b c and `size`."""
    if isinstance(images, Tensor):
        return _centre_crop(images, size)
    return torch.stack([_centre_crop(image[None], size)[0] for image in images])


def crop_nearest(maps: Tensor | Sequence[Tensor], boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut a box (n 4, also between pixels) out of each map (c h w, any size) and resize it by the nearest pixel: n c and `size`."""
    cut = []
    for one, (top, left, height, width) in zip(maps, boxes.tolist(), strict=True):
        rows = (top + (torch.arange(size[0]).double() + 0.5) * height / size[0]).long().clamp(max=one.shape[1] - 1)
        columns = (left + (torch.arange(size[1]).double() + 0.5) * width / size[1]).long().clamp(max=one.shape[2] - 1)
        cut.append(one[:, rows][:, :, columns])
    return torch.stack(cut)


def centre_boxes(sides: Tensor, size: tuple[int, int]) -> Tensor:
    """The boxes that `centre_crops` keeps of images of given height and width (n 2): top, left, height, width, float64 n 4."""
    sides, out = sides.double(), torch.tensor(size, dtype=torch.float64)
    covering = torch.maximum(out, (sides * (out / sides).amax(1, keepdim=True)).round())
    corner = ((covering - out) / 2).floor()
    return torch.cat([corner, out.expand_as(covering)], dim=1) * (sides / covering).repeat(1, 2)


def crop_frames(sides: Tensor, boxes: Tensor, flipped: Tensor | None, size: tuple[int, int]) -> Tensor:
    """The crop of each view in its original image, in the form of `View.frame`: float32 n 5.

    Args:
        sides: height and width of the originals in pixels: n 2.
        boxes: top, left, height and width of the crops: n 4.
        flipped: True for flipped views: n, bool; None: no view is flipped.
        size: height and width of the views.
    """
    (height, width), (top, left, tall, wide) = sides.double().unbind(1), boxes.double().unbind(1)
    centre = [(2 * left + wide) / width - 1, (2 * top + tall) / height - 1]
    right = wide / width if flipped is None else torch.where(flipped, -wide, wide) / width
    stretch = (wide / tall * (size[0] / size[1])).log()
    return torch.stack([*centre, right, tall / height, stretch], dim=1).float()


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a uint8 image (c h w) to `size`, bicubic and antialiased."""
    return _resize(image[None], size)[0]


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    # the call inside torchvision's v2 resize, at half the overhead
    return F.interpolate(images, size=size, mode="bicubic", antialias=True)


def _centre_crop(images: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = images.shape[-2:]
    zoom = max(size[0] / height, size[1] / width)
    covering = (max(size[0], round(height * zoom)), max(size[1], round(width * zoom)))
    corner = ((covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2)
    if covering[0] * covering[1] > LONG * size[0] * size[1]:
        return _resize_window(images, covering, corner, size)
    if covering != (height, width):
        images = _resize(images, covering)
    return images[..., corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]


def _resize_window(images: Tensor, covering: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The window of `size` at `corner` of uint8 images (n c h w) resized to `covering`, without the rest, which may be huge."""
    axes = zip(images.shape[-2:], covering, corner, size, strict=True)
    (rows, *of_rows), (columns, *of_columns) = (_window(*axis) for axis in axes)
    wide = _weigh("nchw,bow->ncho", images[..., rows, columns].double(), *of_columns)
    return _weigh("nchw,boh->ncow", wide, *of_rows).to(torch.uint8)


def _window(full: int, out: int, first: int, count: int) -> tuple[slice, Tensor, Tensor]:
    """The pixels along a side that a window of its resized pixels is made of, and their weights, as `resize_weights` gives them."""
    scale = torch.tensor(full / out, dtype=torch.float64)
    centre = scale * (torch.arange(first, first + count)[:, None] + 0.5)
    reach = 2 * float(scale.clamp(min=1)) + 1
    start, end = max(0, math.floor(float(centre[0]) - reach)), min(full, math.ceil(float(centre[-1]) + reach))
    weights = _weights(scale, centre, torch.arange(start, end)[None], torch.tensor(full))
    return slice(start, end), *_in_whole_numbers(weights[None])


def _weights(scale: Tensor, centre: Tensor, place: Tensor, length: Tensor) -> Tensor:
    """The share of each pixel at `place` in a resized one around `centre`; pixels from 0 to `length` count."""
    spread = scale.clamp(min=1)  # the kernel widens for downsampling
    low = (centre - 2 * spread + 0.5).floor().clamp(min=0)
    high = torch.minimum((centre + 2 * spread + 0.5).floor(), length)
    weights = _cubic((place - centre + 0.5) / spread) * ((place >= low) & (place < high))
    return weights / weights.sum(-1, keepdim=True)


def _in_whole_numbers(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights `b out full` as whole numbers, and their sum `b 1 1`: the most bits that keep the largest weight below 2^15."""
    unit = 2.0 ** ((32767.5 / weights.amax((1, 2), keepdim=True)).log2().ceil() - 1).clamp(max=22)
    return (weights * unit).round().float(), unit.float()


def _central_sizes(bounds: Tensor, ratio: tuple[float, float]) -> Tensor:
    """The largest height and width inside `bounds` (n 2) within the range of aspect ratios: n 2."""
    height, width = bounds.unbind(-1)
    narrowest, widest = (width / ratio[0]).round().long(), (height * ratio[1]).round().long()
    return torch.stack([torch.minimum(height, narrowest), torch.minimum(width, widest)], dim=-1)


def _weigh(pattern: str, pixels: Tensor, weights: Tensor, unit: Tensor) -> Tensor:
    return ((torch.einsum(pattern, pixels, weights.to(pixels.dtype)) + unit[:, None] / 2) / unit[:, None]).floor().clamp(0, 255)


def _cubic(x: Tensor) -> Tensor:
    """Keys's kernel with a = -1/2 (Keys, 1981)."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _between(uniforms: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniforms
