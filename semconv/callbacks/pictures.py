"""Pictures of reconstructions, and the errors of single images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._pytree import tree_map_only

from semconv.callbacks.callback import Callback
from semconv.pictures import Reconstruction, contact_sheet, save_picture, to_picture, to_rgb
from semconv.processes import all_gather
from semconv.tracking.folder import RunFolder
from semconv.tracking.recorder import recorders

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class Panels(Callback):
    """Pictures original | seen | reconstruction | pasted, of the same images for every variant, into `media/` and to W&B.

    `media/test.png` and `media/val.png` are contact sheets; `media/test/<caption>-<number>.png` are the single test images, which
    `semconv compare` shows. Works for any module whose `predict_step` returns a `semconv.pictures.Reconstruction`. The images are
    spread over the whole set if the data module has `sample(part, count)`; otherwise they are the first of the first batch.

    Args:
        folder: the run's.
        num_images: how many images are shown.
    """

    def __init__(self, folder: RunFolder, num_images: int = 8) -> None:
        self.folder, self.num_images = folder, num_images

    def on_test_batch_start(self, trainer: "Trainer", module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if batch_idx == 0 and trainer.is_global_zero and _reconstructs(module):
            made = self._reconstruct(trainer, module, "test", batch)
            self._show(trainer, made, "test")
            for caption, images in made.columns.items():
                for number, image in zip(made.numbers.tolist(), to_rgb(images), strict=True):
                    save_picture(to_picture(image), self.folder.media / "test" / f"{caption}-{number:06d}.png")

    def on_validation_batch_start(
        self, trainer: "Trainer", module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and trainer.is_global_zero and not trainer.sanity_checking and _reconstructs(module):
            self._show(trainer, self._reconstruct(trainer, module, "validation", batch), "val")

    def on_predict_batch_end(
        self, trainer: "Trainer", module: Any, outputs: Reconstruction, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        for i, number in enumerate(outputs.numbers.tolist()):
            columns = {caption: images[i : i + 1] for caption, images in outputs.columns.items()}
            save_picture(contact_sheet(columns, outputs.note), self.folder.media / "predict" / f"{number:06d}.png")

    def _reconstruct(self, trainer: "Trainer", module: Any, part: str, batch: Any) -> Reconstruction:
        data: Any = getattr(trainer, "datamodule", None)
        if hasattr(data, "sample"):
            batch = tree_map_only(Tensor, lambda tensor: tensor.to(module.device), data.sample(part, self.num_images))
            batch = data.on_after_batch_transfer(batch, 0)
        else:
            batch = tree_map_only(Tensor, lambda tensor: tensor[: self.num_images], batch)
        with trainer.precision_plugin.forward_context():
            return module.predict_step(batch, 0)

    def _show(self, trainer: "Trainer", made: Reconstruction, stage: str) -> None:
        save_picture(contact_sheet(made.columns, made.note), self.folder.media / f"{stage}.png")
        captions = [f"{stage} image {number}" for number in made.numbers.tolist()]
        for recorder in recorders(trainer.loggers):
            recorder.log_panels(f"panels/{stage}", made.columns, made.mask, captions, trainer.global_step)


class ErrorTable(Callback):
    """Logs a table of the values that a test step returns for each image, the largest error first, as `errors/test`.

    For any module whose `test_step` returns tensors `b` by name, `masked_mse` among them.
    """

    def __init__(self) -> None:
        self._found: list[dict[str, list]] = []

    def on_test_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        self._found = []

    def on_test_batch_end(
        self, trainer: "Trainer", module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if isinstance(outputs, Mapping) and "masked_mse" in outputs:
            self._found.append({name: values.tolist() for name, values in outputs.items()})

    def on_test_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        found = [batch for process in all_gather(self._found, trainer.world_size) for batch in process]
        if not found:
            return
        columns = {name: [value for batch in found for value in batch[name]] for name in found[0]}
        order = sorted(range(len(columns["masked_mse"])), key=lambda row: -columns["masked_mse"][row])
        table = {name: [values[row] for row in order] for name, values in columns.items()}
        for recorder in recorders(trainer.loggers):
            recorder.log_table("errors/test", table, trainer.global_step)


def _reconstructs(module: Any) -> bool:
    """True for a module with a `predict_step` of its own."""
    from lightning.pytorch import LightningModule

    return type(module).predict_step is not LightningModule.predict_step
