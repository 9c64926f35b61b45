"""The abstract control: signals in place of the true ones."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from semconv.corruption import View
from semconv.indicators.indicator import Grid, Indicator

if TYPE_CHECKING:
    from semconv.indicators.signals import Indicators


class Control(ABC):
    """What is told in place of the truth: a function of the view alone."""

    @abstractmethod
    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        """Maps of the shape that the indicator would make; see `Indicator`."""

    def num_masked(self, view: View) -> int:
        """How many cells of each image are told to be masked: what drops them asks the number of no device."""
        return view.num_masked

    def problem(self, indicators: "Indicators") -> str | None:
        """Why there is no such control of these indicators; None where there is."""
        return None
