"""The order of images and their division into batches: functions of (seed, epoch), equal for every world size and worker count."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from semconv.hashing import make_keys, permutation, uniform


class Ticket(NamedTuple):
    """A request for one batch. It carries the epoch, so that a persistent worker needs no shared state."""

    epoch: int
    members: Tensor  # b, int64: indices into the data set


def is_held_out(part: Literal["validation", "test"], numbers: Tensor, fraction: float) -> Tensor:
    """True for images of a part: bool, the shape of `numbers`. A hash of an image's number only, not of a run's seed."""
    return uniform(make_keys(0, part, numbers), 1)[..., 0] < fraction


def train_batches(index: Tensor, seed: int, epoch: int, batch_size: int, block: int) -> tuple[Tensor, ...]:
    """The global batches of a training epoch; an incomplete last batch is dropped.

    Args:
        index: indices of the images, ascending: n, int64.
        seed: seed of the run.
        epoch: counted from 0.
        batch_size: over all devices.
        block: number of neighbouring images that are shuffled together: all images, or the buffer of a stream.
    """
    blocks = index.split(torch.bincount(index // block).tolist())
    shuffled = [part[permutation(make_keys(seed, "order", epoch, number), len(part))] for number, part in enumerate(blocks)]
    order = torch.cat(shuffled)
    return order[: len(order) // batch_size * batch_size].split(batch_size)


def evaluation_batches(index: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """All images in order, in as few batches as `batch_size` allows, whose sizes differ by at most one.

    A short last batch could leave a device without images; batches of equal size give one to every device, see `check_shares`.
    """
    return index.tensor_split(-(-len(index) // batch_size))


def check_shares(batches: Sequence[Tensor], world_size: int) -> None:
    """Refuse evaluation batches that would leave a device without an image.

    Raises:
        ValueError: a batch has fewer images than there are devices.
    """
    smallest = min(len(batch) for batch in batches)
    if smallest < world_size:
        raise ValueError(
            f"an evaluation batch of {smallest} images leaves some of {world_size} devices without any: "
            f"give a batch_size of {2 * world_size} or more, more images, or evaluate on one device"
        )


class Tickets(Sampler[Ticket]):
    """The tickets of one device: every `world_size`-th image, from `rank` on, of each global batch.

    Args:
        batches: from an epoch to its global batches.
        rank: rank of this device.
        world_size: number of devices.
    """

    def __init__(self, batches: Callable[[int], Sequence[Tensor]], rank: int = 0, world_size: int = 1) -> None:
        self.batches = batches
        self.rank = rank
        self.world_size = world_size
        self.seek(0, 0)

    def seek(self, epoch: int, first_batch: int) -> None:
        """Start the next iteration in `epoch` at batch `first_batch`."""
        self.epoch = epoch
        self.first_batch = first_batch

    def __iter__(self) -> Iterator[Ticket]:
        for batch in self.batches(self.epoch)[self.first_batch :]:
            yield Ticket(self.epoch, batch[self.rank :: self.world_size])
