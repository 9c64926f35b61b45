"""Indicators from a map that comes with each image."""

import torch
from torch import Tensor

from semconv.corruption import View
from semconv.indicators.indicator import Indicator, Information


class ExternalMap(Indicator):
    """A map that comes with each image, such as a segmentation or a depth map: an oracle, because it covers hidden cells too.

    It is an upper bound on the gain by semantics, not a competitor: `semconv compare` shows it apart and does not rank it. A map of
    classes gives the share of each class in each site, one channel per class (class numbers of `num_classes` or above have no
    channel); a map of values gives the mean over each site, 0 to 1. Not closed under shifts. Cost: a mean over all pixels per grid.

    Also known as: semantic layout (SPADE; Park et al., 2019); the input of CAM-Convs (Facil et al., 2019) for geometry.

    Args:
        num_classes: number of classes of a map of classes; None: a map of values.

    Raises:
        ValueError: `num_classes` is below 1; in use: the data have no maps, or maps of the other kind.
    """

    per_image, low, high = True, 0.0, 1.0
    conveys: Information = "oracle"

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}: give at least 1, or null for a map of values")
        self.num_classes, self.channels = num_classes, num_classes or 1

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}"

    def observe(self, view: View) -> Tensor:
        if view.external is None:
            raise ValueError("ExternalMap needs a map for each image: set data.init_args.maps to a folder, or to `source`")
        if self.num_classes is None:
            if not view.external.is_floating_point() and view.external.dtype != torch.bool:  # bools: a map of nothing
                raise ValueError(
                    "ExternalMap expects values, the maps hold classes: set its num_classes, or data.init_args.map_kind to values"
                )
            return view.external.float()
        if view.external.is_floating_point():
            raise ValueError(
                f"ExternalMap expects {self.num_classes} classes, the maps hold values: set its num_classes to null, or "
                "data.init_args.map_kind to classes"
            )
        classes = torch.arange(self.num_classes, device=view.external.device)
        return (view.external == classes[:, None, None]).float()
