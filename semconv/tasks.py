"""Masked reconstruction as a LightningModule: mask, corrupt, encode, decode, compare."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, Literal

import lightning
import torch
from timm.scheduler.scheduler import Scheduler
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric, MetricCollection

from semconv.configuration import require
from semconv.controls import find_indicators, freeze_dropped, set_control
from semconv.convolution import Plain, SemanticConv2d
from semconv.corruption import Corruption, Hide, View
from semconv.data import Batch
from semconv.data.batch import to_unit
from semconv.data.sources import Moments
from semconv.decoders import Decoder
from semconv.encoders import Encoder, Geometry, Size, initialise
from semconv.encoders.weights import aligned, require_fit
from semconv.evaluation.features import in_precision
from semconv.evaluation.reconstruction import ReconstructionMetrics
from semconv.hashing import draw_number, make_keys, make_seed
from semconv.indicators import Control, PaddingMode
from semconv.masking import Masker, spread_mask
from semconv.objective import Objective
from semconv.optimisation import (
    OptimizerFactory,
    ScheduleFactory,
    advance,
    build_optimizer,
    build_schedule,
    check_schedule,
    parameter_groups,
    warmup_cosine,
)
from semconv.pictures import Reconstruction
from semconv.sharding import shard

Stage = Literal["train", "val", "test", "probe"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


class Task(lightning.LightningModule, ABC):
    """A LightningModule that logs means over whole stages, and whose every step draws from its own seed.

    Attributes:
        val_metrics: what validation steps update; `compute` gives values by key.
        test_metrics: what test steps update.
        base_lr: learning rate per 256 images of a step.
        min_lr: learning rate at the end, likewise.
        warmup: share of the training steps in which the rate rises from 0.
        batch_size: images per step over all devices, before accumulation.
        seed: of what training draws.
    """

    val_metrics: Metric | MetricCollection
    test_metrics: Metric | MetricCollection
    base_lr: float
    min_lr: float = 0.0
    warmup: float
    batch_size: int
    seed: int

    @abstractmethod
    def make_optimizer(self, rate: float) -> torch.optim.Optimizer:
        """Build the optimiser for a peak learning rate."""

    def configure_model(self) -> None:
        if self.device_mesh is not None:  # of the strategy fsdp2
            shard(self, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        trainer = self.trainer
        optimizer = self.make_optimizer(self.base_lr * self.batch_size * trainer.accumulate_grad_batches / 256)
        steps = trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError("the schedule needs a number of steps: give trainer.max_epochs or trainer.max_steps")
        if trainer.ckpt_path and -1 not in (trainer.max_epochs, trainer.max_steps):
            # resumed between two epochs, a run that both bound would leave one out: give the smaller budget alone
            trainer.fit_loop.max_epochs, trainer.fit_loop.epoch_loop.max_steps = -1, int(steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_schedule(optimizer, int(steps)), "interval": "step"},
        }

    def make_schedule(self, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler | Scheduler:
        """Build the learning rate's course: up from 0 in a line, then down half a cosine."""
        factor = partial(warmup_cosine, total=steps, warmup=self.warmup, floor=self.min_lr / self.base_lr)
        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def on_train_start(self) -> None:
        schedulers = self.lr_schedulers()
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            if isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):  # the checkpoint's rate may be that of a smaller budget
                parts = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
                for group, rate, factor in parts:
                    group["lr"] = rate * factor(scheduler.last_epoch)

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        advance(scheduler, self.trainer.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = self.state_dict()
        checkpoint["state_dict"] = aligned(checkpoint["state_dict"], own)
        require_fit(checkpoint["state_dict"], own, "the checkpoint", "use the config.yaml of the run that wrote it")

    def log_loss(self, loss: Tensor, batch: Batch) -> Tensor:
        """Log a training loss as `train/loss`; returns it."""
        self.log("train/loss", loss, batch_size=len(batch.images), sync_dist=True)  # devices have equal shares
        return loss

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # drop path draws from the global generator: seeded by step, so that a resumed run draws the same
        # where there is no other device, torch.manual_seed would keep a traceback for each kind of them: a millisecond
        manual_seed = torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed
        manual_seed(make_seed(self.seed, "drop", self.global_step, batch_idx, self.global_rank))

    def on_validation_epoch_start(self) -> None:
        _begin(self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.val_metrics.compute(), sync_dist=True)

    def on_test_epoch_start(self) -> None:
        _begin(self.test_metrics)

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.test_metrics.compute(), sync_dist=True)


def _begin(metrics: Metric | MetricCollection) -> None:
    metrics.reset()
    metrics.to(torch.float64)  # Lightning's bf16-true would have them count in bfloat16


