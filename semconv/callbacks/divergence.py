"""The end of a run whose loss or gradient is no longer finite."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from semconv.callbacks.callback import Callback
from semconv.processes import gathered

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

OUTCOMES = ("val/masked_mse", "val/loss", "test/masked_mse")
REMEDY = "give a smaller --model.base_lr or a longer --model.warmup, and check the mean and std of the data"


class Diverged(Exception):
    """Training has diverged. The message says where."""

    exit_code = 3


class Batch(NamedTuple):
    """The first batch of a training step."""

    epoch: int
    number: int  # in its epoch
    step: int
    rate: float

    def __str__(self) -> str:
        return f"step {self.step} (learning rate {self.rate:.3g}, batch {self.number} of epoch {self.epoch})"


class Divergence(Callback):
    """Ends a run at its first loss or gradient that is not finite, or after its last update where the error is not finite then.

    The check stays on the device. On a CPU it is read after every step; elsewhere reading waits for the device, and is done
    where metrics are logged, at the end of every epoch, and where `read` is called.

    Args:
        limit: number of consecutive steps that are not finite, at which the run ends.

    Raises:
        Diverged: in training, or at the end of a test.
    """

    def __init__(self, limit: int = 1) -> None:
        self.limit = limit
        self._unread: list[Batch] = []
        self._counts: list[Tensor] = []  # of consecutive steps that are not finite, one for each unread step
        self._in_loss: list[Tensor] = []
        self._loss: Tensor | None = None  # of the batches of a step so far
        self._gradient: Tensor | None = None

    def on_before_optimizer_step(self, trainer: "Trainer", module: "LightningModule", optimizer: torch.optim.Optimizer) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is None:  # a loss scaler skips steps of its own accord
            parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
            norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
            finite = gathered(norm).isfinite()
            self._gradient = finite if self._gradient is None else self._gradient & finite  # of several optimisers

    def on_train_batch_start(self, trainer: "Trainer", module: "LightningModule", batch: Any, batch_idx: int) -> None:
        if self._loss is None:
            rate = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else 0.0
            self._unread.append(Batch(trainer.current_epoch, batch_idx, trainer.global_step, rate))

    def on_train_batch_end(self, trainer: Any, module: "LightningModule", outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        device = trainer.strategy.root_device
        finite = loss.detach().isfinite().all() if isinstance(loss, Tensor) else torch.tensor(True, device=device)
        finite = self._loss = finite if self._loss is None else self._loss & finite
        if trainer.global_step == self._unread[-1].step:  # gradients are still accumulated
            return
        gradient = finite if self._gradient is None else self._gradient
        before = self._counts[-1] if self._counts else torch.zeros_like(finite, dtype=torch.long)
        self._counts.append(torch.where(finite & gradient, 0, before + 1))
        self._in_loss.append(~finite)
        self._loss = self._gradient = None
        every = 1 if device.type == "cpu" else trainer.log_every_n_steps
        if trainer.global_step % every == 0 or trainer.is_last_batch:
            self.read(trainer)

    def on_train_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        self.read(trainer)

    def on_validation_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        if trainer.state.fn == "validate":  # after training; within it the next step tells
            self._see_outcome(trainer)

    def on_test_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        self._see_outcome(trainer)

    def _see_outcome(self, trainer: "Trainer") -> None:
        for key in OUTCOMES:
            value = trainer.callback_metrics.get(key)
            if value is not None and not value.isfinite():
                raise Diverged(f"{key} is not finite after the last step: {REMEDY}")

    def read(self, trainer: "Trainer") -> None:
        """Wait for the device, and end the run if it has diverged; all processes must call it."""
        if not self._counts:
            return
        counts = torch.stack(self._counts)
        if trainer.world_size > 1:  # all processes end at the same step
            counts = trainer.strategy.reduce(counts, reduce_op="max")
        if int(counts.max()) >= self.limit:
            first = int((counts >= self.limit).nonzero()[0]) - self.limit + 1
            what = "loss" if self._in_loss[first] else "gradient"
            raise Diverged(f"the {what} is not finite at {self._unread[first]}: {REMEDY}")
        # a streak that has begun may go on
        kept = slice(len(counts) - int(counts[-1]), None)
        self._unread, self._counts, self._in_loss = self._unread[kept], self._counts[kept], self._in_loss[kept]
