"""Parameters, FLOPs, speed and memory of a run."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from semconv.callbacks.callback import Callback
from semconv.convolution import Mechanism
from semconv.cost import Throughput, count_flops, count_images, count_training_flops, flops_per_image, peak_memory
from semconv.encoders.encoder import count_parameters
from semconv.indicators import Indicators
from semconv.tracking.folder import RunFolder

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class Cost(Callback):
    """Writes parameters, FLOPs, images per second and peak memory into the run's summary.

    FLOPs are those of one image in a batch of the module's `batch_size`, if it has one. The image is the module's
    `example_input_array` (a Lightning attribute); null without one.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.throughput = folder, Throughput()
        self.size: dict[str, Any] = {}

    def setup(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        if not self.size:  # before the module is distributed over devices
            encoder, decoder = getattr(pl_module, "encoder", None), getattr(pl_module, "decoder", None)
            self.size = {
                "cost/parameters": count_parameters(pl_module),
                "cost/encoder_parameters": count_parameters(encoder) if encoder is not None else None,
                "cost/decoder_parameters": count_parameters(decoder) if decoder is not None else None,
                "cost/indicator_parameters": _count_conditioning(pl_module),
                "cost/flops": self._flops(count_flops, pl_module),
                "cost/train_flops": self._flops(count_training_flops, pl_module),
            }

    def _flops(self, count: Callable[..., int], module: "LightningModule") -> float | None:
        example = module.example_input_array
        if example is None:
            return None
        inputs = example if isinstance(example, tuple) else (example,)
        return flops_per_image(count, module, inputs, getattr(module, "batch_size", 1))

    def on_fit_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        self._summarise(trainer, self.size)

    def on_test_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        self._summarise(trainer, self.size)

    def on_train_batch_end(self, trainer: "Trainer", module: "LightningModule", outputs: Any, batch: Any, batch_idx: int) -> None:
        self.throughput.count(count_images(batch) * trainer.world_size, module.device)

    def on_validation_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        self.throughput.pause(module.device)

    def on_validation_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        self.throughput.go_on(module.device)

    def on_train_epoch_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        self.throughput.go_on(module.device)

    def on_train_epoch_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        self.throughput.pause(module.device)  # checkpoints are written next

    def on_train_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        values = {"cost/train_images_per_second": self.throughput.rate, "cost/peak_memory_bytes": peak_memory(module.device)}
        self._summarise(trainer, values)

    def _summarise(self, trainer: "Trainer", values: Mapping[str, Any]) -> None:
        if trainer.is_global_zero:
            self.folder.summarise(values)


def _count_conditioning(module: "LightningModule") -> int:
    """Count the parameters of mechanisms and of indicators."""
    parts = [part for part in module.modules() if isinstance(part, Mechanism | Indicators)]
    return sum(parameter.numel() for parameter in {parameter for part in parts for parameter in part.parameters()})
