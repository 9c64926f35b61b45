"""How reconstructions are measured, over hidden pixels alone."""

import torch
from einops import repeat
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from semconv.masking import spread_mask
from semconv.objective import Objective

REGION_DISTANCES = (1, 2, 3)  # cells to the nearest visible one; 3 is 3 or more
REGIONS = (*(f"distance_{cells}" for cells in REGION_DISTANCES), "seam")


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


def ssim(pasted: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    """Structural similarity (Wang et al., 2004) of pasted images, averaged over their hidden pixels: `b`, at most 1.

    The Gaussian window of 11 pixels looks at visible pixels too, so that seams count.

    Args:
        pasted: `b c h w` in [0, 1]: predicted where hidden, else the original.
        images: `b c h w` in [0, 1], the originals.
        hidden: bool `b 1 h w`.
    """
    _, maps = structural_similarity_index_measure(pasted, images, data_range=1.0, reduction="none", return_full_image=True)
    return torch.where(hidden, maps.mean(1, keepdim=True), 0).sum((1, 2, 3)) / hidden.sum((1, 2, 3))


def squared_errors(prediction: Tensor, images: Tensor, objective: Objective) -> Tensor:
    """Squared error of each pixel in target space, averaged over channels: `b 1 h w`, float32."""
    return (prediction.float() - objective.target(images)).square().mean(1, keepdim=True)


def distance_to_visible(mask: Tensor) -> Tensor:
    """Cells from each cell to the nearest visible one, diagonal steps counting as one: int64 `b gh gw`, 0 where visible, at most 3.

    Args:
        mask: bool `b gh gw`, True = masked.
    """
    once = _grow(~mask, 1)
    return mask.long() + (~once).long() + (~_grow(once, 1)).long()


def seam(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The hidden pixels at cell borders, beside visible ones: bool `b 1 h w`. One pixel deep, from cells of 16 on an eighth of one.

    Args:
        mask: bool `b gh gw`, True = masked.
        size: height and width of the image in pixels.
    """
    hidden = spread_mask(mask, size)
    depth = max(1, size[0] // mask.shape[1] // 8)
    return hidden & _grow(~hidden[:, 0], depth)[:, None]


def regions(mask: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """Parts of the hidden pixels, by name: bool `b 1 h w` each. Those by distance make up the whole."""
    distance = distance_to_visible(mask)
    rows, columns = size[0] // mask.shape[1], size[1] // mask.shape[2]
    spread = repeat(distance, "b gh gw -> b 1 (gh p) (gw q)", p=rows, q=columns)
    return {f"distance_{cells}": spread == cells for cells in REGION_DISTANCES} | {"seam": seam(mask, size)}


def _grow(region: Tensor, steps: int) -> Tensor:
    """A region and what is at most that many steps from it, diagonal ones too: bool `b h w`."""
    return F.max_pool2d(region.float()[:, None], 2 * steps + 1, stride=1, padding=steps)[:, 0] > 0
