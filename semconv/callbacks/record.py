"""The record of a run: its folder, status, clocks and last metrics."""

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import torch

from semconv.callbacks.callback import Callback
from semconv.callbacks.divergence import Diverged
from semconv.controls import find_indicators
from semconv.cost import count_images
from semconv.processes import all_gather
from semconv.tracking.continuation import LENGTHENED, Origin, require_unfinished
from semconv.tracking.facts import dataset, measured_facts
from semconv.tracking.folder import RunFolder, Status
from semconv.tracking.identity import IDENTITY
from semconv.tracking.recorder import recorders
from semconv.tracking.secrets import redact

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class Record(Callback):
    """Creates a run's folder once its data have been found, and keeps its summary: status, clocks, the last metrics.

    Args:
        folder: the run's folder.
        config: content of `config.yaml`.
        summary: initial content of `summary.json`.
        resume: the folder exists, and the run resumes in it.
        origin: the checkpoint that the run starts from.

    Raises:
        ValueError: when the run starts: its folder exists already, or another process uses it.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: Mapping[str, Any],
        summary: Mapping[str, Any] | None = None,
        resume: bool = False,
        origin: Origin | None = None,
    ) -> None:
        self.folder, self.config, self.summary, self.resume = folder, config, summary or {}, resume
        self.origin = origin or Origin()
        self.samples_seen, self._begun, self._lengthened_at = 0, False, ""
        self._order: list[dict[str, Any]] = []  # of the batches of the checkpoint's epoch
        self._before: Status | None = None
        self._started = time.monotonic()

    def setup(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        self.folder.path = trainer.strategy.broadcast(self.folder.path)  # each process has chosen its own name
        if not trainer.is_global_zero:
            return
        if not self._begun and not self.resume:
            start = {"checkpoint": self.origin.checkpoint} if self.origin.checkpoint else {}
            self.folder.create(self.config, **start, **_machine(trainer))
            differs = {"weights_differ_in": list(self.origin.differs_in)} if self.origin.differs_in else {}
            chosen = _chosen(trainer)
            facts = {"facts": {**self.summary.get("facts", {}), "dataset": dataset(chosen["data/source"])}} if chosen else {}
            self.folder.summarise({**self.summary, **self._about(pl_module), **_scale(trainer), **chosen, **facts, **differs})
            self._begun = True
        self.folder.hold()
        if not self._begun:
            require_unfinished(self.folder)  # a process that held the folder until now may have finished the run
            before, now = self.folder.summary.get("data/source"), _chosen(trainer).get("data/source")
            if before and before != now:
                raise ValueError(
                    f"data.source: the run has read {before}, and now {now} is the first that is there: restore the other"
                )
            self._before = self.folder.summary.get("status")
        self._set("running")

    def _about(self, module: "LightningModule") -> dict[str, Any]:
        """The start of the run, the information that the network is conditioned on, and the controls that a verdict on it needs."""
        declared = {name for indicators in find_indicators(module) for part in indicators for name in part.controls}
        return {
            "started": self.folder.environment["sessions"][0]["started"],
            "conveys": sorted(getattr(getattr(module, "encoder", None), "conveys", ())),
            "controls": sorted(declared),
        }

    def state_dict(self) -> dict[str, Any]:
        kept = {key: self.summary.get(key) for key in IDENTITY}
        return {"samples_seen": self.samples_seen, "identity": json.dumps(kept), LENGTHENED: self._lengthened_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.samples_seen = state_dict["samples_seen"]

    def on_load_checkpoint(self, trainer: "Trainer", module: "LightningModule", checkpoint: dict[str, Any]) -> None:
        self._order = checkpoint.get("loops", {}).get("fit_loop", {}).get("state_dict", {}).get("combined_loader") or []

    def on_train_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        # Lightning compares it as it makes the loader, which the schedule has asked for before the checkpoint was read
        loader: Any = trainer.train_dataloader
        is_inside = 0 < trainer.fit_loop.batch_idx + 1 < trainer.num_training_batches
        if self._order and is_inside and hasattr(loader, "load_state_dict"):
            loader.load_state_dict(self._order[0])
        self._begin(trainer)
        if trainer.is_global_zero:
            self.folder.summarise({"trainer/num_training_batches": trainer.num_training_batches})

    def on_test_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        self._begin(trainer)

    def on_predict_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        self._begin(trainer)

    def on_validation_start(self, trainer: "Trainer", module: "LightningModule") -> None:
        if trainer.state.fn == "validate":
            self._begin(trainer)

    def on_train_batch_start(self, trainer: "Trainer", module: "LightningModule", batch: Any, batch_idx: int) -> None:
        # resumed from the last step of an epoch but the first, Lightning numbers the steps of loggers one too high
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

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
        # a metric that does not apply is null, with the reason beside it
        absent: Mapping[str, str] = getattr(module, "absent_metrics", {})
        reasons = {f"{key}/reason": reason for key, reason in absent.items()}
        clock = {"trainer/global_step": trainer.global_step or self.origin.step, **self.folder.summary}["trainer/global_step"]
        self._summarise(trainer, {"trainer/global_step": clock, **dict.fromkeys(absent), **reasons})

    def teardown(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        skipped = _gather_skipped(trainer)
        if skipped and trainer.is_global_zero:
            number = sum(len(names) for names in skipped.values())
            self.folder.summarise({"data/num_skipped_images": number, "data/skipped_images": skipped})
        if self.resume and not self._begun and stage == "fit":
            self._begin(trainer)  # nothing was left to train
        if trainer.is_global_zero and self._begun:
            self.folder.summarise({"trainer/seconds": round(time.monotonic() - self._started, 3)})
            if getattr(trainer, "ends", True):  # killed between two stages, the run is resumed
                self._set("finished")
                self.folder.release()

    def on_exception(self, trainer: "Trainer", module: "LightningModule", exception: BaseException) -> None:
        self.folder.release()
        if trainer.is_global_zero and self._before and not self._begun:
            self._set(self._before)  # nothing has been computed
        if trainer.is_global_zero and self._begun:
            # a full disk has no room for the summary either, and has been named
            with suppress(OSError) if isinstance(exception, OSError) else nullcontext():
                self._conclude(trainer, exception)

    def _conclude(self, trainer: "Trainer", exception: BaseException) -> None:
        clocks = {"trainer/global_step": trainer.global_step, "samples_seen": self.samples_seen}
        self.folder.summarise(clocks if trainer.state.fn == "fit" else {})
        if isinstance(exception, Diverged):
            self.folder.summarise({"divergence": str(exception)})
            self._set("diverged")
        else:
            self._set("failed" if isinstance(exception, Exception) else "terminated")

    def _continued(self, step: int) -> dict[str, Any]:
        """The identity of a run that continues, which names the steps at which its budget was lengthened."""
        identity = json.loads(json.dumps({key: self.summary[key] for key in IDENTITY if key in self.summary}))
        self._lengthened_at = ", ".join(filter(None, (self.origin.lengthened_at, str(step) if self.origin.lengthened else "")))
        if self._lengthened_at and "protocol" in identity:
            identity["protocol"]["trainer"][LENGTHENED] = self._lengthened_at
        return identity

    def _summarise(self, trainer: "Trainer", values: Mapping[str, Any]) -> None:
        if trainer.is_global_zero:
            metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}
            self.folder.summarise({**metrics, **values})

    def _set(self, status: Status) -> None:
        self.folder.summarise({"status": status})

    def _begin(self, trainer: "Trainer") -> None:
        """Start or resume the records: the cost has been measured, and computation is about to start."""
        if not trainer.is_global_zero:
            return
        if not self._begun:
            self.folder.resume(trainer.global_step, self.config, **_machine(trainer))
            self._begun = True
        if self.origin.checkpoint and trainer.state.fn == "fit":
            self.folder.summarise(self._continued(trainer.global_step))
        self.folder.summarise({"facts": {**self.folder.summary.get("facts", {}), **measured_facts(self.folder)}})
        self._tell(trainer)
        for recorder in recorders(trainer.loggers):
            recorder.begin()

    def _tell(self, trainer: "Trainer") -> None:
        for recorder in recorders(trainer.loggers):
            recorder.samples_seen = self.samples_seen


def _scale(trainer: "Trainer") -> dict[str, list[float]]:
    """Range, mean and deviation of the data, so that weights can be used where the data are not."""
    data: Any = getattr(trainer, "datamodule", None)
    mean, std = getattr(data, "moments", None) or (None, None)
    found = {"data/mean": mean, "data/std": std, "data/range": getattr(data, "given_range", None)}
    return {key: list(value) for key, value in found.items() if value}


def _chosen(trainer: "Trainer") -> dict[str, str]:
    """The first of several sources that is there, which is the one that is read; empty where there is one alone."""
    data: Any = getattr(trainer, "datamodule", None)
    chosen = getattr(data, "chosen", None)
    return {"data/source": redact(chosen.name)} if chosen and len(data.candidates) > 1 else {}


def _gather_skipped(trainer: "Trainer") -> dict[str, list[str]]:
    """Gather the names of the images that any process has skipped, by split, from the data module's `skipped`."""
    own: dict[str, list[str]] = getattr(getattr(trainer, "datamodule", None), "skipped", {})
    everyone = all_gather(own, trainer.world_size)
    splits = sorted({split for process in everyone for split in process})
    return {split: sorted({name for process in everyone for name in process.get(split, [])}) for split in splits}


def _machine(trainer: "Trainer") -> dict[str, Any]:
    """The device, and how it is used."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "device": name,
        "num_devices": trainer.world_size,
        "precision": trainer.precision,
        "num_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # the kernels that torch has chosen: each rounds differently
    }
