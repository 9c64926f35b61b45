"""Classical ways to fill in what is hidden: floors that learn nothing, and that a network should beat.

They are experiments without parameters, measured as networks are. They fill in pixels, so under normalised targets, where a patch's
own mean and contrast do not count, their `test/masked_mse` says little: compare them by `test/psnr_given_moments` and `test/ssim`,
or with raw targets.
"""

from abc import ABC, abstractmethod

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from semconv.corruption import View
from semconv.decoders import Decoder
from semconv.encoders import Encoder, Encoding, Geometry, Size
from semconv.evaluation.reconstruction import mean_fill
from semconv.masking import spread_mask
from semconv.objective import Objective


class ClassicalBaseline(Encoder, ABC):
    """Fills the hidden pixels in from the visible ones of the same image.

    Args:
        geometry: the images.
        size: of no consequence.
    """

    def __init__(self, geometry: Geometry, size: Size) -> None:
        super().__init__()
        self.num_features, self.stride = geometry.channels, 1

    def forward(self, view: View) -> Encoding:
        hidden = spread_mask(view.mask, (view.pixels.shape[2], view.pixels.shape[3]))
        return Encoding(torch.where(hidden, self.fill(view, hidden), view.pixels.float()))

    @abstractmethod
    def fill(self, view: View, hidden: Tensor) -> Tensor:
        """Values for the pixels where `hidden`, bool `b 1 h w`, is true: float32 `b c h w`, of visible pixels alone."""

    def init_weights(self, module: nn.Module) -> None:
        """There are none."""


class VisibleMean(ClassicalBaseline):
    """The mean colour of the visible pixels."""

    def fill(self, view: View, hidden: Tensor) -> Tensor:
        return mean_fill(view.pixels, view.mask, normalised=False)


class NearestVisible(ClassicalBaseline):
    """The nearest visible pixel, by straight distance."""

    def fill(self, view: View, hidden: Tensor) -> Tensor:
        filled = []
        for image, holes in zip(view.pixels.float(), hidden[:, 0].cpu().numpy(), strict=True):
            rows, columns = distance_transform_edt(holes, return_distances=False, return_indices=True)
            filled.append(image[:, torch.from_numpy(rows).long(), torch.from_numpy(columns).long()])
        return torch.stack(filled)


class Harmonic(ClassicalBaseline):
    """Diffusion from the visible pixels until nothing changes: hidden pixels are the mean of their neighbours (Laplace's equation).

    At the border of the image a pixel has the fewer neighbours. Solved by conjugate gradients, all images at once.

    Args:
        geometry: the images.
        size: of no consequence.
        tolerance: largest remaining error of the equation, relative to its right side.
    """

    def __init__(self, geometry: Geometry, size: Size, tolerance: float = 1e-5) -> None:
        super().__init__(geometry, size)
        self.tolerance = tolerance

    def fill(self, view: View, hidden: Tensor) -> Tensor:
        known = torch.where(hidden, 0, view.pixels.float())

        def laplacian(x: Tensor) -> Tensor:
            return torch.where(hidden, _degree(x) * x - _neighbours(x), 0)

        right = torch.where(hidden, _neighbours(known), 0)
        x, residual = torch.zeros_like(right), right
        direction, squared = residual, _dot(residual, residual)
        stop = self.tolerance**2 * squared
        for _ in range(4 * max(known.shape[2:])):
            if bool((squared <= stop).all()):
                break
            along = laplacian(direction)
            step = squared / _dot(direction, along).clamp(min=1e-30)
            x, residual = x + step * direction, residual - step * along
            squared, before = _dot(residual, residual), squared
            direction = residual + squared / before.clamp(min=1e-30) * direction
        return x


class AsTarget(Decoder):
    """A filled-in image as a prediction: as it is, or with each of its patches normalised as targets are.

    Args:
        geometry: the images.
        size: of no consequence.
        encoder: a floor.
        objective: the run's.
    """

    def __init__(self, geometry: Geometry, size: Size, encoder: Encoder, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, encoding: Encoding, mask: Tensor) -> Tensor:
        return self.objective.target(encoding.features)

    def init_weights(self, module: nn.Module) -> None:
        """There are none."""


def _neighbours(x: Tensor) -> Tensor:
    """The sum of each pixel's four neighbours."""
    total = torch.zeros_like(x)
    total[:, :, 1:] += x[:, :, :-1]
    total[:, :, :-1] += x[:, :, 1:]
    total[:, :, :, 1:] += x[:, :, :, :-1]
    total[:, :, :, :-1] += x[:, :, :, 1:]
    return total


def _degree(x: Tensor) -> Tensor:
    """Number of neighbours of each pixel: `1 1 h w`."""
    return _neighbours(torch.ones_like(x[:1, :1]))


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum((2, 3), keepdim=True)
