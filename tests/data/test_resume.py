"""Runs that are killed and resumed."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from semconv.data import Batch, ImageData
from tests.pairwise import pairwise

pytestmark = [
    # Lightning 2.6 asks torch 2.14 in a way that it deprecates
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    # Python 3.12 warns when a process with threads forks
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

Seen = tuple[int, list[int], float]  # epoch, index, sum of pixels


class Killed(Exception):
    pass


class Witness(pl.LightningModule):
    """Writes down every training batch, and dies at one of them."""

    def __init__(self, dies_at: int | None = None, dies_before: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.dies_at = dies_at
        self.dies_before = dies_before
        self.seen: list[Seen] = []
        self.num_saved = 0

    def training_step(self, batch: Batch) -> Tensor:
        if self.dies_before and len(self.seen) == self.dies_at:
            raise Killed
        self.seen.append((self.trainer.current_epoch, batch.index.tolist(), float(batch.images.double().sum())))
        return self.layer(batch.images.mean()[None]).sum()

    def on_train_batch_end(self, *_: Any) -> None:
        if not self.dies_before and len(self.seen) == self.dies_at:
            raise Killed

    def validation_step(self, batch: Batch) -> None:
        self.layer(batch.images.mean()[None])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.num_saved = len(self.seen)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    module: Witness,
    data: ImageData,
    folder: Path,
    saves: dict[str, Any],
    ckpt_path: Path | None = None,
    **arguments: Any,
) -> list[Seen]:
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, save_last=True, **saves)],
        num_sanity_val_steps=1,
        **arguments,
    )
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=False)
    return module.seen


BY_STEPS: dict[str, Any] = {"max_epochs": -1, "max_steps": 12}
BY_EPOCHS: dict[str, Any] = {"max_epochs": 3}
EACH_STEP = {"every_n_train_steps": 1}
EACH_EPOCH = {"every_n_epochs": 1}


FACTORS = ([1, 3, 4, 5, 6, 8, 10], [False, True], [1, 2], [0.0, 0.2], [BY_STEPS, BY_EPOCHS], [EACH_STEP, EACH_EPOCH], [1.0, 0.5])


def histories() -> list[Any]:
    """Batch at which to die (an epoch has 5, or 4 with validation), and how the run is set up; every pair by default."""
    chosen = pairwise(*FACTORS)
    return [pytest.param(*case, marks=[] if case in chosen else [pytest.mark.slow]) for case in product(*FACTORS)]


@pytest.mark.parametrize(("dies_at", "dies_before", "accumulate", "fraction", "limit", "saves", "val_check_interval"), histories())
def test_a_killed_run_goes_on_with_the_batch_after_the_last_one_saved(
    dies_at: int,
    dies_before: bool,
    accumulate: int,
    fraction: float,
    limit: dict[str, int],
    saves: dict[str, int],
    val_check_interval: float,
    make_data: Callable[..., ImageData],
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate, "val_check_interval": val_check_interval, **limit}
    whole = fit(Witness(), make_data(validation_fraction=fraction), tmp_path / "whole", saves, **options)
    killed = Witness(dies_at, dies_before)
    with pytest.raises(Killed):
        fit(killed, make_data(validation_fraction=fraction), tmp_path / "killed", saves, **options)
    assert killed.seen == whole[:dies_at]
    last = tmp_path / "killed" / "last.ckpt"
    resumed = fit(
        Witness(),
        make_data(validation_fraction=fraction),
        tmp_path / "killed",
        saves,
        last if last.exists() else None,
        **options,
    )
    assert resumed == whole[killed.num_saved :]


def test_workers_and_skipped_batches_do_not_disturb_a_resumed_run(make_data: Callable[..., ImageData], tmp_path: Path) -> None:
    def run(module: Witness, folder: str, ckpt_path: Path | None = None) -> list[Seen]:
        data = make_data(num_workers=1, validation_fraction=0.2)
        return fit(module, data, tmp_path / folder, EACH_STEP, ckpt_path, max_epochs=3, limit_train_batches=3)

    whole = run(Witness(), "whole")
    assert len(whole) == 9
    for dies_at in (3, 5, 7):
        with pytest.raises(Killed):
            run(Witness(dies_at, dies_before=True), f"killed-{dies_at}")
        assert run(Witness(), f"killed-{dies_at}", tmp_path / f"killed-{dies_at}" / "last.ckpt") == whole[dies_at:]


def test_a_run_that_is_resumed_with_another_batch_size_is_refused(make_data: Callable[..., ImageData], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(Witness(dies_at=3), make_data(), tmp_path, EACH_STEP, **BY_EPOCHS)
    with pytest.raises(ValueError, match="written inside an epoch with batch_size 4, this run has 3"):
        fit(Witness(), make_data(batch_size=3), tmp_path, EACH_STEP, tmp_path / "last.ckpt", **BY_EPOCHS)
