"""What a run reports besides its loss: its cost, its summary, pictures, and how far it is."""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from semconv.corruption import View
from semconv.data import Batch
from semconv.data.batch import to_unit
from semconv.encoders.encoder import count_parameters
from semconv.pictures import contact_sheet, save_picture
from semconv.tasks import MaskedReconstruction, Reconstruction
from semconv.tracking import identity, update_summary


class StartRecord(Callback):
    """Makes a run's folder, with its whole configuration, once its data have been found.

    Args:
        directory: the run's folder.
        config: what `config.yaml` is to hold.
    """

    def __init__(self, directory: Path, config: dict[str, Any]) -> None:
        self.directory, self.config, self.started = directory, config, False

    @rank_zero_only
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.started:  # testing after fitting, in the same run
            return
        if self.directory.exists():
            raise ValueError(f"{self.directory} holds a run already: give another WANDB_RUN_ID, or none")
        self.directory.mkdir(parents=True)
        (self.directory / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        update_summary(self.directory, identity(self.config))
        print(f"run folder: {self.directory}", file=sys.stderr, flush=True)
        self.started = True


class Throughput:
    """Images per second of training, without the first batches and without validation; devices are waited for only when read."""

    WARMUP = 5

    def __init__(self) -> None:
        self.images, self.seconds, self._batches = 0, 0.0, 0
        self._since: float | None = None

    def count(self, images: int, device: torch.device) -> None:
        """A training batch is done."""
        self._batches += 1
        if self._batches == self.WARMUP:
            self._since = _now(device)
        elif self._batches > self.WARMUP:
            self.images += images

    def pause(self, device: torch.device) -> None:
        if self._since is not None:
            self.seconds += _now(device) - self._since
            self._since = None

    def go_on(self, device: torch.device) -> None:
        if self._batches >= self.WARMUP:
            self._since = _now(device)

    @property
    def rate(self) -> float | None:
        return self.images / self.seconds if self.seconds else None


class Cost(Callback):
    """Parameters, FLOPs, images per second and peak memory, into the run's summary."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.throughput = directory, Throughput()

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._write_size(module)

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._write_size(module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.throughput.count(len(batch.images) * trainer.world_size, module.device)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.throughput.pause(module.device)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.throughput.go_on(module.device)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.throughput.go_on(module.device)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.throughput.pause(module.device)  # what follows is writing checkpoints

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        values = {"cost/train_images_per_second": self.throughput.rate, "cost/peak_memory_bytes": peak_memory(module.device)}
        update_summary(self.directory, values)

    @rank_zero_only
    def _write_size(self, module: LightningModule) -> None:
        assert isinstance(module, MaskedReconstruction)
        parameters = {
            "cost/parameters": count_parameters(module),
            "cost/encoder_parameters": count_parameters(module.encoder),
        }
        update_summary(self.directory, {**parameters, "cost/flops": count_flops(module)})


class Summary(Callback):
    """Writes the last validation's and the test's metrics into the run's summary."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._write(trainer, {"trainer/global_step": trainer.global_step, "trainer/epoch": trainer.current_epoch})

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write(trainer, {})

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, MaskedReconstruction)
        reason = "targets are normalised per patch: a prediction has no colour or contrast of its own"
        absent = {key: None for key in ("test/pixel_mse", "test/psnr") if module.objective.normalise}
        reasons = {f"{key}/reason": reason for key in absent}
        self._write(trainer, {**absent, **reasons})

    @rank_zero_only
    def _write(self, trainer: Trainer, values: dict[str, Any]) -> None:
        metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}
        update_summary(self.directory, {**metrics, **values})


class Panels(Callback):
    """Pictures original | seen | reconstruction | pasted, of test images, the same for every variant.

    Args:
        directory: the run's folder; pictures go to `media` in it.
        num_images: how many test images are shown.
    """

    def __init__(self, directory: Path, num_images: int = 8) -> None:
        self.directory, self.num_images = directory, num_images

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.directory = trainer.strategy.broadcast(self.directory)  # each process has thought of a folder of its own

    @rank_zero_only
    def on_test_start(self, trainer: Trainer, module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = Batch(*(values.to(module.device) for values in data.sample("test", self.num_images)))
        self._save(trainer, module, module.predict_step(data.on_after_batch_transfer(batch)), "test.png")

    def on_predict_batch_end(
        self, trainer: Trainer, module: Any, outputs: Reconstruction, batch: Batch, batch_idx: int, *_: int
    ) -> None:
        for i, index in enumerate(outputs.numbers.tolist()):
            one = Reconstruction(*(values[i : i + 1] for values in outputs))
            self._save(trainer, module, one, f"predict/{index:06d}.png")

    def _save(self, trainer: Trainer, module: Any, made: Reconstruction, name: str) -> None:
        moments = trainer.datamodule.moments  # type: ignore[attr-defined]
        note = "reconstructions have each patch's true mean and contrast" if module.objective.normalise else ""
        columns = {
            "original": to_unit(made.images, *moments),
            "seen": to_unit(made.seen, *moments),
            "reconstruction": to_unit(made.predicted, *moments),
            "pasted": to_unit(made.pasted, *moments),
        }
        save_picture(contact_sheet(columns, note), self.directory / "media" / name)


class RunProgress(ProgressBar):
    """One line for the whole run: steps, loss, images per second, time left. Waits for the device four times a second only."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Progress | None = None
        self._task, self._images = TaskID(0), 0
        self._read_at = self._start = 0.0
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if not self._enabled:
            return
        self._bar = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(file=sys.stderr),
            refresh_per_second=4,
        )
        self._start, self._images = time.monotonic(), 0
        total = int(trainer.estimated_stepping_batches)
        self._task = self._bar.add_task("train", total=total, completed=trainer.global_step, loss="-", rate=None)
        self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self._bar is None:
            return
        self._images += len(batch.images) * trainer.world_size
        now = time.monotonic()
        if now - self._read_at > 0.25 or trainer.global_step >= self._bar.tasks[0].total:  # type: ignore[operator]
            rate, self._read_at = self._images / (now - self._start), now
            loss = outputs["loss"].item() * trainer.accumulate_grad_batches  # by which Lightning has divided it
            self._bar.update(self._task, completed=trainer.global_step, loss=f"{loss:.4f}", rate=rate)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.fields["rate"]
        return Text("- images/s" if rate is None else f"{rate:,.0f} images/s")


def count_flops(module: MaskedReconstruction) -> int:
    """Floating-point operations of one image's forward pass, masks at the training ratio; a multiply-add counts as two."""
    geometry, device = module.geometry, module.device
    pixels = torch.zeros(1, geometry.channels, *geometry.size, device=device)
    count = module.masker.count(module.num_cells)
    mask = module.masker(torch.zeros(1, dtype=torch.int64, device=device), geometry.grid, count)
    training = module.training
    module.eval()
    # attention is counted in the plain kernel, whose operations the counter knows on every device
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(View(pixels, mask, count))
    module.train(training)
    return counter.get_total_flops()


def peak_memory(device: torch.device) -> int:
    """Bytes held at most: by the allocator of a CUDA device, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
