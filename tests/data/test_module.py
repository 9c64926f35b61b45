"""What reaches a model."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from semconv.data import Batch, ImageData
from semconv.data.augmentation import augment
from semconv.data.images import MemoryImages
from semconv.data.loading import Loader
from semconv.data.sources import Source
from tests.data.conftest import memory_images

pytestmark = [
    # Lightning 2.6 asks torch 2.14 in a way that it deprecates
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    # Python 3.12 warns when a process with threads forks
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

Make = Callable[..., ImageData]


def arrive(loader: Loader) -> list[Batch]:
    """A loader's batches as they are on the device, but for their normalisation."""
    size = loader.loader.dataset.size  # type: ignore[attr-defined]
    return [augment(batch, size) for batch in loader]


def by_index(loader: Loader) -> dict[int, Tensor]:
    return {int(i): image for batch in arrive(loader) for i, image in zip(batch.index, batch.images, strict=True)}


def assert_same(left: dict[int, Tensor], right: dict[int, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[i], right[i]) for i in left)


class Probe(pl.LightningModule):
    """Keeps every batch of evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Batch] = []

    def validation_step(self, batch: Batch) -> None:
        self.batches.append(batch)

    def test_step(self, batch: Batch) -> None:
        self.batches.append(batch)

    def predict_step(self, batch: Batch) -> Tensor:
        return batch.index


def trainer() -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_checkpointing=False)


def test_batches_are_normalised_float_images_with_labels_and_index(make_data: Make) -> None:
    data = make_data(size=(12, 12), mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 1.0])
    probe = Probe()
    trainer().test(probe, data)
    source = data.opened["test"]
    batch = probe.batches[1]
    assert (batch.index.dtype, batch.labels.dtype, batch.images.dtype) == (torch.int64, torch.int64, torch.float32)
    pixels, labels = source.read(batch.index)
    mean, std = torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.25, 1.0]])[:, None, :, None, None]
    torch.testing.assert_close(batch.images, (torch.as_tensor(pixels) / 255 - mean) / std)
    assert torch.equal(batch.labels, labels)
    assert torch.cat([batch.index for batch in probe.batches]).tolist() == list(range(11))


def test_prediction_sees_every_test_image_in_order(make_data: Make) -> None:
    predicted: Any = trainer().predict(Probe(), make_data())
    assert torch.cat(predicted).tolist() == list(range(11))


def test_train_and_validation_share_the_numbering_and_nothing_else(make_data: Make) -> None:
    data = make_data(num_images=60, validation_fraction=0.3, batch_size=1)
    train, validation = (set(by_index(loader)) for loader in (data.train_dataloader(), data.val_dataloader()))
    assert train | validation == set(range(60))
    assert not train & validation
    assert validation == set(by_index(make_data(60, validation_fraction=0.3, batch_size=1, seed=5).val_dataloader()))


def test_a_named_split_validates_in_place_of_the_fraction(make_data: Make) -> None:
    data = make_data(validation_split="val", validation_fraction=0.3)
    data.opened["val"] = data.opened["test"]
    assert len(data.select("train")[1]) == 23
    assert len(data.select("validation")[1]) == 11


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_no_bit(make_data: Make, num_workers: int) -> None:
    alone, helped = (make_data(num_workers=count).train_dataloader() for count in (0, num_workers))
    for epoch in range(2):
        for loader in (alone, helped):
            loader.position = lambda epoch=epoch: (epoch, 1)  # type: ignore[misc]
        for left, right in zip(arrive(alone), arrive(helped), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(left[:3], right[:3], strict=True))


def test_the_batch_size_changes_no_image(make_data: Make) -> None:
    small, large = (by_index(make_data(24, batch_size=size).train_dataloader()) for size in (3, 12))
    assert_same(small, large)


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_number_of_devices_changes_no_image(make_data: Make, world_size: int) -> None:
    whole = arrive(make_data().train_dataloader())
    loaders = [make_data().train_dataloader() for _ in range(world_size)]
    for rank, loader in enumerate(loaders):
        loader.tickets.rank, loader.tickets.world_size = rank, world_size
    for batch, *shares in zip(whole, *map(arrive, loaders), strict=True):
        expected = dict(zip(batch.index.tolist(), batch.images, strict=True))
        assert_same(expected, {int(i): image for share in shares for i, image in zip(share.index, share.images, strict=True)})


def test_evaluation_is_not_augmented(make_data: Make) -> None:
    data = make_data(size=(12, 12))
    images = by_index(data.test_dataloader())
    assert_same(images, dict(enumerate(torch.as_tensor(data.opened["test"].read(torch.arange(11))[0]))))


def test_reading_leaves_the_global_generator_alone(make_data: Make) -> None:
    state = torch.get_rng_state()
    by_index(make_data(num_workers=0).train_dataloader())
    assert torch.equal(state, torch.get_rng_state())


def test_validating_without_validation_images_is_refused(make_data: Make) -> None:
    probe = Probe()
    with pytest.raises(ValueError, match="validation has no images: give a validation_fraction"):
        trainer().validate(probe, make_data())


def test_a_run_with_another_order_cannot_go_on_inside_an_epoch(make_data: Make) -> None:
    state = make_data(batch_size=4).train_dataloader().state_dict()
    make_data(batch_size=4).train_dataloader().load_state_dict(state)
    with pytest.raises(ValueError, match=r"with batch_size 4, this run has 5: resume with data\.batch_size 4"):
        make_data(batch_size=5).train_dataloader().load_state_dict(state)


def test_one_line_describes_the_data(make_data: Make) -> None:
    data = make_data(60, validation_fraction=0.2, mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
    train = len(data.select("train")[1])
    assert (
        str(data)
        == data.describe()
        == (
            f"scenes: {train} train, {60 - train} validation, 11 test images of 8 x 8 x 3, mean 0.5 0.5 0.5, std 0.25 0.25 0.25"
            "; choices by so few validation images are noisy"
        )
    )


def test_data_that_are_printed_are_not_opened(tmp_path: Path) -> None:
    assert str(ImageData([f"{tmp_path}/a", "scenes"], size=(8, 12))) == f"{tmp_path}/a or scenes: images of 8 x 12 x 3, not opened"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": [0.5]}, r"mean is \[0.5\] for 3 channels: give one number per channel"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0: give a number of 0 or more and below 1"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0: give a number above 0 and below 1"),
        ({"test_fraction": 0.2, "test_split": "train"}, "test_split is train, as train_split: leave it out"),
        ({"validation_split": "test"}, "validation_split is test, as test_split: give another split, or leave it out"),
        ({"batch_size": 24}, "batch_size is 24 for 23 training images: give 23 or less"),
    ],
)
def test_arguments_that_cannot_work_are_refused(make_data: Make, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_data(**arguments).train_dataloader()


DDP = """
import json, sys, warnings
import lightning.pytorch as pl, torch
from tests.data.conftest import memory_images
from semconv.data import ImageData
from torch import nn

