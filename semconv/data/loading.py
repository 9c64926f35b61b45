"""The loader that Lightning iterates: from tickets to batches."""

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from semconv.data.augmentation import Augmentation, centre_boxes, centre_crops, crop_each, crop_frames
from semconv.data.batch import Batch
from semconv.data.errors import BadImage
from semconv.data.images import Images
from semconv.data.maps import Maps
from semconv.data.order import Ticket, Tickets


class BatchReader(Dataset[Batch]):
    """Reads the batch of a ticket, uint8. Images of equal size are cropped and flipped later, on the device: see `augment`.

    Args:
        images: the images to read from.
        size: height and width of the batch in pixels.
        augmentation: of training; None for the fixed crop of evaluation.
        skip: leave out unreadable images, so that their batch is smaller; otherwise the first one is an error.
        maps: maps that come with the images; None: no maps.
    """

    def __init__(
        self,
        images: Images,
        size: tuple[int, int],
        augmentation: Augmentation | None = None,
        skip: bool = False,
        maps: Maps | None = None,
    ) -> None:
        self.images = images
        self.maps = maps
        self.size = size
        self.augmentation = augmentation
        self.skip = skip

    def __getitem__(self, ticket: Ticket) -> Batch:
        self.images.expect(ticket.ahead)
        members, images, labels = self.read(ticket.members)
        sides = torch.tensor([image.shape[-2:] for image in images])
        boxes, flipped = None, None
        if self.augmentation is not None:
            boxes, flipped = self.augmentation.boxes(sides, ticket.epoch, members), self.augmentation.flips(ticket.epoch, members)
        frame = crop_frames(sides, centre_boxes(sides, self.size) if boxes is None else boxes, flipped, self.size)
        external = self.maps.cut(members, sides, boxes, flipped, self.size) if self.maps else None
        if boxes is None:
            images = centre_crops(images, self.size)
        elif not isinstance(images, Tensor):
            images, boxes = crop_each(images, boxes, self.size), None
        return Batch(images, labels, members, boxes, flipped, frame, external)

    def read(self, members: Tensor) -> tuple[Tensor, Tensor | Sequence[Tensor], Tensor]:
        """The indices of the readable images, the images, and their labels."""
        try:
            return members, *self.images.read(members)
        except BadImage:
            if not self.skip:
                raise
        good = members[[self._is_good(member) for member in members.split(1)]]
        if not len(good):
            raise ValueError(f"no image of a batch of {len(members)} can be read, {self.images.name(int(members[0]))} among them")
        return good, *self.images.read(good)

    def _is_good(self, member: Tensor) -> bool:
        try:
            self.images.read(member)
        except BadImage:
            return False
        return True


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Let a worker live on when a signal goes to all processes of a run, as SLURM sends it: it ends with the trainer."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class Loader:
    """The batches of a stage.

    It wraps a DataLoader and is not one, for two reasons. An epoch starts at the request for its first batch, not at Lightning's
    call of `iter`, which comes before Lightning has restored its progress: so `position` reads the trainer's progress, and nothing
    has to be saved. And Lightning does not rebuild it with its own sampler.

    Args:
        reader: from a ticket to a batch.
        tickets: the tickets of this device.
        num_batches: batches per epoch.
        num_workers: processes that read ahead; 0: this process reads.
        position: the epoch, and the batch in it, to start at.
        protocol: the values that the order depends on; saved in checkpoints, and compared if training resumes inside an epoch.
        note: called with the indices of the images that were left out of a batch.
    """

    def __init__(
        self,
        reader: BatchReader,
        tickets: Tickets,
        num_batches: int,
        num_workers: int = 0,
        position: Callable[[], tuple[int, int]] = lambda: (0, 0),
        protocol: dict[str, Any] | None = None,
        note: Callable[[set[int]], None] = lambda places: None,
    ) -> None:
        self.tickets = tickets
        self.note = note
        self.num_batches = num_batches
        self.position = position
        self.protocol = protocol or {}
        self.loader = DataLoader(
            reader,
            batch_size=None,  # a ticket is a whole batch
            sampler=tickets,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_leave_signals_to_the_trainer if num_workers else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # otherwise each epoch draws from the global generator
        )

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Batch]:
        self.tickets.seek(*self.position())
        for ticket, batch in zip(self.tickets, self.loader, strict=True):
            if len(batch.index) < len(ticket.members):
                self.note(set(ticket.members.tolist()) - set(batch.index.tolist()))
            yield batch

    @property
    def _iterator(self) -> Any:
        """The workers: Lightning stops them by this name. The garbage collector would take five seconds for each."""
        return self.loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: None) -> None:
        self.loader._iterator = iterator

    def state_dict(self) -> dict[str, Any]:
        """The values that a resumed run must have in common with this one. Lightning calls it for each checkpoint."""
        return dict(self.protocol)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that a run can resume inside an epoch, where it does.

        Raises:
            ValueError: the order of batches differs from that of the checkpoint's run.
        """
        for key, value in state.items():
            if self.protocol.get(key) != value:
                raise ValueError(
                    f"the checkpoint was written inside an epoch with {key} {value!r}, this run has {self.protocol.get(key)!r}: "
                    f"resume with data.{key} {value!r}, or from a checkpoint at an epoch's end"
                )
