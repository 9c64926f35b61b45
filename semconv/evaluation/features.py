"""Frozen features of many images, without a trace in the network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from semconv.corruption import View
from semconv.cost import evaluation_mode
from semconv.data import Batch
from semconv.encoders import Encoding
from semconv.indicators import masked_fraction
from semconv.processes import all_gather

Look = Callable[[Batch], View]  # what is shown of a batch


class Features(NamedTuple):
    """One vector per image."""

    vectors: Tensor  # n d, float32, on the CPU: pooled over all sites
    labels: Tensor  # n, int64, -1 where unlabelled
    visible: Tensor  # n d: pooled over visible sites

    def of_visible(self) -> "Features":
        """The features that are pooled over visible sites, in place of those of all sites."""
        return self._replace(vectors=self.visible)


class Evaluated(NamedTuple):
    """A network to be evaluated, where it stands, and the images for it."""

    task: Any  # a MaskedReconstruction
    data: Any  # an ImageData
    precision: Callable[[], Any]  # context in which the network is called
    world_size: int = 1
    other: nn.Module | None = None  # an encoder in place of the task's

    @property
    def encoder(self) -> Any:
        """The encoder to be evaluated."""
        return self.task.encoder if self.other is None else self.other

    def batches(self, part: str, count: int | None) -> Iterator[Batch]:
        """This process's share of up to `count` images spread evenly over a part, as the network gets them."""
        for batch in self.data.evaluation_dataloader(part, count):
            batch = tree_map_only(Tensor, lambda tensor: tensor.to(self.task.device), batch)
            yield self.data.on_after_batch_transfer(batch, 0)

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes."""
        return all_gather(value, self.world_size)


def absent(reason: object, *keys: str) -> dict[str, Any]:
    """Results that are not to be had: null, with the reason beside each."""
    return {name: value for key in keys for name, value in ((key, None), (f"{key}/reason", str(reason)))}


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Nothing of the network changes within: evaluation mode, no gradients, and the modes it had before afterwards."""
    with evaluation_mode(network), torch.no_grad():
        yield


def everything(images: Tensor, cell: int) -> View:
    """A view of images, `b c h w`, of which nothing is masked; `cell` is the side of a mask cell in pixels."""
    grid = (images.shape[2] // cell, images.shape[3] // cell)
    return View(images, torch.zeros(len(images), *grid, dtype=torch.bool, device=images.device), 0)


def unmasked(batch: Batch, cell: int) -> View:
    """A view of a batch, with its frames and maps, of which nothing is masked."""
    return everything(batch.images, cell)._replace(frame=batch.frame, external=batch.external)


def in_precision(view: View, dtype: torch.dtype | str) -> View:
    """A view for a network of another precision than its data's, as Lightning's bf16-true, 16-true and 64-true make it."""
    return view._replace(pixels=view.pixels.to(dtype))


def pool(encoding: Encoding) -> Tensor:
    """The mean over all sites where a feature stands, and 0 where none does: float32 `b d`."""
    features = encoding.features.float()
    if encoding.valid is None:
        return features.mean((2, 3))
    valid = encoding.valid[:, None]
    return torch.where(valid, features, 0).sum((2, 3)) / valid.sum((2, 3)).clamp(min=1)


def pool_visible(encoding: Encoding, mask: Tensor) -> Tensor:
    """The mean over visible sites, a site that is masked in part by its visible share: float32 `b d`.

    Equal to `pool` where the encoder drops masked sites, and where nothing is masked.

    Args:
        encoding: of a view.
        mask: the view's, bool `b gh gw`, True = masked.
    """
    features = encoding.features.float()
    share = 1 - masked_fraction(mask, *features.shape[2:])
    if encoding.valid is not None:
        share = torch.where(encoding.valid[:, None], share, 0)
    return (torch.where(share > 0, features, 0) * share).sum((2, 3)) / share.sum((2, 3)).clamp(min=1e-6)


def extract(evaluated: Evaluated, encoder: nn.Module, part: str, count: int | None, look: Look) -> Features:
    """Pooled features of up to `count` images spread evenly over a part, in the order of the images.

    Args:
        evaluated: whose data are read.
        encoder: from a view to an encoding.
        part: train, validation or test.
        count: how many images; None: all.
        look: what is shown of them.
    """

    def pooled(batch: Batch) -> tuple[Tensor, Tensor]:
        view = look(batch)
        with evaluated.precision():
            encoding = encoder(in_precision(view, evaluated.task.dtype))
        return pool(encoding), pool_visible(encoding, view.mask)

    with frozen(encoder):
        return collect(evaluated, part, count, pooled)


def collect(evaluated: Evaluated, part: str, count: int | None, describe: Callable[[Batch], tuple[Tensor, Tensor]]) -> Features:
    """Vectors of up to `count` images spread evenly over a part, in the order of the images.

    Args:
        evaluated: whose data are read.
        part: train, validation or test.
        count: how many images; None: all.
        describe: gives a batch's vectors `b d`, of all sites and of visible ones.
    """
    rows = []
    for batch in evaluated.batches(part, count):
        vectors, visible = describe(batch)
        rows.append([each.cpu() for each in (vectors, batch.labels, visible, batch.index)])
    own = [torch.cat(parts) for parts in zip(*rows, strict=True)]
    vectors, labels, visible, index = (torch.cat(parts) for parts in zip(*evaluated.gathered(own), strict=True))
    order = index.argsort(stable=True)
    return Features(vectors[order], labels[order], visible[order])


def recalibrated(evaluated: Evaluated, look: Look, count: int = 1024) -> nn.Module:
    """A copy of the encoder whose batch norms have the statistics of views of another kind, the same in all processes.

    Args:
        evaluated: the network and its training images.
        look: what is shown of them.
        count: how many training images are looked at.
    """
    encoder = deepcopy(evaluated.encoder)
    batch_norms = (module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    norms: list[Any] = [norm for norm in batch_norms if norm.track_running_stats]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
        norm.train()
    if norms:
        with torch.no_grad(), evaluated.precision():
            for batch in evaluated.batches("train", count):
                encoder(in_precision(look(batch), evaluated.task.dtype))
        own = [(int(norm.num_batches_tracked), norm.running_mean.cpu(), norm.running_var.cpu()) for norm in norms]
        for norm, parts in zip(norms, zip(*evaluated.gathered(own), strict=True), strict=True):
            total = sum(batches for batches, _, _ in parts)
            norm.running_mean.copy_(sum(mean * (batches / total) for batches, mean, _ in parts))
            norm.running_var.copy_(sum(variance * (batches / total) for batches, _, variance in parts))
    return encoder.eval()