class MaskedReconstruction(Task):
    """Masked reconstruction, the same for every variant but for its encoder.

    Masks and corruption are functions of (seed, epoch, index) in training and of (evaluation seed, index) in evaluation, weights of
    (seed, module path): every variant meets the same images under the same masks.

    Args:
        encoder: the variant.
        decoder: from its features to pixels.
        masker: which cells are hidden.
        corruption: what is done to them.
        objective: what the prediction is compared with, and how.
        image_size: height and width in pixels; the data's.
        channels: colour channels; the data's.
        cell: side of a mask cell in pixels.
        size: size of encoder and decoder; encoders of one size have the same number of parameters, within 3 %.
        padding_mode: how convolutions continue a map beyond its border.
        base_lr: learning rate per 256 images of a step; a step's rate is base_lr * images / 256.
        min_lr: learning rate at the end, likewise per 256 images.
        warmup: share of the training steps in which the rate rises from 0.
        betas: AdamW's decay rates of the moments.
        optimizer: class of torch.optim or timm.optim, in place of AdamW, with its arguments but for lr and weight_decay: those of
            the protocol, base_lr and weight_decay, hold for every optimiser.
        schedule: class of torch.optim.lr_scheduler or timm.scheduler, in place of warm-up and cosine, in steps of the optimiser;
            min_lr and warmup are then of no use.
        weight_decay: of all weights but norms, biases and tokens.
        decay_tokens: decay tokens too. MAE's reference does; we do not unless asked to.
        batch_size: images per step over all devices, before accumulation; the data's.
        seed: of weights, masks and corruption.
        evaluation_seed: of evaluation masks.
        control: of semconv.controls: replaces the true signals of the encoder.
        compile: compile the network with torch.compile, as one graph; a name is its mode: reduce-overhead replays CUDA graphs.
    """

    test_metrics: ReconstructionMetrics

    def __init__(
        self,
        encoder: Callable[[Geometry, Size], Encoder],
        decoder: Callable[[Geometry, Size, Encoder], Decoder],
        masker: Masker,
        corruption: Corruption,
        objective: Objective,
        image_size: tuple[int, int],
        channels: int = 3,
        cell: int = 4,
        size: Size = "test",
        padding_mode: PaddingMode = "zeros",
        base_lr: float = 1.5e-4,
        min_lr: float = 0.0,
        warmup: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.95),
        optimizer: OptimizerFactory | None = None,
        schedule: ScheduleFactory | None = None,
        weight_decay: float = 0.05,
        decay_tokens: bool = False,
        batch_size: int = 256,
        seed: int = 0,
        evaluation_seed: int = 0,
        control: Control | None = None,
        compile: bool | CompileMode = False,
    ) -> None:
        super().__init__()
        check_schedule(base_lr, warmup, weight_decay, betas, min_lr)
        require("batch_size", batch_size, 1)
        for name, value in (("seed", seed), ("evaluation_seed", evaluation_seed)):
            require(name, value, 0)
        grid = Geometry(channels, image_size, cell).grid
        self.num_cells = grid[0] * grid[1]
        masker.check(self.num_cells)  # refused now, not at the first step
        self.geometry = Geometry(channels, image_size, cell, padding_mode, batch_size, masker.count(self.num_cells))
        self.masker, self.corruption, self.objective = masker, corruption, objective
        self.squared = Objective(objective.patch, objective.normalise, "mse", objective.eps)
        self.objective.masked_patches(torch.zeros(1, *self.geometry.grid, dtype=torch.bool), torch.zeros(1, 1, *image_size))
        self.encoder = encoder(self.geometry, size)
        _require_reader(self.encoder)
        self.decoder = decoder(self.geometry, size, self.encoder)
        initialise(self.encoder, seed)
        initialise(self.decoder, seed)
        set_control(self.encoder, control)
        freeze_dropped(self.encoder)
        self.initial_weights = deepcopy(self.encoder.state_dict())  # of no checkpoint: the configuration gives them again
        if compile:
            # in one piece: of two, the second would write over what the first gave, where CUDA graphs share their memory
            self.compile(mode=None if compile is True else compile)
        self.size, self.seed, self.evaluation_seed = size, seed, evaluation_seed
        self.base_lr, self.min_lr, self.warmup, self.betas = base_lr, min_lr, warmup, betas
        self.weight_decay, self.decay_tokens, self.batch_size = weight_decay, decay_tokens, batch_size
        self.optimizer_factory, self.schedule_factory = optimizer, schedule
        # a NaN is to be seen in the mean, and nobody is to wait for the device to look for one
        self.val_metrics = MetricCollection({"val/masked_mse": MeanMetric(nan_strategy="disable")})
        self.test_metrics = ReconstructionMetrics(self.squared, channels, self.geometry.size)
        self.example_input_array = (self._example(),)

    def forward(self, view: View) -> Tensor:
        """Predict an image in target space from a view: `b c h w`."""
        return self.decoder(self.encoder(in_precision(view, self.dtype)), view.mask)

    def look(self, batch: Batch, stage: Stage, draw: int = 0) -> tuple[View, Tensor]:
        """The view of a batch, and the cells to predict: a view and a mask, bool `b gh gw`.

        Args:
            batch: the images.
            stage: in training masks change from epoch to epoch; every stage has masks of its own.
            draw: which of several masks of the same images.
        """
        if stage == "train":
            address: tuple[int | str, ...] = (self.seed, "train", self.current_epoch)
            place = draw_number(self.seed, "step", self.global_step)
        else:
            address, place = (self.evaluation_seed, stage), 0.5
        keys = make_keys(*address, *([draw] if draw else []), batch.index)
        count = self.masker.count(self.num_cells, place)
        mask = self.masker(make_keys(keys, "mask"), self.geometry.grid, count)
        view = self.corruption(batch.images, mask, count, make_keys(keys, "corruption"))
        return view._replace(frame=batch.frame, external=batch.external), mask

    def untrained_encoder(self) -> Encoder:
        """Copy the encoder with the weights that it was built with: those of step 0, whatever was trained or loaded since."""
        encoder = deepcopy(self.encoder)
        encoder.load_state_dict(self.initial_weights)
        return encoder

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        view, mask = self.look(batch, "train")
        return self.log_loss(self.objective(self(view), batch.images, mask), batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        view, mask = self.look(batch, "val")
        self.val_metrics.update(self.squared.per_image(self(view), batch.images, mask))

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Measure a batch; returns `number`, `label` and `masked_mse` of each image."""
        view, mask = self.look(batch, "test")
        under_hide = self._predict_hidden(batch, view, mask)
        measured = self.test_metrics.measure(self(view), batch.images, mask, self._normalisation, under_hide)
        self.test_metrics.update(measured)
        return {"number": batch.index, "label": batch.labels, "masked_mse": measured["masked_mse"].totals}

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Reconstruction:
        return self.reconstruct(batch, self._normalisation)

    def reconstruct(self, batch: Batch, moments: Moments) -> Reconstruction:
        """Pictures of what is made of a batch, masked as in testing.

        Args:
            batch: the images.
            moments: mean and deviation that they were normalised with.
        """
        view, mask = self.look(batch, "test")
        predicted = self.objective.to_pixels(self(view), batch.images)
        hidden = spread_mask(mask, self.geometry.size)
        pasted = torch.where(hidden, predicted, batch.images)
        kinds = {"original": batch.images, "seen": view.pixels, "reconstruction": predicted, "pasted": pasted}
        note = "reconstructions have each patch's true mean and contrast" if self.objective.normalise else ""
        columns = {caption: to_unit(images, *moments) for caption, images in kinds.items()}
        return Reconstruction(columns, hidden[:, 0], batch.index, note)

    @property
    def absent_metrics(self) -> dict[str, str]:
        """Metrics that do not apply, with the reason."""
        return self.test_metrics.absent

    def make_optimizer(self, rate: float) -> torch.optim.Optimizer:
        groups = parameter_groups(self, self.weight_decay, self.decay_tokens)
        if self.optimizer_factory is not None:
            return build_optimizer(self.optimizer_factory, groups, rate)
        # Lightning refuses to clip what a fused step of mixed precision would still have to unscale
        fused = not (self.trainer.gradient_clip_val and "mixed" in self.trainer.precision)
        return torch.optim.AdamW(groups, lr=rate, betas=self.betas, fused=fused)

    def make_schedule(self, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler | Scheduler:
        if self.schedule_factory is not None:
            return build_schedule(self.schedule_factory, optimizer)
        return super().make_schedule(optimizer, steps)

    def _example(self) -> View:
        """A view of one image, masked as in training: what FLOPs are counted on."""
        count = self.masker.count(self.num_cells)
        mask = self.masker(torch.zeros(1, dtype=torch.int64), self.geometry.grid, count)
        return self.geometry.blank()._replace(mask=mask, num_masked=count)

    @property
    def _normalisation(self) -> Moments:
        return self.trainer.datamodule.moments  # type: ignore[attr-defined]

    def _predict_hidden(self, batch: Batch, view: View, mask: Tensor) -> Tensor | None:
        """A prediction under hide, by the corruption's fill, so that all corruptions have a measure in common; None where it is
        the test itself."""
        if self.corruption.hides_chosen:
            return None
        keys = make_keys(make_keys(self.evaluation_seed, "test", batch.index), "corruption")
        hidden = Hide(getattr(self.corruption, "fill", None))(batch.images, mask, int(mask[0].sum()), keys)
        # a copy: compiled with CUDA graphs, the next forward writes over it
        return self(hidden._replace(frame=view.frame, external=view.external)).clone()


def _require_reader(encoder: Encoder) -> None:
    """Refuse indicators that no semantic convolution of an encoder reads.

    Raises:
        ValueError: all of them are plain.
    """
    convolutions = [module for module in encoder.modules() if isinstance(module, SemanticConv2d)]
    if convolutions and all(isinstance(convolution.mechanism, Plain) for convolution in convolutions):
        unread = [type(part).__name__ for indicators in find_indicators(encoder) for part in indicators]
        if unread:
            raise ValueError(
                f"no convolution reads the indicators {', '.join(unread)}, as all are plain: name a variant with a mechanism, "
                "such as cnn_channels, before indicators/..., or leave the indicators out"
            )
