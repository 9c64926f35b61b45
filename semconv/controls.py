"""Controls: networks of the same shape that are conditioned on signals without the true information (placebos).

What a variant gains over its controls, it gains by the information in its signals. What a control gains over plain, it gains by
having more weights. A control is trained and tested with its own signals. These replace all indicators of a network, and also the
mask that `OverlayReplace`, `MaskToken` and `Sparse` use directly: where `Constant` says that every cell is masked, these mechanisms
see nothing. For `Sparse`, `Noise` hides as many cells of each image as are masked, at random.
"""

import torch
from torch import Tensor, nn

from semconv.corruption import View
from semconv.hashing import hash_words, make_keys, uniform
from semconv.indicators import Control, Grid, Indicator, Indicators, Mask
from semconv.indicators.frame import turn_frame, whole_frame
from semconv.masking import Masker, RandomMasker


class Zero(Control):
    """All signals are 0."""

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        return torch.zeros_like(indicator(view, grid))

    def num_masked(self, view: View) -> int:
        return 0

    def drops(self, indicator: Indicator) -> bool:
        return True


class Constant(Control):
    """All signals are their largest value, everywhere: a bias by another name."""

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        return torch.full_like(indicator(view, grid), indicator.high)

    def num_masked(self, view: View) -> int:
        return view.mask[0].numel()

    def drops(self, indicator: Indicator) -> bool:
        return True


class Fixed(Control):
    """The mask of one other image, the same for all; signals of anything else, which no mask says, are 0.

    A fixed map is a code of position: a variant that beats this control gains from the mask itself, and not from being able to
    distinguish places.

    Args:
        masker: draws that mask; cells chosen uniformly by default.
    """

    def __init__(self, masker: Masker | None = None) -> None:
        self.masker = masker or RandomMasker()

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        if indicator.conveys != "mask":
            return torch.zeros_like(indicator(view, grid))
        rows, columns = view.mask.shape[1:]
        mask = self.masker(make_keys("fixed twin", device=view.mask.device)[None], (rows, columns), view.num_masked)
        return indicator(view._replace(mask=mask.expand_as(view.mask)), grid)

    def drops(self, indicator: Indicator) -> bool:
        return indicator.conveys != "mask"

    def problem(self, indicators: Indicators) -> str | None:
        if "mask" in indicators.conveys:
            return None
        found = " and ".join(sorted(indicators.conveys))
        return f"Fixed gives another image's mask, and this network is conditioned on {found} alone: take Zero or Shuffled"


class Shuffled(Control):
    """The signals of the image before in the batch; and position in a frame that is shifted at random, round the edges.

    An image that is alone in its batch gets the signals of itself turned round. The shift is the same for a batch, drawn from
    its masks: a share of the sides of each grid, with the padding of the layer that reads it. Where all images have one mask, as
    under `CentreMasker`, this control tells the true one; and where each batch has the masks of the last one, as then and where
    nothing is masked, the shift is always the same, and tells of places as well as none.
    """

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        maps = indicator(_another(view) if indicator.per_image else view, grid)
        if indicator.conveys != "position":
            return maps
        down, right = uniform(make_keys(_batch_key(view.mask), "shuffled twin"), 2).unbind()
        rows = (torch.arange(maps.shape[2], device=maps.device) + (down * maps.shape[2]).long()) % maps.shape[2]
        columns = (torch.arange(maps.shape[3], device=maps.device) + (right * maps.shape[3]).long()) % maps.shape[3]
        return maps[:, :, rows][:, :, :, columns]


class Noise(Control):
    """Uniform noise of the indicator's range, drawn from a batch's masks: a diagnostic, as it also regularises.

    New in every step, if its masks are.
    """

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        maps = indicator(view, grid)
        number = torch.arange(len(maps), device=maps.device)
        keys = make_keys(_batch_key(view.mask), "noise twin", type(indicator).__name__, *maps.shape[2:], number)
        draws = uniform(keys, maps[0].numel()).view_as(maps)
        return indicator.low + (indicator.high - indicator.low) * draws

    def drops(self, indicator: Indicator) -> bool:
        return True


class Only(Control):
    """A control of one indicator.

    Args:
        indicator: which.
        control: of this indicator.
        otherwise: control of all others; None: they keep their true signals.
    """

    def __init__(self, indicator: Indicator, control: Control, otherwise: Control | None = None) -> None:
        self.indicator, self.control, self.otherwise = indicator, control, otherwise

    def __call__(self, indicator: Indicator, view: View, grid: Grid) -> Tensor:
        control = self.control if indicator is self.indicator else self.otherwise
        return indicator(view, grid) if control is None else control(indicator, view, grid)

    def drops(self, indicator: Indicator) -> bool:
        control = self.control if indicator is self.indicator else self.otherwise
        return control is not None and control.drops(indicator)

    def num_masked(self, view: View) -> int:
        control = self.control if isinstance(self.indicator, Mask) else self.otherwise
        return view.num_masked if control is None else control.num_masked(view)


def find_indicators(network: nn.Module) -> list[Indicators]:
    """All non-empty `Indicators` of a network."""
    return [module for module in network.modules() if isinstance(module, Indicators) and len(module)]


def set_control(network: nn.Module, control: Control | None) -> None:
    """Give a network a control's signals from now on; None: the true ones.

    Raises:
        ValueError: the network has no indicators, or there is no such control of them.
    """
    found = find_indicators(network)
    if control is not None and not found:
        raise ValueError(f"{type(control).__name__} control of a network without indicators: choose a variant with indicators")
    for indicators in found:
        if control is not None and (problem := control.problem(indicators)):
            raise ValueError(problem)
        indicators.control = control


def freeze_dropped(network: nn.Module) -> None:
    """Train no weight of an indicator of which a network's control leaves nothing: several processes wait for its gradient."""
    for indicators in find_indicators(network):
        for part in indicators:
            if indicators.control is not None and indicators.control.drops(part):
                part.requires_grad_(False)


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
