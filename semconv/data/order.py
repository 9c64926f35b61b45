"""Which images make which batch: pure functions of (seed, epoch), equal for every world size and worker count."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from semconv.hashing import make_keys, permutation, uniform


class Ticket(NamedTuple):
    """An order for one batch. It carries the epoch, so a worker that lives for many epochs needs no shared state."""

    epoch: int
    members: Tensor  # b, int64: indices into the data set


def is_validation(index: Tensor, fraction: float) -> Tensor:
    """Whether images belong to validation: bool, the shape of `index`. A hash of the index alone, never of a run's seed."""
    return uniform(make_keys(0, "validation", index), 1)[..., 0] < fraction


def train_batches(index: Tensor, seed: int, epoch: int, batch_size: int, block: int) -> tuple[Tensor, ...]:
    """The global batches of a training epoch; what does not fill a batch is left out.

    Args:
        index: the images, ascending: n, int64.
        seed: of the run.
        epoch: counted from 0.
        batch_size: over all devices.
        block: images change places within blocks of so many neighbours: all of them, or a stream's buffer.
    """
    blocks = index.split(torch.bincount(index // block).tolist())
    shuffled = [part[permutation(make_keys(seed, "order", epoch, number), len(part))] for number, part in enumerate(blocks)]
    order = torch.cat(shuffled)
    return order[: len(order) // batch_size * batch_size].split(batch_size)


def evaluation_batches(index: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """All images in order, in as few batches as `batch_size` allows, whose sizes differ by one at most.

    A short last batch could leave a device without images; even batches leave every device one, see `check_shares`.
    """
    return index.tensor_split(-(-len(index) // batch_size))


def check_shares(batches: Sequence[Tensor], world_size: int) -> None:
    """Refuse evaluation batches that would leave a device without an image.

    Raises:
        ValueError: when a batch has fewer images than there are devices.
    """
    smallest = min(len(batch) for batch in batches)
    if smallest < world_size:
        raise ValueError(
            f"an evaluation batch of {smallest} images leaves some of {world_size} devices without any: "
            f"give a batch_size of {2 * world_size} or more, more images, or evaluate on one device"
        )


class Tickets(Sampler[Ticket]):
    """One device's tickets: every `world_size`-th image, from `rank` on, of each global batch.

    Args:
        batches: gives the global batches of an epoch.
        rank: of this device.
        world_size: number of devices.
    """

    def __init__(self, batches: Callable[[int], Sequence[Tensor]], rank: int = 0, world_size: int = 1) -> None:
        self.batches = batches
        self.rank = rank
        self.world_size = world_size
        self.seek(0, 0)

    def seek(self, epoch: int, first_batch: int) -> None:
        """Begin the next iteration in `epoch` at batch `first_batch`."""
        self.epoch = epoch
        self.first_batch = first_batch

    def __iter__(self) -> Iterator[Ticket]:
        for batch in self.batches(self.epoch)[self.first_batch :]:
            yield Ticket(self.epoch, batch[self.rank :: self.world_size])
