"""The order of images and their division into batches: functions of (seed, epoch), equal for every world size and worker count."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from semconv.hashing import make_keys, permutation, uniform

HASHED = 2**16  # numbers at a time: of a million, the hashes would take more memory than all images that are held


class Ticket(NamedTuple):
    """A request for one batch. It carries the epoch, so that a persistent worker needs no shared state."""

    epoch: int
    members: Tensor  # b, int64: indices into the data set
    ahead: Tensor | None = None  # of a stream: all that the same reader gets of the current blocks from here on


def is_held_out(part: Literal["validation", "test"], numbers: Tensor, fraction: float) -> Tensor:
    """True for images of a part: bool, the shape of `numbers`. A hash of an image's number only, not of a run's seed."""
    parts = [uniform(make_keys(0, part, some), 1)[..., 0] < fraction for some in numbers.flatten().split(HASHED)]
    return torch.cat(parts).view(numbers.shape)


def train_batches(index: Tensor, seed: int, epoch: int, batch_size: int, block: int) -> Iterator[Tensor]:
    """The global batches of a training epoch; an incomplete last batch is dropped.

    Args:
        index: indices of the images, ascending: n, int64.
        seed: seed of the run.
        epoch: counted from 0.
        batch_size: over all devices.
        block: number of neighbouring images that are shuffled together: all images, or the buffer of a stream.
    """
    firsts = torch.arange(0, int(index[-1]) + 1, block)[1:]
    rest = index[:0]
    for number, part in enumerate(index.tensor_split(torch.searchsorted(index, firsts))):
        order = torch.cat([rest, part[permutation(make_keys(seed, "order", epoch, number), len(part))]])
        full = len(order) // batch_size * batch_size
        if full:
            yield from order[:full].split(batch_size)
        rest = order[full:]


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
        block: of a stream, whose tickets say what comes next; None: any image can be read at any time.
        num_readers: workers of this device, which take turns.
    """

    def __init__(
        self,
        batches: Callable[[int], Iterable[Tensor]],
        rank: int = 0,
        world_size: int = 1,
        block: int | None = None,
        num_readers: int = 1,
    ) -> None:
        self.batches = batches
        self.rank, self.world_size = rank, world_size
        self.block, self.num_readers = block, num_readers
        self.seek(0, 0)

    def seek(self, epoch: int, first_batch: int) -> None:
        """Start the next iteration in `epoch` at batch `first_batch`."""
        self.epoch = epoch
        self.first_batch = first_batch

    def __iter__(self) -> Iterator[Ticket]:
        shares = (batch[self.rank :: self.world_size] for batch in islice(self.batches(self.epoch), self.first_batch, None))
        if self.block is None:
            yield from (Ticket(self.epoch, share) for share in shares)
            return
        coming = deque(islice(shares, 1))
        while coming:
            end = (int(coming[0].max()) // self.block + 1) * self.block
            while int(coming[-1].min()) < end and (share := next(shares, None)) is not None:
                coming.append(share)
            yield Ticket(self.epoch, coming[0], torch.cat(list(coming)[:: self.num_readers]))
            coming.popleft()
            if not coming:
                coming.extend(islice(shares, 1))
