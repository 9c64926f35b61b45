"""Reading by place from what can only be read from its beginning."""

from collections.abc import Iterator

import pytest
import torch

from semconv.data.order import is_held_out, train_batches
from semconv.data.streams import StreamImages
from tests.data.test_sources import png


class Source:
    """A stream of pictures that counts how often it is begun."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.num_starts = 0

    def __call__(self) -> Iterator[tuple[bytes, int]]:
        self.num_starts += 1
        for i in range(self.count):
            yield png(i), i


def read_labels(images: StreamImages, batches: tuple[torch.Tensor, ...]) -> list[list[int]]:
    return [images.read(batch)[1].tolist() for batch in batches]


def test_each_place_is_found_in_one_pass_per_epoch() -> None:
    source = Source(50)
    images = StreamImages(source, 50, 3, block=16)
    index = torch.arange(50)
    index = index[~is_held_out("validation", index, 0.2)]
    for epoch in range(3):
        batches = train_batches(index, 0, epoch, 4, images.block)
        assert read_labels(images, batches) == [batch.tolist() for batch in batches]
        assert len(images.held) <= 2 * 16
    assert source.num_starts == 3


def test_a_stream_of_one_block_is_read_once() -> None:
    source = Source(12)
    images = StreamImages(source, 12, 3, block=16)
    for epoch in range(3):
        read_labels(images, train_batches(torch.arange(12), 0, epoch, 4, 16))
    assert source.num_starts == 1


def test_reading_begins_anywhere_in_the_order() -> None:
    batches = train_batches(torch.arange(50), 0, 1, 4, 16)
    assert read_labels(StreamImages(Source(50), 50, 3, block=16), batches[7:]) == [batch.tolist() for batch in batches[7:]]


def test_a_share_of_each_batch_can_be_read() -> None:
    batches = tuple(batch[1::2] for batch in train_batches(torch.arange(50), 0, 1, 4, 16))
    assert read_labels(StreamImages(Source(50), 50, 3, block=16), batches) == [batch.tolist() for batch in batches]


def test_a_length_must_be_known() -> None:
    with pytest.raises(ValueError, match="length of the stream is unknown: give num_images"):
        StreamImages(Source(5), None, 3)
