"""Reading by place from what can only be read from its beginning."""

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semconv.commands.errors import user_message
from semconv.data import Batch, ImageData
from semconv.data.errors import BadImage
from semconv.data.loading import BatchReader, Loader
from semconv.data.order import Tickets, is_held_out, train_batches
from semconv.data.streams import StreamImages
from tests.data.test_sources import make, png, write_parquet, write_tar


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
        batches = tuple(train_batches(index, 0, epoch, 4, images.block))
        assert read_labels(images, batches) == [batch.tolist() for batch in batches]
        assert len(images.held) <= 2 * 16
    assert source.num_starts == 3


def test_a_stream_of_one_block_is_read_once() -> None:
    source = Source(12)
    images = StreamImages(source, 12, 3, block=16)
    for epoch in range(3):
        read_labels(images, tuple(train_batches(torch.arange(12), 0, epoch, 4, 16)))
    assert source.num_starts == 1


def test_a_sample_reads_the_first_block_of_a_stream_and_holds_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    images, index = StreamImages(Source(400), 400, 3, block=40), torch.arange(400)
    data = make("stream", validation_fraction=0.3)
    monkeypatch.setattr(data, "select", lambda part: (images, index[is_held_out("validation", index, 0.3)]))
    monkeypatch.setattr("semconv.data.module.copy", lambda images: images)
    sample = data.sample("validation", 8)
    assert len(sample.index) == 8
    assert images.position <= 40
    assert images.held.keys() == set(sample.index.tolist())


def test_reading_begins_anywhere_in_the_order() -> None:
    batches = tuple(train_batches(torch.arange(50), 0, 1, 4, 16))
    assert read_labels(StreamImages(Source(50), 50, 3, block=16), batches[7:]) == [batch.tolist() for batch in batches[7:]]


def test_a_share_of_each_batch_can_be_read() -> None:
    batches = tuple(batch[1::2] for batch in train_batches(torch.arange(50), 0, 1, 4, 16))
    assert read_labels(StreamImages(Source(50), 50, 3, block=16), batches) == [batch.tolist() for batch in batches]


def test_readers_hold_their_own_shares_alone_and_read_the_stream_once_an_epoch() -> None:
    index = torch.arange(70)
    index = index[~is_held_out("validation", index, 0.2)]
    for world_size, num_readers in ((1, 1), (2, 1), (1, 3), (2, 2)):
        seen: list[int] = []
        held = {(rank, reader): 0 for rank in range(world_size) for reader in range(num_readers)}
        for rank in range(world_size):
            tickets = Tickets(lambda epoch: train_batches(index, 0, epoch, 6, 16), rank, world_size, 16, num_readers)
            sources = [Source(70) for _ in range(num_readers)]
            readers = [BatchReader(StreamImages(source, 70, 3, block=16), (8, 8)) for source in sources]
            for first_batch in (0, 4):  # a whole epoch, and one that is resumed
                tickets.seek(first_batch // 4, first_batch)
                for number, ticket in enumerate(tickets):
                    reader = readers[number % num_readers]
                    batch = reader[ticket]
                    assert batch.index.tolist() == batch.labels.tolist() == ticket.members.tolist()
                    images: Any = reader.images
                    place = rank, number % num_readers
                    held[place] = max(held[place], len(images.held))
                    seen += batch.index.tolist() if first_batch == 0 else []
            assert {source.num_starts for source in sources} == {2}
        assert sorted(seen) == sorted(torch.cat(list(train_batches(index, 0, 0, 6, 16))).tolist())
        # a batch may lie in two blocks; each reader has up to one batch more than its share
        assert max(held.values()) <= 2 * 16 / (world_size * num_readers) + 6


def batches_of(data: ImageData, rank: int, world_size: int, first_batch: int = 0) -> tuple[list[Batch], list[Batch]]:
    """The training batches of one device in epoch 1, and its batches of evaluation."""
    loaders: list[Loader] = []
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, state=SimpleNamespace(fn=None))  # type: ignore[assignment]
    for loader in (data.train_dataloader(), data.val_dataloader()):
        loader.position = lambda: (1, first_batch)
        loaders.append(loader)
    loaders[1].position = lambda: (0, 0)
    try:
        return list(loaders[0]), list(loaders[1])
    finally:
        for loader in loaders:
            if loader._iterator is not None and loader.loader.num_workers:
                loader._iterator._shutdown_workers()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kind", ["wds", "hfids"])
