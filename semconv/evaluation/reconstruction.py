"""Metrics of reconstructions, over hidden pixels alone."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from einops import repeat
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure

from semconv.data.batch import to_unit
from semconv.data.sources import Moments
from semconv.masking import spread_mask
from semconv.objective import Objective

REGION_DISTANCES = (1, 2, 3)  # cells to the nearest visible one; 3 is 3 or more
SSIM_MARGIN = 5  # pixels that SSIM's window of 11 looks at beside one
REGIONS = (*(f"distance_{cells}" for cells in REGION_DISTANCES), "seam")


class Addends(NamedTuple):
    """The summands of a mean that come from each image of a batch."""

    totals: Tensor  # b
    counts: Tensor  # b: of images, 1 each, or of pixels


class ReconstructionMetrics(Metric):
    """All metrics of a test of reconstruction: means over its images, and over the hidden pixels of each region.

    Exact for uneven batches and for any number of processes: totals and counts are added up. A NaN stays visible in the mean, and
    nothing waits for the device before `compute`.

    Args:
        objective: the squared error in target space.
        channels: of the images.
        size: height and width of the images.

    Attributes:
        absent: keys of the metrics that do not apply, or had no pixel in the last `compute`, with the reason.
    """

    full_state_update = False
    totals: Tensor
    counts: Tensor

    def __init__(self, objective: Objective, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.objective = objective
        self._inapplicable: dict[str, str] = {}
        if objective.normalise:
            reason = "targets are normalised per patch: a prediction has no colour or contrast of its own"
            self._inapplicable |= dict.fromkeys(("pixel_mse", "psnr"), reason)
        if channels * objective.patch**2 == 1:
            self._inapplicable["psnr_given_moments"] = "a patch is one number, which has no deviation"
        if min(size) <= SSIM_MARGIN:
            self._inapplicable["ssim"] = f"its window takes images of more than {SSIM_MARGIN} pixels"
        names = ["masked_mse", "masked_mse_under_hide", "mean_fill_mse", "psnr_given_moments", "ssim"]
        names += [*(f"masked_mse/{region}" for region in REGIONS), "pixel_mse", "psnr"]
        self.names = [name for name in names if name not in self._inapplicable]
        for state in ("totals", "counts"):
            self.add_state(state, torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        self.absent = self._left_out()

    def measure(
        self, prediction: Tensor, images: Tensor, mask: Tensor, normalisation: Moments, under_hide: Tensor | None = None
    ) -> dict[str, Addends]:
        """Measure a batch, by the names of the metrics; `update` adds it.

        Args:
            prediction: `b c h w`, in target space.
            images: `b c h w`, what was to be predicted.
            mask: bool `b gh gw`, True = masked.
            normalisation: mean and deviation that the images were normalised with.
            under_hide: a prediction from visible pixels alone, where `prediction` is from others, too.
        """
        size = (images.shape[2], images.shape[3])
        hidden = spread_mask(mask, size)
        moments = None if "psnr_given_moments" in self._inapplicable else self.objective.moments(images.float())
        target, truth = self.objective.target(images, moments), to_unit(images, *normalisation)

        def error(made: Tensor) -> Tensor:
            return _mean(self.objective.pixel_errors(made, target), hidden)

        def pixel_mse(pixels: Tensor) -> Tensor:
            return _mean((to_unit(pixels, *normalisation) - truth).square().mean(1, keepdim=True), hidden)

        errors = self.objective.pixel_errors(prediction, target)
        each = {"masked_mse": _mean(errors, hidden)}
        each["masked_mse_under_hide"] = each["masked_mse"] if under_hide is None else error(under_hide)
        each["mean_fill_mse"] = error(mean_fill(images, mask, self.objective.normalise))
        if moments is not None:
            each["psnr_given_moments"] = psnr(pixel_mse(give_moments(prediction, moments, self.objective)))
        if "ssim" in self.names:
            pasted = torch.where(hidden, self.objective.to_pixels(prediction, images, moments), images)
            each["ssim"] = ssim(to_unit(pasted, *normalisation), truth, hidden)
        if not self.objective.normalise:
            each["pixel_mse"] = pixel_mse(prediction)
            each["psnr"] = psnr(each["pixel_mse"])
        of_images = {name: Addends(values, torch.ones_like(values)) for name, values in each.items()}
        of_pixels = {f"masked_mse/{name}": _sums(errors, region) for name, region in regions(mask, size).items()}
        return of_images | of_pixels

    def update(self, measured: Mapping[str, Addends]) -> None:
        for number, state in enumerate((self.totals, self.counts)):
            state += torch.stack([measured[name][number].sum(dtype=torch.float64) for name in self.names])

    def compute(self) -> dict[str, Tensor]:
        """The means by key, without those of regions in which no pixel is hidden."""
        means = {f"test/{name}": mean for name, mean in zip(self.names, self.totals / self.counts, strict=True)}
        empty = [key for key, count in zip(means, self.counts.tolist(), strict=True) if not count]
        self.absent = self._left_out() | dict.fromkeys(empty, "no hidden pixel lies there")
        return {key: mean for key, mean in means.items() if key not in empty}

    def _left_out(self) -> dict[str, str]:
        return {f"test/{name}": reason for name, reason in self._inapplicable.items()}


def psnr(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of mean squared errors between pixels in [0, 1]; at most 100 dB."""
    return -10 * torch.log10(mse.clamp(min=1e-10))


def give_moments(prediction: Tensor, moments: tuple[Tensor, Tensor], objective: Objective) -> Tensor:
    """A prediction whose patches have the true mean and deviation: its structure alone, for every kind of target alike.

    Args:
        prediction: `b c h w`, in target space.
        moments: true mean and deviation of each pixel's patch, `b 1 h w` each.
        objective: says what a patch is.

    Returns:
        `b c h w`, in the units of the moments.
    """
    mean, deviation = objective.moments(prediction.float())
    return (prediction.float() - mean) / deviation * moments[1] + moments[0]


def mean_fill(pixels: Tensor, mask: Tensor, normalised: bool) -> Tensor:
    """The prediction that every model must beat: `b c h w` in target space.

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
    return _mean(maps.mean(1, keepdim=True), hidden)


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


def _sums(values: Tensor, region: Tensor) -> Addends:
    """The total of a map over a region of each image, and its pixels there; both `b 1 h w`."""
    # where, not a product: a NaN elsewhere is of no account
    return Addends(torch.where(region, values, 0).sum((1, 2, 3), dtype=torch.float64), region.sum((1, 2, 3)))


def _mean(values: Tensor, region: Tensor) -> Tensor:
    """The mean of a map over a region of each image: `b`, float32."""
    totals, counts = _sums(values, region)
    return (totals / counts).float()


def _grow(region: Tensor, steps: int) -> Tensor:
    """A region and what is at most that many steps from it, diagonal ones too: bool `b h w`."""
    return F.max_pool2d(region.float()[:, None], 2 * steps + 1, stride=1, padding=steps)[:, 0] > 0
