"""The cost of reading data in a training run, as ratios measured alternately in one process.

python benchmarks/data.py mae_vit cnn_plain --steps 20 --rounds 3

- bare: steps on one batch in memory.
- loader: the same steps on batches of semconv's loader; its wait is the share of time for reading, cropping and normalising.
- trainer: the whole training, as `semconv fit` does it.
- torchvision: the same steps with torchvision's transforms of the same decoded images, in a DataLoader with workers.

Result, on two cores, torch 2.15, `--tier cifar10 --steps 50 --rounds 3`, batches of 128 (medians of 3): mae_vit data wait .047,
trainer / bare .997, loader / torchvision 1.12; cnn_plain .037, .964, 1.08.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from semconv.commands.train import SemconvCLI, build, quieten
from semconv.data import Batch, ImageData

ROOT = Path(__file__).parent.parent
WARMUP = 3


class TorchvisionImages(Dataset[tuple[Tensor, int]]):
    """The same images with torchvision's transforms, as in most training scripts."""

    def __init__(self, data: ImageData) -> None:
        self.images, self.index = data.select("train")
        mean, std = data.moments
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(data.size, scale=(0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(mean), list(std)),
            ]
        )

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        images, _ = self.images.read(self.index[place : place + 1])
        return self.transform(images[0]), int(self.index[place])


class Steps:
    """Training steps outside of Lightning.

    Args:
        cli: with built model and data.
    """

    def __init__(self, cli: SemconvCLI) -> None:
        self.model: Any = cli.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def __call__(self, batch: Batch) -> None:
        view, mask = self.model.look(batch, "test")
        loss = self.model.objective(self.model(view), batch.images, mask)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()

    def run(self, batches: Iterator[Batch], steps: int) -> tuple[float, float]:
        """Seconds for `steps` steps after a warm-up, and seconds of these spent waiting for data."""
        waited = 0.0
        for _ in range(WARMUP):
            self(next(batches))
        start = time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            self(batch)
        return time.perf_counter() - start, waited


def forever(make: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
    while True:
        yield from make()


def measure(name: str, tier: str, steps: int, rounds: int, num_workers: int) -> dict[str, Any]:
    """Measure one variant: medians over rounds."""
    options = ["-c", f"{ROOT}/experiments/base.yaml", *(["-c", f"{ROOT}/experiments/data/{tier}.yaml"] if tier != "scenes" else [])]
    options += ["-c", f"{ROOT}/experiments/{name}.yaml", f"--trainer.max_steps={steps + 6}", "--trainer.enable_progress_bar=false"]
    options += ["--trainer.limit_val_batches=0", "--wandb.mode=disabled", "--trainer.enable_checkpointing=false"]
    cli = build([*options, "--runs=/nowhere"])
    data: Any = cli.datamodule
    data.setup("fit")
    step, size = Steps(cli), data.batch_size
    ours = forever(lambda: (data.on_after_batch_transfer(batch) for batch in data.train_dataloader()))
    resident = next(ours)
    workers = DataLoader(
        TorchvisionImages(data), size, shuffle=True, drop_last=True, num_workers=num_workers, persistent_workers=num_workers > 0
    )
    theirs = forever(lambda: (Batch(images, index, index) for images, index in workers))
    rates: dict[str, list[float]] = {"bare": [], "loader": [], "trainer": [], "torchvision": []}
    waits: dict[str, list[float]] = {"loader": [], "torchvision": []}
    for _ in range(rounds):
        for kind, batches in (("bare", forever(lambda: iter([resident]))), ("loader", ours), ("torchvision", theirs)):
            seconds, waited = step.run(batches, steps)
            rates[kind].append(steps * size / seconds)
            if kind in waits:
                waits[kind].append(waited / seconds)
        with tempfile.TemporaryDirectory() as runs:
            trained = build([*options, f"--runs={runs}"])
            trained.trainer.fit(trained.model, datamodule=trained.datamodule)
            rates["trainer"].append(trained.record.folder.summary["cost/train_images_per_second"])
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    return {
        "variant": name,
        "bare images/s": medians["bare"],
        "data wait": statistics.median(waits["loader"]),
        "torchvision's wait": statistics.median(waits["torchvision"]),
        "trainer / bare": statistics.median(a / b for a, b in zip(rates["trainer"], rates["bare"], strict=True)),
        "loader / torchvision": statistics.median(a / b for a, b in zip(rates["loader"], rates["torchvision"], strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--tier", default="scenes", help="scenes, or a file of experiments/data: cifar10, imagenette96")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of torchvision's loader")
    given = parser.parse_args()
    quieten()
    for name in given.variants:
        print(json.dumps(measure(name, given.tier, given.steps, given.rounds, given.workers)), flush=True)


if __name__ == "__main__":
    main()
