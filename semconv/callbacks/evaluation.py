"""The evaluation as a callback, at the end of each test."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import Callback

from semconv.cost import inference_rate
from semconv.evaluation import full, quick
from semconv.evaluation.features import Evaluated
from semconv.tracking.folder import RunFolder

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

Extent = Literal["none", "quick", "full"]


class Evaluation(Callback):
    """Evaluates a task that has an encoder and an `ImageData` after its test; does nothing for other tasks.

    Args:
        folder: the run's folder.
        level: quick: probes per stage, those of the untrained network and of pixels beside them, permutation importance of
            indicators, speed. full: also curves over mask ratios and kinds of masks, shifts, resolutions, flips, rank of the
            features, and fractions of the labels.
        num_images: maximal number of images of train, and of test, for the probes.
        recalibrate: recompute batch-norm statistics for each kind of view before features are extracted.
        checkpoint: the checkpoint under test: features are kept beside it. None: the run's own.
    """

    def __init__(
        self,
        folder: RunFolder,
        level: Extent = "quick",
        num_images: int = 10_000,
        recalibrate: bool = False,
        checkpoint: str | None = None,
    ) -> None:
        self.folder, self.level, self.num_images, self.recalibrate = folder, level, num_images, recalibrate
        self.checkpoint = checkpoint

    def on_test_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        data: Any = getattr(trainer, "datamodule", None)
        if self.level == "none" or trainer.fast_dev_run or not hasattr(module, "look") or not hasattr(data, "label_maps"):  # type: ignore[attr-defined]
            return
        begin = time.perf_counter()
        data.setup("fit")
        evaluated = Evaluated(module, data, trainer.precision_plugin.forward_context, trainer.world_size)
        with torch.inference_mode(False):  # probes need gradients, which Lightning turns off in a test
            results, classifier = quick.evaluate(evaluated, self.num_images, self.recalibrate, self._keep(trainer))
            results["cost/inference_images_per_second"] = inference_rate(module, data.sample("test", data.batch_size), data)
            if self.level == "full":
                results.update(full.evaluate(evaluated, classifier))
        results["evaluation/seconds"] = time.perf_counter() - begin
        if trainer.is_global_zero:
            self.folder.summarise(results)

    def _keep(self, trainer: "Trainer") -> Path | None:
        """The folder of the checkpoint under test, where features are kept; None: they are not kept."""
        if self.checkpoint:
            return Path(self.checkpoint).parent
        return self.folder.checkpoints if trainer.checkpoint_callbacks else None
