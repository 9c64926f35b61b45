"""The interface between callbacks and loggers, beyond Lightning's own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor


class Recorder:
    """A logger that also takes pictures and tables, and counts the images seen in training.

    A Lightning logger inherits from it as well; a method that is not overridden does nothing.

    Attributes:
        samples_seen: images seen in training so far, counted by `semconv.callbacks.Record`.
    """

    samples_seen: int = 0

    def begin(self) -> None:
        """Start recording: the run's folder exists, and computation is about to start."""

    def log_panels(self, key: str, columns: Mapping[str, Tensor], mask: Tensor, captions: Sequence[str], step: int) -> None:
        """Show each image's pictures side by side.

        Args:
            key: name of the panel.
            columns: `b c h w` in [0, 1] by kind.
            mask: bool `b h w`, True = masked.
            captions: one per image.
            step: training step.
        """

    def log_table(self, key: str, columns: Mapping[str, Sequence[Any]], step: int) -> None:
        """Show columns of equal length as a table.

        Args:
            key: name of the table.
            columns: values by name.
            step: training step.
        """


def recorders(loggers: Iterable[object]) -> list[Recorder]:
    """Select the recorders among some loggers."""
    return [logger for logger in loggers if isinstance(logger, Recorder)]