class Witness(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen = []
    def note(self, stage, batch):
        pixels = batch.images.double().flatten(1)
        checks = (pixels * torch.arange(pixels.shape[1])).sum(1).tolist()
        self.seen += [[stage, self.current_epoch, i, check] for i, check in zip(batch.index.tolist(), checks)]
    def training_step(self, batch, number):
        self.note(f"train {number}", batch)
        return self.layer(batch.images.mean()[None]).sum()
    def validation_step(self, batch, number):
        self.note(f"validation {number}", batch)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

devices, folder = int(sys.argv[1]), sys.argv[2]
data = ImageData("scenes", size=(8, 8), batch_size=4, validation_split="val")
data.opened = {"train": memory_images(23), "val": memory_images(11, seed=1)}
trainer = pl.Trainer(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", logger=False, max_epochs=2,
                     enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0)
module = Witness()
trainer.fit(module, data)
json.dump(module.seen, open(f"{folder}/{devices}-{trainer.global_rank}.json", "w"))
"""


@pytest.mark.slow
def test_two_processes_see_what_one_sees(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(DDP)
    seen = {}
    for devices in (1, 2):
        subprocess.run(
            [sys.executable, str(tmp_path / "run.py"), str(devices), str(tmp_path)],
            check=True,
            timeout=240,
            cwd=Path(__file__).parents[2],
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        )
        records = [json.loads((tmp_path / f"{devices}-{rank}.json").read_text()) for rank in range(devices)]
        seen[devices] = sorted(entry for record in records for entry in record)
    assert len(seen[1]) == 2 * (20 + 11)
    assert seen[1] == seen[2]


def test_a_sample_is_spread_evenly_over_a_part():
    data = ImageData("scenes", num_images=100, num_test_images=41)
    batch = data.sample("test", 5)
    assert batch.index.tolist() == [0, 10, 20, 30, 40]
    assert torch.equal(batch.images, torch.as_tensor(data.select("test")[0].read(batch.index)[0]))
    assert len(data.sample("validation", 1000).index) == len(data.select("validation")[1])


KINDS = ("folder", "npy", "hfds")


def write_split(root: Path, kind: str, split: str, arrays: list[np.ndarray]) -> None:
    root.mkdir(exist_ok=True)
    if kind == "npy":
        np.save(root / f"{split}.npy", np.stack(arrays))
        return
    files = []
    for array in arrays:
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG")
        files.append(file.getvalue())
    if kind == "hfds":
        datasets = pytest.importorskip("datasets")
        table = datasets.Dataset.from_dict({"image": [{"bytes": content, "path": None} for content in files]})
        table.to_parquet(str(root / f"{split}-00000-of-00001.parquet"))
        return
    (root / split).mkdir()
    for number, content in enumerate(files):
        (root / split / f"{number}.png").write_bytes(content)


@pytest.mark.parametrize(("kind", "first"), [*((kind, "8 bits") for kind in KINDS), ("folder", "unreadable")])
@pytest.mark.parametrize("order", ["test train", "train test"])
def test_the_range_is_guessed_from_the_training_split(kind: str, first: str, order: str, tmp_path: Path) -> None:
    """Whatever split is opened first, and whatever its first image is."""
    deep = np.full((8, 8), 4000, np.uint16)
    dark = np.full((8, 8), 900, np.uint16)
    plain = np.full((8, 8), 7, np.uint16 if kind == "npy" else np.uint8)
    write_split(tmp_path / "data", kind, "train", [deep] * 4)
    write_split(tmp_path / "data", kind, "test", [plain, dark, dark, dark])
    if first == "unreadable":
        (tmp_path / "data" / "test" / "0.png").write_bytes(b"no image")
    source = str(tmp_path / "data") if kind == "folder" else f"{kind}/{tmp_path / 'data'}"
    data = ImageData(source, size=(8, 8), channels=1, cache_limit=0)
    for part in order.split():
        data.select(part)  # type: ignore[arg-type]
    assert data.given_range == (0, 4095)
    assert (torch.as_tensor(data.select("test")[0].read(torch.tensor([1]))[0][0]) == round(900 / 4095 * 255)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_test_split_alone_is_its_own_measure(kind: str, tmp_path: Path) -> None:
    write_split(tmp_path / "data", kind, "test", [np.full((8, 8), 900, np.uint16)] * 4)
    data = ImageData(str(tmp_path / "data") if kind == "folder" else f"{kind}/{tmp_path / 'data'}", size=(8, 8), channels=1)
    data.setup("test")
    assert data.given_range == (0, 1023)


@pytest.mark.parametrize("source", ["scenes", "torch/cifar10"])
def test_the_training_split_is_not_opened_where_no_image_has_more_than_eight_bits(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def note(source: Source, split: str, num_images: int | None = None) -> MemoryImages:
        opened.append(split)
        return memory_images(4)

    monkeypatch.setattr(Source, "open", note)
    ImageData(source).setup("test")
    assert opened == ["test"]
