"""The interface of controls: signals that replace the true ones."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from semconv.corruption import View
from semconv.indicators.indicator import Grid, Indicator

if TYPE_CHECKING:
    from semconv.indicators.signals import Indicators


class Control(ABC):
    """A control: signals in place of the true ones, as a function of the view only."""

    @abstractmethod
    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        """Maps of the shape that the indicator would give; see `Indicator`."""

    def num_masked(self, view: View) -> int:
        """The number of cells of each image that the control reports as masked: an int, so that reading it waits for no device."""
        return view.num_masked

    def drops(self, indicator: Indicator) -> bool:
        """True if nothing of what the indicator says is left, so that no weight of it can be trained."""
        return False

    def problem(self, indicators: "Indicators") -> str | None:
        """The reason why this control does not apply to some indicators; None if it does."""
        return None
