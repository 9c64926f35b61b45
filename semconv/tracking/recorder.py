"""What callbacks ask of a logger beyond Lightning's own interface."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor


class Recorder:
    """A logger that also takes pictures and tables, and that knows how many images training has seen.

    A logger of Lightning's inherits from it too; a method that it does not override does nothing.

    Attributes:
        samples_seen: images that training has seen so far, counted by `semconv.callbacks.Record`.
    """

    samples_seen: int = 0

    def begin(self) -> None:
        """Start: the run is about to compute, and its folder exists."""

    def log_panels(self, key: str, columns: Mapping[str, Tensor], mask: Tensor, captions: Sequence[str], step: int) -> None:
        """Show each image's pictures side by side.

        Args:
            key: name of the panel.
            columns: `b c h w` in [0, 1] by kind.
            mask: bool `b h w`, True = masked.
            captions: one per image.
            step: of training.
        """

    def log_table(self, key: str, columns: Mapping[str, Sequence[Any]], step: int) -> None:
        """Show columns of equal length as a table.

        Args:
            key: name of the table.
            columns: values by name.
            step: of training.
        """


def recorders(loggers: Iterable[object]) -> list[Recorder]:
    """Those of some loggers that are recorders."""
    return [logger for logger in loggers if isinstance(logger, Recorder)]
