"""Lightning's way into a run's folder."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from semconv.tracking.folder import RunFolder


class RunRecord(Logger):
    """Writes each logged row to the run's folder, with its clocks, and hands the same row to others.

    Args:
        folder: the run's.
        others: loggers that get the row as it was written, such as W&B's.
    """

    def __init__(self, folder: RunFolder, others: Sequence[Logger] = ()) -> None:
        super().__init__()
        self.folder, self.others = folder, others
        self.samples_seen = 0  # counted by semconv.callbacks.Record

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
        for logger in self.others:
            logger.log_metrics(row, step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: `config.yaml` holds all of them."""
