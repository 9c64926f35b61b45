"""The one loss that every variant is trained on: MAE's (He et al., 2022, sec. 3)."""

from typing import Literal

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from semconv.configuration import require, require_choice

Loss = Literal["mse", "l1"]


class Objective(nn.Module):
    """Reconstruction error over masked patches alone.

    Args:
        patch: side in pixels of the patch over which a target is normalised; must divide the mask cell.
        normalise: each target patch has its mean taken off and is divided by its standard deviation (MAE's norm-pix).
        loss: squared (`mse`) or absolute (`l1`) error.
        eps: added to the variance before its root is taken.
    """

    def __init__(self, patch: int, normalise: bool = True, loss: Loss = "mse", eps: float = 1e-6) -> None:
        super().__init__()
        if patch < 1 or (normalise and patch < 2):
            raise ValueError(f"target patch is {patch} pixels: give at least 2 to normalise by, or 1 with normalise=false")
        require("eps of the objective", eps, 0, exclude="low")
        require_choice("loss", loss, Loss)
        self.patch, self.normalise, self.loss, self.eps = patch, normalise, loss, eps

    def forward(self, prediction: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """The mean over all masked patches of the batch: a scalar, float32.

        Args:
            prediction: `b c h w`, in target space.
            images: `b c h w`, what was to be predicted.
            mask: bool `b gh gw` on mask cells, True = masked.
        """
        errors, masked = self.patch_errors(prediction, images), self.masked_patches(mask, images)
        # where, not a product or an index: gradients at visible patches are exactly 0, and no device is waited for
        return torch.where(masked, errors, 0).sum() / masked.sum()

    def per_image(self, prediction: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """The same for each image: `b`."""
        errors, masked = self.patch_errors(prediction, images), self.masked_patches(mask, images)
        return torch.where(masked, errors, 0).sum((1, 2)) / masked.sum((1, 2))

    def target(self, images: Tensor, moments: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The image that a prediction is compared with: `b c h w`, float32; `moments` of the images, where they are known."""
        images = images.float()
        if not self.normalise:
            return images
        mean, deviation = moments or self.moments(images)
        return (images - mean) / deviation

    def to_pixels(self, prediction: Tensor, images: Tensor, moments: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """A prediction as pixels. Under normalised targets it borrows each patch's true mean and deviation from `images`."""
        if not self.normalise:
            return prediction.float()
        mean, deviation = moments or self.moments(images.float())
        return prediction.float() * deviation + mean

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each pixel's patch, over its pixels and channels: `b 1 h w` each."""
        patches = self._patches(images)
        # unbiased variance, as MAE's reference takes it
        variance, mean = torch.var_mean(patches, dim=-1, unbiased=True)
        return self._spread(mean), self._spread((variance + self.eps).sqrt())

    def pixel_errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean error of each pixel over its channels: `b 1 h w`, float32.

        Raises:
            ValueError: the prediction is of another shape than the target.
        """
        return self._errors(prediction, target).mean(1, keepdim=True)

    def patch_errors(self, prediction: Tensor, images: Tensor) -> Tensor:
        """Mean error of each patch: `b ph pw`, float32.

        Raises:
            ValueError: the prediction is of another shape than the images.
        """
        errors = self._errors(prediction, self.target(images))
        return reduce(errors, "b c (ph p) (pw q) -> b ph pw", "mean", p=self.patch, q=self.patch)

    def masked_patches(self, mask: Tensor, images: Tensor) -> Tensor:
        """The mask on the grid of target patches: bool `b ph pw`.

        Raises:
            ValueError: a mask cell does not hold a whole number of patches, or the mask is not bool.
        """
        if mask.dtype != torch.bool:
            raise ValueError(f"the mask is {mask.dtype}: give bool, True = masked")
        (height, width), (rows, columns) = images.shape[2:], mask.shape[1:]
        if height % (rows * self.patch) or width % (columns * self.patch):
            raise ValueError(
                f"{rows} x {columns} mask cells on {height} x {width} pixels cannot be cut into target patches of {self.patch}: "
                "choose a patch that divides the cell"
            )
        p, q = height // (rows * self.patch), width // (columns * self.patch)
        return repeat(mask, "b gh gw -> b (gh p) (gw q)", p=p, q=q)

    def _errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        if prediction.shape != target.shape:  # a single channel would be compared with all of them
            raise ValueError(
                f"the prediction is {tuple(prediction.shape)} for images of {tuple(target.shape)}: predict every channel"
            )
        difference = prediction.float() - target
        return difference.square() if self.loss == "mse" else difference.abs()

    def _patches(self, images: Tensor) -> Tensor:
        return rearrange(images, "b c (ph p) (pw q) -> b ph pw (c p q)", p=self.patch, q=self.patch)

    def _spread(self, patches: Tensor) -> Tensor:
        return repeat(patches, "b ph pw -> b 1 (ph p) (pw q)", p=self.patch, q=self.patch)
