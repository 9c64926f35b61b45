"""The Lightning logger of a run's folder."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from semconv.tracking.folder import RunFolder, Status
from semconv.tracking.recorder import Recorder
from semconv.tracking.wandb_record import WandbRecord


class RunRecord(Recorder, Logger):
    """Writes each logged row, with its clocks, to the run's folder, and the same row to W&B.

    Args:
        folder: the run's folder.
        wandb: the run in W&B; None: no W&B.
    """

    def __init__(self, folder: RunFolder, wandb: WandbRecord | None = None) -> None:
        super().__init__()
        self.folder, self.wandb = folder, wandb

    @property
    def name(self) -> str:
        return self.folder.path.parent.name

    @property
    def version(self) -> str:
        return self.folder.path.name

    @property
    def log_dir(self) -> str:
        return str(self.folder.path)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = self.folder.log(metrics, step, samples_seen=self.samples_seen)
        if self.wandb is not None:
            self.wandb.log(row)

    @rank_zero_only
    def log_panels(self, key: str, columns: Mapping[str, Tensor], mask: Tensor, captions: Sequence[str], step: int) -> None:
        """Send pictures to W&B."""
        if self.wandb is not None:
            self.wandb.log_panels(key, columns, mask, captions, step)

    @rank_zero_only
    def log_table(self, key: str, columns: Mapping[str, Sequence[Any]], step: int) -> None:
        """Send a table to W&B."""
        if self.wandb is not None:
            self.wandb.log_table(key, columns, step)

    @rank_zero_only
    def begin(self) -> None:
        """Start the run in W&B."""
        if self.wandb is not None:
            self.wandb.begin()

    @rank_zero_only
    def end(self, status: Status) -> None:
        """Finish the run in W&B: the summary is complete."""
        if self.wandb is not None:
            self.wandb.end(status)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `config.yaml` holds all hyperparameters."""
