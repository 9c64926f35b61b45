"""A custom LightningModule with semantic convolutions, and with semconv's callbacks for record, cost, dynamics and pictures.

python examples/lightning_module.py --runs runs
"""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from semconv import SemanticConv2d
from semconv.callbacks import Cost, Dynamics, Panels, Record
from semconv.corruption import View
from semconv.indicators import Coordinates, Indicators, Mask
from semconv.mechanisms import Channels
from semconv.pictures import Reconstruction
from semconv.tracking.folder import RunFolder
from semconv.tracking.record import RunRecord

SIDE, CELL = 16, 4


class Inpainter(LightningModule):
    """Two convolutions conditioned on mask and position."""

    def __init__(self) -> None:
        super().__init__()
        self.indicators = Indicators([Mask(), Coordinates()])
        self.first = SemanticConv2d(1, 16, 5, indicators=self.indicators, mechanism=Channels)
        self.last = SemanticConv2d(16, 1, 5, indicators=self.indicators, mechanism=Channels)
        self.example_input_array = (torch.zeros(1, 1, SIDE, SIDE), torch.zeros(1, SIDE // CELL, SIDE // CELL, dtype=torch.bool))

    def forward(self, seen: Tensor, mask: Tensor) -> Tensor:
        signals = self.indicators(View(seen, mask, num_masked=int(mask[0].sum())))
        return self.last(F.gelu(self.first(seen, signals)), signals)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, mask = batch
        hidden = _spread(mask)
        loss = (self(images.masked_fill(hidden, 0), mask) - images).square()[hidden].mean()
        self.log("train/loss", loss)
        return loss

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("test/loss", self.training_step(batch))

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int = 0) -> Reconstruction:
        images, mask = batch
        hidden = _spread(mask)
        seen = images.masked_fill(hidden, 0)
        made = self(seen, mask)
        columns = {"original": images, "seen": seen, "reconstruction": made, "pasted": torch.where(hidden, made, images)}
        return Reconstruction(columns, hidden[:, 0], torch.arange(len(images)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def draw_discs(count: int) -> TensorDataset:
    """Discs at random places, and random masks of half of the cells."""
    place = torch.rand(count, 2, 1, 1) * SIDE
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    distance = (rows - place[:, 0]).square() + (columns - place[:, 1]).square()
    mask = torch.rand(count, SIDE // CELL, SIDE // CELL).flatten(1).argsort(1) < (SIDE // CELL) ** 2 // 2
    return TensorDataset((distance < 25).float()[:, None], mask.view(count, SIDE // CELL, SIDE // CELL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="runs")
    torch.manual_seed(0)
    folder = RunFolder.new(parser.parse_args().runs, "inpainter")
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=RunRecord(folder),
        log_every_n_steps=4,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[Record(folder, {"lr": 3e-3}), Cost(folder), Dynamics(), Panels(folder)],
    )
    module = Inpainter()
    trainer.fit(module, DataLoader(draw_discs(512), 64))
    trainer.test(module, DataLoader(draw_discs(64), 64), verbose=False)
    print(folder.path, f"test/loss {folder.summary['test/loss']:.4f}")


def _spread(mask: Tensor) -> Tensor:
    return mask.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)[:, None]


if __name__ == "__main__":
    main()
