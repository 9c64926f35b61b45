"""Gradient norm, learning rate, speed, and the measurements of mechanisms during training."""

import time
from typing import TYPE_CHECKING, Any

import torch

from semconv.callbacks.callback import Callback
from semconv.convolution import Mechanism, layer_of
from semconv.cost import count_images
from semconv.processes import gathered

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


class Dynamics(Callback):
    """Logs gradient norm (before clipping), learning rate, images per second, and the measurements of mechanisms.

    They are logged at the same steps as the training metrics.
    """

    def __init__(self) -> None:
        self._images, self._since = 0, 0.0

    def on_train_start(self, trainer: Any, module: "LightningModule") -> None:
        self._images, self._since = 0, time.perf_counter()

    def on_before_optimizer_step(self, trainer: Any, module: "LightningModule", optimizer: torch.optim.Optimizer) -> None:
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:  # nothing is logged at other steps
            gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
            module.log("train/gradient_norm", gathered(torch.nn.utils.get_total_norm(gradients)))
            module.log("train/learning_rate", optimizer.param_groups[0]["lr"])
            for key, value in measured(module).items():
                module.log(key, gathered(value))

    def on_train_batch_end(self, trainer: Any, module: "LightningModule", outputs: Any, batch: Any, batch_idx: int) -> None:
        self._images += count_images(batch) * trainer.world_size
        if trainer.global_step % trainer.log_every_n_steps == 0:
            now = time.perf_counter()
            module.log("train/images_per_second", self._images / (now - self._since))
            self._images, self._since = 0, now


def measured(module: torch.nn.Module) -> dict[str, Any]:
    """The measurements of mechanisms, as `mechanism/<name>/<layer>`, where a layer is its path in the encoder."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        if isinstance(part, Mechanism):
            found |= {f"mechanism/{name}/{layer_of(path)}": value for name, value in part.measures().items()}
    return found
