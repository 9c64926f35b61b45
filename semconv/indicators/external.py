"""What somebody else says of the image."""

import torch
from torch import Tensor

from semconv.corruption import View
from semconv.indicators.indicator import Indicator, Information


class ExternalMap(Indicator):
    """A map that comes with the image, such as a segmentation or a depth map: an oracle, as it knows what is hidden.

    An upper bound on what semantics could be worth, and no competitor: `semconv compare` shows it apart, unranked. Of classes, each
    site says which share of it each class has, one channel per class (a class that is not counted has none); of values, their mean,
    0 to 1. Not closed under shifts. Costs a mean over all pixels per grid.

    Also known as: semantic layout (SPADE; Park et al., 2019), CAM-Convs' input (Facil et al., 2019) where it is geometry.

    Args:
        num_classes: of a map of classes; None: it is a map of values.

    Raises:
        ValueError: there is no class; in use: the data have no maps, or maps of the other kind.
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
            raise ValueError("ExternalMap needs a map of each image: give data.init_args.maps, a folder or `source`")
        if self.num_classes is None:
            if not view.external.is_floating_point():
                raise ValueError(
                    "ExternalMap of values is given classes: set its num_classes, or data.init_args.map_kind to values"
                )
            return view.external.float()
        classes = torch.arange(self.num_classes, device=view.external.device)
        return (view.external == classes[:, None, None]).float()
