"""The description of a run, printed before it trains."""

import sys
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.table import Table

from semconv.callbacks import Cost
from semconv.tasks import MaskedReconstruction
from semconv.tracking.folder import RunFolder
from semconv.tracking.secrets import redact


class Announcement(Callback):
    """Describes a run at the start of fitting: variant, parameters, data, masks, budget, folder.

    Args:
        folder: the run's folder.
        facts: the run's facts, see semconv.tracking.facts.
        cost: the callback that measures the network.
    """

    def __init__(self, folder: RunFolder, facts: Mapping[str, Any], cost: Cost) -> None:
        self.folder, self.facts, self.cost = folder, facts, cost

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        if not trainer.is_global_zero or not isinstance(module, MaskedReconstruction):
            return
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        for name, text in self._lines(trainer, module):
            table.add_row(name, text)
        Console(file=sys.stderr, highlight=False, width=None if sys.stderr.isatty() else 160).print(table)

    def _lines(self, trainer: Trainer, module: MaskedReconstruction) -> list[tuple[str, str]]:
        facts, size = self.facts, self.cost.size
        flops = f"{size['cost/flops'] / 1e9:.4g} GFLOPs per image"
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        steps, images = int(trainer.estimated_stepping_batches), module.batch_size * trainer.accumulate_grad_batches
        up_to = "up to " if trainer.num_training_batches % trainer.accumulate_grad_batches else ""  # fewer at the end of an epoch
        rate = f"{module.base_lr * images / 256:.3g} (base_lr {module.base_lr:g} x {images:,} / 256)"
        optimizer = type(trainer.optimizers[0]).__name__
        done = f", {trainer.global_step:,} done" if trainer.global_step else ""
        return [
            ("variant", f"{facts['variant']}, size {module.size}, seed {module.seed}"),
            ("conditioned on", f"{facts['indicators']} by {facts['mechanism']}, depth {facts['depth']}"),
            ("network", f"{size['cost/encoder_parameters']:,} encoder parameters of {size['cost/parameters']:,}, {flops}"),
            ("data", redact(data.describe() if hasattr(data, "describe") else str(facts["dataset"]))),
            ("masks", f"{_mask_count(module)}, {facts['corruption']}" + (f" with {facts['fill']}" if facts["fill"] else "")),
            ("budget", f"{steps:,} steps of {up_to}{images:,} images{done} by {optimizer}, learning rate up to {rate}"),
            ("computed on", f"{trainer.world_size} x {trainer.strategy.root_device}, precision {trainer.precision}"),
            ("run folder", str(self.folder.path)),
        ]


def _mask_count(module: MaskedReconstruction) -> str:
    """The masker, and the number of cells that it hides."""
    counts = dict.fromkeys(round(ratio * module.num_cells) for ratio in (module.masker.low, module.masker.high))
    number = " to ".join(str(count) for count in counts)
    return (
        f"{type(module.masker).__name__}: {number} of {module.num_cells} cells of {module.geometry.cell} x {module.geometry.cell}"
    )
