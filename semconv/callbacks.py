"""Lightning callbacks for any LightningModule: record, cost, dynamics and pictures of a run, into its folder.

They can be imported without Lightning, W&B and semconv's own data and tasks. A plain loop uses what they are made of: `RunFolder`
(semconv.tracking.folder), `Throughput` and `count_flops` (semconv.cost), `contact_sheet` (semconv.pictures).
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from semconv.convolution import Mechanism
from semconv.cost import Throughput, count_flops, count_training_flops, peak_memory
from semconv.encoders.encoder import count_parameters
from semconv.indicators import Indicators
from semconv.pictures import Reconstruction, contact_sheet, save_picture
from semconv.tracking.facts import measured_facts
from semconv.tracking.folder import RunFolder, Status

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError:
        Callback = object


T = TypeVar("T")


class Record(Callback):
    """Makes a run's folder once its data have been found, and keeps its summary: status, clocks, the last metrics.

    Args:
        folder: the run's.
        config: what `config.yaml` is to hold.
        summary: what `summary.json` is to begin with.
        resume: whether the folder is there, and the run goes on in it.
    """

    def __init__(
        self, folder: RunFolder, config: Mapping[str, Any], summary: Mapping[str, Any] | None = None, resume: bool = False
    ) -> None:
        self.folder, self.config, self.summary, self.resume = folder, config, summary or {}, resume
        self.samples_seen, self._begun = 0, False

    def setup(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        self.folder.path = trainer.strategy.broadcast(self.folder.path)  # each process has thought of a name of its own
        if not trainer.is_global_zero:
            return
        if not self._begun and not self.resume:
            self.folder.create(self.config, **_machine(trainer))
            self.folder.summarise({**self.summary, "tells": sorted(getattr(getattr(pl_module, "encoder", None), "tells", ()))})
            self._begun = True
        self._set("running")

    def state_dict(self) -> dict[str, Any]:
        return {"samples_seen": self.samples_seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.samples_seen = state_dict["samples_seen"]

    def on_train_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        self._begin(trainer)

    def on_test_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        self._begin(trainer)

    def on_predict_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        self._begin(trainer)

    def on_validation_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        if trainer.state.fn == "validate":
            self._begin(trainer)

    def on_train_batch_end(self, trainer: "Trainer", module: "LightningModule", outputs: Any, batch: Any, batch_idx: int) -> None:
        self.samples_seen += count_images(batch) * trainer.world_size
        self._tell(trainer)

    def on_train_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        self._summarise(
            trainer,
            {
                "trainer/global_step": trainer.global_step,
                "trainer/epoch": trainer.current_epoch,
                "samples_seen": self.samples_seen,
            },
        )

    def on_validation_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        if trainer.state.fn == "validate":
            self._summarise(trainer, {})

    def on_test_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        # a key that does not apply is null, with the reason beside it
        absent: Mapping[str, str] = getattr(module, "absent_metrics", {})
        reasons = {f"{key}/reason": reason for key, reason in absent.items()}
        clock = {"trainer/global_step": trainer.global_step, **self.folder.summary}["trainer/global_step"]
        self._summarise(trainer, {"trainer/global_step": clock, **dict.fromkeys(absent), **reasons})

    def teardown(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        skipped = _gather_skipped(trainer)
        if skipped and trainer.is_global_zero:
            number = sum(len(names) for names in skipped.values())
            self.folder.summarise({"data/num_skipped_images": number, "data/skipped_images": skipped})
        if trainer.is_global_zero and self._begun:
            self._set("finished")

    def on_exception(self, trainer: "Trainer", module: "LightningModule", exception: BaseException) -> None:
        if trainer.is_global_zero and self._begun:
            clocks = {"trainer/global_step": trainer.global_step, "samples_seen": self.samples_seen}
            self.folder.summarise(clocks if trainer.state.fn == "fit" else {})
            self._set("failed" if isinstance(exception, Exception) else "terminated")

    def _summarise(self, trainer: "Trainer", values: Mapping[str, Any]) -> None:
        if trainer.is_global_zero:
            metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}
            self.folder.summarise({**metrics, **values})

    def _set(self, status: Status) -> None:
        self.folder.summarise({"status": status})

    def _begin(self, trainer: "Trainer") -> None:
        """Something is about to be computed, and what it costs has been measured."""
        if not trainer.is_global_zero:
            return
        if not self._begun:
            self.folder.go_on(trainer.global_step, self.config, **_machine(trainer))
            self._begun = True
        self.folder.summarise({"facts": {**self.folder.summary.get("facts", {}), **measured_facts(self.folder)}})
        self._tell(trainer)
        for logger in trainer.loggers:
            if hasattr(logger, "begin"):
                logger.begin()

    def _tell(self, trainer: "Trainer") -> None:
        for logger in trainer.loggers:
            if hasattr(logger, "samples_seen"):
                logger.samples_seen = self.samples_seen


class Cost(Callback):
    """Parameters, FLOPs, images per second and peak memory, into the run's summary.

    FLOPs are those of one forward pass of the module's `example_input_array`, as Lightning calls it; null where there is none.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.throughput = folder, Throughput()
        self.size: dict[str, Any] = {}

    def setup(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        if not self.size:  # before the module is shared out over devices
            encoder, decoder = getattr(pl_module, "encoder", None), getattr(pl_module, "decoder", None)
            example = pl_module.example_input_array
            inputs = example if isinstance(example, tuple) else (example,)
            self.size = {
                "cost/parameters": count_parameters(pl_module),
                "cost/encoder_parameters": count_parameters(encoder) if encoder is not None else None,
                "cost/decoder_parameters": count_parameters(decoder) if decoder is not None else None,
                "cost/indicator_parameters": _count_told(pl_module),
                "cost/flops": count_flops(pl_module, *inputs) if example is not None else None,
                "cost/train_flops": count_training_flops(pl_module, *inputs) if example is not None else None,
            }

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
        self.throughput.pause(module.device)  # what follows is writing checkpoints

    def on_train_end(self, trainer: "Trainer", module: "LightningModule") -> None:
        values = {"cost/train_images_per_second": self.throughput.rate, "cost/peak_memory_bytes": peak_memory(module.device)}
        self._summarise(trainer, values)

    def _summarise(self, trainer: "Trainer", values: Mapping[str, Any]) -> None:
        if trainer.is_global_zero:
            self.folder.summarise(values)


class Dynamics(Callback):
    """Logs gradient norm (before clipping), learning rate, images per second and mechanisms' own measures with each row of training
    metrics."""

    def __init__(self) -> None:
        self._images, self._since = 0, 0.0

    def on_train_start(self, trainer: Any, module: "LightningModule") -> None:
        self._images, self._since = 0, time.perf_counter()

    def on_before_optimizer_step(self, trainer: Any, module: "LightningModule", optimizer: torch.optim.Optimizer) -> None:
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:  # of the others, nothing is logged
            gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
            module.log("train/gradient_norm", torch.nn.utils.get_total_norm(gradients))
            module.log("train/learning_rate", optimizer.param_groups[0]["lr"])
            for key, value in measured(module).items():
                module.log(key, value)

    def on_train_batch_end(self, trainer: Any, module: "LightningModule", outputs: Any, batch: Any, batch_idx: int) -> None:
        self._images += count_images(batch) * trainer.world_size
        if trainer.global_step % trainer.log_every_n_steps == 0:
            now = time.perf_counter()
            module.log("train/images_per_second", self._images / (now - self._since))
            self._images, self._since = 0, now


class Panels(Callback):
    """Pictures original | seen | reconstruction | pasted, of the same images for every variant, into `media/` and to W&B.

    For any module whose `predict_step` returns a `semconv.pictures.Reconstruction`. The images are spread over the whole set where
    the data module has `sample(part, count)`, and are else the first of the first batch.

    Args:
        folder: the run's.
        num_images: how many images are shown.
    """

    def __init__(self, folder: RunFolder, num_images: int = 8) -> None:
        self.folder, self.num_images = folder, num_images

    def on_test_batch_start(self, trainer: "Trainer", module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if batch_idx == 0 and trainer.is_global_zero and _reconstructs(module):
            self._show(trainer, self._reconstruct(trainer, module, "test", batch), "test")

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
        save_picture(contact_sheet(made.columns, made.note, numbers=made.numbers.tolist()), self.folder.media / f"{stage}.png")
        captions = [f"{stage} image {number}" for number in made.numbers.tolist()]
        for logger in trainer.loggers:
            if hasattr(logger, "log_panels"):
                logger.log_panels(f"panels/{stage}", made.columns, made.mask, captions, trainer.global_step)


class ErrorTable(Callback):
    """Logs a table of what a test step says of each image, the largest error first, as `errors/test`.

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
        found = [batch for process in _gather(trainer, self._found) for batch in process]
        if not found:
            return
        columns = {name: [value for batch in found for value in batch[name]] for name in found[0]}
        order = sorted(range(len(columns["masked_mse"])), key=lambda row: -columns["masked_mse"][row])
        for logger in trainer.loggers:
            if hasattr(logger, "log_table"):
                table = {name: [values[row] for row in order] for name, values in columns.items()}
                logger.log_table("errors/test", table, trainer.global_step)


def _reconstructs(module: Any) -> bool:
    """Whether a module says how it predicts."""
    from lightning.pytorch import LightningModule

    return type(module).predict_step is not LightningModule.predict_step


def _count_told(module: "LightningModule") -> int:
    """Parameters of mechanisms and of indicators."""
    parts = [part for part in module.modules() if isinstance(part, Mechanism | Indicators)]
    return sum(parameter.numel() for parameter in {parameter for part in parts for parameter in part.parameters()})


def measured(module: torch.nn.Module) -> dict[str, Any]:
    """What mechanisms measure of themselves, as `mechanism/<name>/<layer>`; a layer is called by its path in the encoder."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        if isinstance(part, Mechanism):
            layer = path.removeprefix("encoder.").removesuffix(".mechanism").removesuffix(".convolution")
            found |= {f"mechanism/{name}/{layer}": value for name, value in part.measures().items()}
    return found


def count_images(batch: Any) -> int:
    """How many images a batch of any form has: the length of its first tensor."""
    return len(next(leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)))


def _gather_skipped(trainer: "Trainer") -> dict[str, list[str]]:
    """The images that any process has left out, by split; of a data module that says so in `skipped`."""
    own: dict[str, list[str]] = getattr(getattr(trainer, "datamodule", None), "skipped", {})
    everyone = _gather(trainer, own)
    splits = sorted({split for process in everyone for split in process})
    return {split: sorted({name for process in everyone for name in process.get(split, [])}) for split in splits}


def _gather(trainer: "Trainer", own: T) -> list[T]:
    """What every process has, on all of them."""
    everyone = [own] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(everyone, own)
    return everyone


def _machine(trainer: "Trainer") -> dict[str, Any]:
    """What the run is computed on."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "device": name,
        "num_devices": trainer.world_size,
        "precision": trainer.precision,
        "num_threads": torch.get_num_threads(),
    }
