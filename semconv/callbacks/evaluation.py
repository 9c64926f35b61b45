"""The evaluation as a callback: at the end of each test, and of features during training."""

import sys
import time
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn

from semconv.cost import inference_rate
from semconv.evaluation import full, quick
from semconv.evaluation.features import Evaluated
from semconv.tracking.folder import RunFolder

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

Extent = Literal["none", "quick", "full"]
EARLY_IMAGES = 2000  # of train, and of validation, that are probed with during training


class Evaluation(Callback):
    """Evaluates a task that has an encoder and an `ImageData` after its test; does nothing for other tasks.

    Args:
        folder: the run's folder.
        level: quick: probes per stage, those of the untrained network and of pixels beside them, permutation importance of
            indicators, speed. full: also curves over mask ratios and kinds of masks, shifts, resolutions, flips, rank of the
            features, and fractions of the labels.
        num_images: maximal number of images of train, and of test, for the probes.
        every: epochs between probes of the features during training, on at most 2,000 images of train and of validation: they are
            made where an epoch is validated, and leave training to the bit as it would be without. None: no such probes.
        recalibrate: recompute batch-norm statistics for each kind of view before features are extracted.
    """

    def __init__(
        self,
        folder: RunFolder,
        level: Extent = "quick",
        num_images: int = 10_000,
        recalibrate: bool = False,
        every: int | None = None,
    ) -> None:
        self.folder, self.level, self.num_images, self.recalibrate = folder, level, num_images, recalibrate
        self.every = every

    def on_train_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        if self.every is not None and not trainer.limit_val_batches:
            self._stop_probing(trainer, "there is no validation, in which they are made: give a validation_fraction above 0")

    # where validation begins, the clock of training stands still
    def on_validation_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        fits = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not fits or self.every is None or (trainer.current_epoch + 1) % self.every or not self._can_probe(trainer, module):
            return
        evaluated = self._evaluated(trainer, module)
        try:
            with torch.inference_mode(False):
                results = quick.while_training(evaluated, min(EARLY_IMAGES, self.num_images), self.recalibrate)
        except ValueError as error:
            self._stop_probing(trainer, str(error))
            return
        for logger in trainer.loggers:
            logger.log_metrics(results, step=trainer.global_step - 1)  # steps are counted from 0
        if trainer.is_global_zero:
            self.folder.summarise(results)

    def on_test_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        if self.level == "none" or not self._can_probe(trainer, module):
            return
        begin = time.perf_counter()
        evaluated = self._evaluated(trainer, module)
        evaluated.data.setup("fit")
        with torch.inference_mode(False):  # probes need gradients, which Lightning turns off in a test
            results, classifier = quick.evaluate(evaluated, self.num_images, self.recalibrate)
            results["cost/inference_images_per_second"] = inference_rate(
                module, evaluated.data.sample("test", evaluated.data.batch_size), evaluated.data, evaluated.precision
            )
            if self.level == "full":
                results.update(full.evaluate(evaluated, classifier, self.recalibrate))
        results["evaluation/seconds"] = time.perf_counter() - begin
        if trainer.is_global_zero:
            self.folder.summarise(results)

    def _stop_probing(self, trainer: "Trainer", reason: str) -> None:
        self.every = None
        if trainer.is_global_zero:
            print(f"semconv: no probes during training: {reason}", file=sys.stderr)

    def _can_probe(self, trainer: "Trainer", module: "LightningModule") -> bool:
        data: Any = getattr(trainer, "datamodule", None)
        return not trainer.fast_dev_run and hasattr(module, "look") and hasattr(data, "label_maps")  # type: ignore[attr-defined]

    def _evaluated(self, trainer: Any, module: "LightningModule") -> Evaluated:
        return Evaluated(module, trainer.datamodule, trainer.precision_plugin.forward_context, trainer.world_size)
