"""Classes as a user might write them, each with one mistake."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semconv.corruption import Corruption, Fill, Hide, View
from semconv.encoders import Encoder, Encoding, Geometry, Size
from semconv.masking import spread_mask
from semconv.tasks import MaskedReconstruction


class MultipliedFill(Fill):
    """A product in place of a fill: NaN times 0 is NaN."""

    def __call__(self, images, mask, num_masked, keys):
        return images * ~spread_mask(mask, (images.shape[2], images.shape[3]))


class LateFill(Fill):
    """Leaves the hidden cells' outermost row to be seen."""

    def __call__(self, images, mask, num_masked, keys):
        hidden = spread_mask(mask, (images.shape[2], images.shape[3]))
        return images.masked_fill(hidden & hidden.roll(1, 2), 0)


class ResizedHide(Corruption):
    """Resizes what the masked cells are still part of: their content blurs into their neighbours."""

    def __call__(self, images, mask, num_masked, keys):
        small = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
        small = small.masked_fill(spread_mask(mask, (small.shape[2], small.shape[3])), 0)
        return View(F.interpolate(small, scale_factor=2.0), mask, num_masked)


class CentredHide(Hide):
    """Takes off each image's mean, that of the hidden pixels with it."""

    def __call__(self, images, mask, num_masked, keys):
        return super().__call__(images - images.mean((1, 2, 3), keepdim=True), mask, num_masked, keys)


class Shown(Corruption):
    """Leaves it to the encoder to mask."""

    def __call__(self, images, mask, num_masked, keys):
        return View(images, mask, num_masked)


class MaskedFeatures(Encoder):
    """Masks after its stem."""

    def __init__(self, geometry: Geometry, size: Size, kernel_size: int = 7) -> None:
        super().__init__()
        self.stride, self.num_features = geometry.cell, 16
        padding = (kernel_size - geometry.cell + 1) // 2
        self.stem = nn.Conv2d(geometry.channels, 16, kernel_size, stride=geometry.cell, padding=padding)
        self.body = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, view: View) -> Encoding:
        return Encoding(self.body(self.stem(view.pixels).masked_fill(view.mask[:, None], 0)))

    def init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()


class NormalisedFirst(MaskedReconstruction):
    """Normalises images by a batch norm before they are masked: in training its statistics are of hidden pixels too."""

    def __init__(self, channels: int = 3, **others: Any) -> None:
        super().__init__(channels=channels, **others)
        self.input_norm = nn.BatchNorm2d(channels)

    def look(self, batch, stage, draw=0):
        return super().look(batch._replace(images=self.input_norm(batch.images)), stage, draw)


class Remembering(MaskedReconstruction):
    """Predicts the mean colour of the whole image, in training steps alone."""

    def training_step(self, batch, batch_idx):
        view, mask = self.look(batch, "train")
        prediction = self.decoder(self.encoder(view._replace(pixels=view.pixels + _mean(batch.images))), view.mask)
        return self.objective(prediction, batch.images, mask)


def _mean(images: Tensor) -> Tensor:
    return torch.mean(images, (2, 3), keepdim=True)
