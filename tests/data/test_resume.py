"""Runs that are killed and resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from semconv.data import Batch, ImageData

# Lightning 2.6 asks torch 2.14 in a way that it deprecates
pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

Seen = tuple[int, list[int], float]


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


def fit(module: Witness, data: ImageData, folder: Path, ckpt_path: Path | None = None, **arguments: Any) -> list[Seen]:
    checkpoints = ModelCheckpoint(folder, every_n_train_steps=1, save_last=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[checkpoints],
        num_sanity_val_steps=1,
        **arguments,
    )
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=False)
    return module.seen


LIMITS = [{"max_epochs": -1, "max_steps": 12}, {"max_epochs": 3}]


@pytest.mark.parametrize("dies_before", [False, True])
@pytest.mark.parametrize("limit", LIMITS, ids=["steps", "epochs"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("fraction", [0.0, 0.2])
@pytest.mark.parametrize("dies_at", [1, 3, 5, 6, 8, 10])
def test_a_killed_run_goes_on_with_the_batch_after_the_last_one_saved(
    dies_at: int,
    fraction: float,
    accumulate: int,
    limit: dict[str, int],
    dies_before: bool,
    make_data: Callable[..., ImageData],
    tmp_path: Path,
) -> None:
    options = {"accumulate_grad_batches": accumulate, **limit}
    whole = fit(Witness(), make_data(validation_fraction=fraction), tmp_path / "whole", **options)
    killed = Witness(dies_at, dies_before)
    with pytest.raises(Killed):
        fit(killed, make_data(validation_fraction=fraction), tmp_path / "killed", **options)
    assert killed.seen == whole[:dies_at]
    path = tmp_path / "killed" / "last.ckpt"
    ckpt = path if path.exists() else None
    rest = fit(Witness(), make_data(validation_fraction=fraction), tmp_path / "killed", ckpt, **options)
    assert rest == whole[killed.num_saved :]
