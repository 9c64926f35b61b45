"""Dead twins: networks of the same shape, told as much, and nothing true.

What a variant gains over its twins is gained by what it is told; what its twins gain over plain is gained by having more weights. A
twin is trained and tested so. It stands between all indicators of a network and its mechanisms, `OverlayReplace`, `MaskToken` and
`Sparse` included, which use the mask itself: where a constant twin says that all is masked, these see nothing at all. To `Sparse`
noise hides as many cells of each image as are masked, at random.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from semconv.corruption import View
from semconv.hashing import hash_words, make_keys, uniform
from semconv.indicators import Grid, Indicator, Indicators, Mask
from semconv.indicators.frame import turn_frame, whole_frame
from semconv.masking import Masker, RandomMasker


class Twin(ABC):
    """What is told in place of the truth: a function of the view alone."""

    @abstractmethod
    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        """Maps of the shape that the indicator would make; see `Indicator`."""

    def num_masked(self, view: View) -> int:
        """How many cells of each image are told to be masked: what drops them asks the number of no device."""
        return view.num_masked

    def problem(self, indicators: Indicators) -> str | None:
        """Why there is no such twin of these indicators; None where there is."""
        return None


class Zero(Twin):
    """All signals are 0."""

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        return torch.zeros_like(indicator(view, grid))

    def num_masked(self, view: View) -> int:
        return 0


class Constant(Twin):
    """All signals are their largest value, everywhere: a bias by another name."""

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        return torch.full_like(indicator(view, grid), indicator.high)

    def num_masked(self, view: View) -> int:
        return view.mask[0].numel()


class Fixed(Twin):
    """The mask of one other image, the same for all; signals of anything else, which no mask says, are 0.

    A fixed map is a code of position: a variant that beats this twin gains from the mask itself, and not from being able to tell
    places apart.

    Args:
        masker: draws that mask; cells chosen uniformly by default.
    """

    def __init__(self, masker: Masker | None = None) -> None:
        self.masker = masker or RandomMasker()

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        if indicator.tells != "mask":
            return torch.zeros_like(indicator(view, grid))
        rows, columns = view.mask.shape[1:]
        mask = self.masker(make_keys("fixed twin", device=view.mask.device)[None], (rows, columns), view.num_masked)
        return indicator(view._replace(mask=mask.expand_as(view.mask)), grid)

    def problem(self, indicators: Indicators) -> str | None:
        if "mask" in indicators.tells:
            return None
        told = " and ".join(sorted(indicators.tells))
        return f"Fixed tells another image's mask, and this network is told of {told} alone: take Zero or Shuffled"


class Shuffled(Twin):
    """What is true of the image before in the batch; and position in a frame that is shifted at random, round the edges.

    An image that is alone in its batch is told what would be true of it turned round. The shift is the same for a batch, drawn from
    its masks.
    """

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        if indicator.per_image:
            return indicator(_another(view), grid)
        maps = indicator(view, grid)
        down, right = uniform(make_keys(_batch_key(view.mask), "shuffled twin"), 2).unbind()
        rows = (torch.arange(maps.shape[2], device=maps.device) + (down * maps.shape[2]).long()) % maps.shape[2]
        columns = (torch.arange(maps.shape[3], device=maps.device) + (right * maps.shape[3]).long()) % maps.shape[3]
        return maps[:, :, rows][:, :, :, columns]


class Noise(Twin):
    """Uniform noise of the indicator's range, new in every step: a diagnostic, as it also regularises."""

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        maps = indicator(view, grid)
        number = torch.arange(len(maps), device=maps.device)
        keys = make_keys(_batch_key(view.mask), "noise twin", type(indicator).__name__, *maps.shape[2:], number)
        draws = uniform(keys, maps[0].numel()).view_as(maps)
        return indicator.low + (indicator.high - indicator.low) * draws


class Only:
    """A twin of one indicator; the others tell the truth.

    Args:
        indicator: which.
        twin: what is told in its place.
    """

    def __init__(self, indicator: Indicator, twin: Twin) -> None:
        self.indicator, self.twin = indicator, twin

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        return self.twin(indicator, view, grid) if indicator is self.indicator else indicator(view, grid)

    def num_masked(self, view: View) -> int:
        return self.twin.num_masked(view) if isinstance(self.indicator, Mask) else view.num_masked


def told_things(network: nn.Module) -> list[Indicators]:
    """All that a network is told."""
    return [module for module in network.modules() if isinstance(module, Indicators) and len(module)]


def make_twin(network: nn.Module, twin: Twin | None) -> None:
    """Tell a network a twin's signals from now on; None: the truth.

    Raises:
        ValueError: the network is told nothing, or there is no such twin of what it is told.
    """
    told = told_things(network)
    if twin is not None and not told:
        raise ValueError(f"{type(twin).__name__} twin of a network that is told nothing: choose a variant with indicators")
    for indicators in told:
        if twin is not None and (problem := twin.problem(indicators)):
            raise ValueError(problem)
        indicators.twin = twin


def _another(view: View) -> View:
    frame, external = view.frame, view.external
    if len(view.mask) == 1:
        return view._replace(
            pixels=view.pixels.flip((2, 3)),
            mask=view.mask.flip((1, 2)),
            frame=turn_frame(whole_frame(view.mask) if frame is None else frame, down=True),
            external=external if external is None else external.flip((2, 3)),
        )
    return view._replace(
        pixels=view.pixels.roll(1, 0),
        mask=view.mask.roll(1, 0),
        frame=frame if frame is None else frame.roll(1, 0),
        external=external if external is None else external.roll(1, 0),
    )


def _batch_key(mask: Tensor) -> Tensor:
    """A hash key of a batch's masks: a scalar."""
    words = hash_words(make_keys("mask bits", device=mask.device), mask.numel())
    return make_keys(torch.where(mask.flatten(), words, 0).sum())
