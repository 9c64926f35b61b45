"""How reconstructions are measured, over hidden pixels alone."""

import torch
from torch import Tensor

from semconv.masking import spread_mask
from semconv.objective import Objective


def psnr(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of mean squared errors between pixels in [0, 1]; at most 100 dB."""
    return -10 * torch.log10(mse.clamp(min=1e-10))


def give_moments(prediction: Tensor, images: Tensor, objective: Objective) -> Tensor:
    """A prediction whose patches have the true mean and deviation: what of it is structure, for every kind of target alike.

    Args:
        prediction: `b c h w`, in target space.
        images: `b c h w`, whose patches lend their moments.
        objective: says what a patch is.

    Returns:
        `b c h w`, in the units of `images`.
    """
    mean, deviation = objective.moments(prediction.float())
    true_mean, true_deviation = objective.moments(images.float())
    return (prediction.float() - mean) / deviation * true_deviation + true_mean


def mean_fill(pixels: Tensor, mask: Tensor, normalised: bool) -> Tensor:
    """The floor that every model must beat: `b c h w` in target space.

    Args:
        pixels: `b c h w`, of which only visible ones are read.
        mask: bool `b gh gw`, True = masked.
        normalised: whether targets are normalised per patch. Then it is zero everywhere, the mean of each patch; else the mean
            colour of the image's visible pixels.
    """
    if normalised:
        return torch.zeros_like(pixels, dtype=torch.float32)
    visible = ~spread_mask(mask, (pixels.shape[2], pixels.shape[3]))
    total = torch.where(visible, pixels, 0).sum((2, 3), keepdim=True, dtype=torch.float32)
    return (total / visible.sum((2, 3), keepdim=True)).expand_as(pixels)