def test_streams_give_each_image_once_to_any_number_of_ranks_and_workers(kind: str, tmp_path: Path) -> None:
    """Three shards of unequal length, for up to two ranks with two workers each."""
    pytest.importorskip("webdataset")
    counts = (20, 3, 18)
    options: dict[str, Any] = {"batch_size": 4, "validation_fraction": 0.25, "crop_scale": None, "flip": False}
    for number, count in enumerate(counts):
        if kind == "wds":
            write_tar(tmp_path / f"a-{number}.tar", count)
        else:
            first = sum(counts[:number])
            write_parquet(tmp_path, count, f"train-{number}", label=list(range(first, first + count)))

    def data(num_workers: int) -> ImageData:
        if kind == "wds":
            options["train_split"] = "a-{0..2}.tar|41"
        else:
            options["num_images"] = 41
        return make(f"{kind}/{tmp_path}", num_workers=num_workers, **options)

    def facts(batch: Batch) -> list[tuple[int, int, int]]:
        sums = batch.images.flatten(1).long().sum(1).tolist()
        return sorted(zip(batch.index.tolist(), batch.labels.tolist(), sums, strict=True))

    alone = [[facts(batch) for batch in batches] for batches in batches_of(data(0), 0, 1)]
    assert len({image for batch in alone[0] for image, *_ in batch}) == 4 * len(alone[0])
    assert sum(map(len, alone[1])) == len(data(0).select("validation")[1])
    for num_workers, world_size, first_batch in ((2, 1, 3), (0, 2, 0), (2, 2, 0)):
        shares = [batches_of(data(num_workers), rank, world_size, first_batch) for rank in range(world_size)]
        for which, expected in enumerate((alone[0][first_batch:], alone[1])):
            together = [
                sorted(fact for part in batch for fact in facts(part))
                for batch in zip(*(share[which] for share in shares), strict=True)
            ]
            assert together == expected


def test_a_length_must_be_known() -> None:
    with pytest.raises(ValueError, match="length of the stream is unknown: give num_images"):
        StreamImages(Source(5), None, 3)


DAMAGE = {
    "empty": lambda content: b"",
    "text": lambda content: b"no tar " * 99,
    "cut": lambda content: content[: len(content) // 2 + 700],
    "cut between files": lambda content: content[: content.index(b"0001.png")],
}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_tar_that_cannot_be_read_is_named_in_one_line(damage: Any, num_workers: int, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    for number in range(2):
        write_tar(tmp_path / f"a-{number}.tar", 4)
    path = tmp_path / "a-1.tar"
    path.write_bytes(damage(path.read_bytes()))
    data = make(f"wds/{tmp_path}", train_split="a-{0..1}.tar|8", batch_size=8, num_workers=num_workers)
    loader = data.train_dataloader()
    with pytest.raises(ValueError) as caught:
        next(iter(loader))
    if num_workers:
        loader._iterator._shutdown_workers()
    said = user_message(caught.value)
    assert said is not None
    assert re.fullmatch(rf"the tar {path} cannot be read \([\w ]+\): restore it, or leave it out of the split", said)


def test_a_class_that_is_no_number_of_one_is_named_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    path = tmp_path / "a-0.tar"
    for written, said in {
        b"dog": f"sample 0000 of {path} has the class 'dog': save its number in the .cls",
        b"9" * 30: f"image 0 of the stream has the label {'9' * 30}: number the classes from 0, below 1,048,576",
    }.items():
        with tarfile.open(path, "w") as tar:
            for suffix, content in {"png": png(0), "cls": written}.items():
                info = tarfile.TarInfo(f"0000.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        data = make(f"wds/{tmp_path}", train_split="a-0.tar|1", batch_size=1)
        with pytest.raises(ValueError, match=said):
            data.sample("train", 1)


def test_streams_of_more_than_eight_bits_need_a_range() -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(file, "PNG")
    images = StreamImages(lambda: iter([(png(0), 0), (file.getvalue(), 1)]), 2, 1)
    assert images.read(torch.tensor([0]))[1].tolist() == [0]
    with pytest.raises(ValueError, match=r"image 1 of the stream has more than 8 bits: state by --data\.range") as caught:
        images.read(torch.tensor([1]))
    assert not isinstance(caught.value, BadImage)  # or on_bad_image would leave them all out
    images.values = (0.0, 2000.0)
    assert (images.read(torch.tensor([1]))[0][0] == 128).all()


def test_a_table_that_cannot_be_read_to_its_end_is_named_in_one_line(tmp_path: Path) -> None:
    for number in range(2):
        write_parquet(tmp_path, 4, f"train-{number}")
    path = tmp_path / "train-1-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=rf"^{tmp_path} cannot be loaded: .*[Pp]arquet.*; restore its files, and remove those"):
        make(f"hfds/{tmp_path}").select("train")
    images = make(f"hfids/{tmp_path}", num_images=8).select("train")[0]
    with pytest.raises(ValueError, match=rf"^{tmp_path} cannot be read: .+; restore its files, and remove those without") as caught:
        images.read(torch.arange(8))
    assert user_message(caught.value) == str(caught.value)
