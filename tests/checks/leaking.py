"""Classes as a user might write them, each with one mistake."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semconv.corruption import Bert, Corruption, Fill, Hide, View
from semconv.data import ImageData
from semconv.encoders import Encoder, Encoding, Geometry, Size
from semconv.encoders.encoder import with_finer
from semconv.indicators import ExternalMap
from semconv.masking import spread_mask
from semconv.tasks import MaskedReconstruction
from tests.experiments import make_task


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


class Bypassing(Remembering):
    """The same, by methods of which no hook knows."""

    def training_step(self, batch, batch_idx):
        view, mask = self.look(batch, "train")
        stages = self.encoder.encode_stages(view._replace(pixels=view.pixels + _mean(batch.images)))
        return self.objective(self.decoder.forward(with_finer(stages), view.mask), batch.images, mask)

    def test_step(self, batch, batch_idx):
        return super().test_step(batch, batch_idx)


class Idle(MaskedReconstruction):
    """Trains something else."""

    def training_step(self, batch, batch_idx):
        return batch.images.sum()


def _mean(images: Tensor) -> Tensor:
    return torch.mean(images, (2, 3), keepdim=True)


class ZeroFill(Fill):
    """Shows what it should hide, under the name of a fill of semconv's."""

    def __call__(self, images, mask, num_masked, keys):
        return images


class Unmasked(Corruption):
    """Shows everything, and calls nothing masked."""

    def __call__(self, images, mask, num_masked, keys):
        return View(images, mask & False, 0)


class HalfBert(Bert):
    """Calls a part of what it hides not masked."""

    def __call__(self, images, mask, num_masked, keys):
        view = super().__call__(images, mask, num_masked, keys)
        return view._replace(pixels=torch.where(spread_mask(view.mask, (images.shape[2], images.shape[3])), images, view.pixels))


def when(condition):
    """A task whose views show everything under a condition on task, batch and stage."""

    def cheat(task: MaskedReconstruction) -> MaskedReconstruction:
        class Cheating(type(task)):  # type: ignore[misc]
            def look(self, batch, stage, draw=0):
                view, mask = super().look(batch, stage, draw)
                return (view._replace(pixels=batch.images), mask) if condition(self, batch, stage, mask) else (view, mask)

        task.__class__ = Cheating
        return task

    return cheat


def named(name, cheat):
    cheat.__name__ = name
    return cheat


class ReadsTheMap(ExternalMap):
    """Says that it is made of content, and reads the map that comes with the images."""

    conveys = "content"


class Standardised(ImageData):
    """Standardises each image by its own pixels, those that will be hidden with them."""

    def on_after_batch_transfer(self, batch, dataloader_idx):  # type: ignore[override]
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return batch._replace(images=batch.images - _mean(batch.images))


class StandardisedEarly(ImageData):
    """Does so before the transfer, in validation alone."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        if not cast(Any, self.trainer).validating:
            return batch
        return batch._replace(images=batch.images - _mean(batch.images.float()).to(torch.uint8))


class Noisy(ImageData):
    """Adds noise, and flips in training: no leak."""

    def on_after_batch_transfer(self, batch, dataloader_idx):  # type: ignore[override]
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        images = batch.images.flip(-1) if cast(Any, self.trainer).training else batch.images
        return batch._replace(images=images + torch.randn_like(images))


def _with(**parts):
    def cheat(task):
        vars(task).update(parts)
        return task

    return cheat


MAP = "tests.checks.leaking.ReadsTheMap"
CHEATS = [
    named("fill of a known name", _with(corruption=Hide(ZeroFill()))),
    named("nothing is called masked", _with(corruption=Unmasked())),
    named("part of Bert is shown", _with(corruption=HalfBert())),
    named("validation alone", when(lambda task, batch, stage, mask: stage == "val")),
    named("probes alone", when(lambda task, batch, stage, mask: stage == "probe")),
    named("testing alone", when(lambda task, batch, stage, mask: stage == "test")),
    named("from epoch 1", when(lambda task, batch, stage, mask: stage == "train" and task.current_epoch > 0)),
    named("with a trainer", when(lambda task, batch, stage, mask: task._trainer is not None)),
    named("without a trainer", when(lambda task, batch, stage, mask: task._trainer is None)),
    named("half precision", when(lambda task, batch, stage, mask: torch.is_autocast_enabled("cpu"))),
    named("half precision in training", when(lambda task, *_: task.training and torch.is_autocast_enabled("cpu"))),
    named("batches above 2", when(lambda task, batch, stage, mask: len(batch.images) > 2)),
    named("one image", when(lambda task, batch, stage, mask: len(batch.images) == 1)),
    named("above 90 % masked", when(lambda task, batch, stage, mask: mask.float().mean() > 0.9)),
    named("below 10 % masked", when(lambda task, batch, stage, mask: mask.float().mean() < 0.1)),
    named("odd counts", when(lambda task, batch, stage, mask: int(mask[0].sum()) % 2 == 1)),
    named(
        "reads the map",
        lambda task: make_task("cnn_channels", f"--model.encoder.indicators=[{{class_path: {MAP}}}]", "--model.size=micro"),
    ),
    named("standardised by the data module", lambda task: (task, Standardised("scenes"))),
    named("standardised before the transfer", lambda task: (task, StandardisedEarly("scenes"))),
]
