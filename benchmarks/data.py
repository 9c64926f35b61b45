"""The cost of reading data in a training run, as ratios measured alternately in one process.

python -m benchmarks.data mae_vit cnn_plain --steps 20 --rounds 3

- bare: steps on one batch in memory.
- loader: the same steps on batches of semconv's loader; its wait is the share of time for reading, cropping and normalising.
- trainer: the whole training, as `semconv fit` does it.
- torchvision: the same steps with torchvision's transforms of the same decoded images, in a DataLoader with workers.

docs/data.md has the result.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.pairs import alternate, ratio
from semconv.commands.train import build, quieten
from semconv.cost import Throughput
from semconv.data import Batch, ImageData
from semconv.memory import keep_freed_memory

WARMUP = 3
SHORT = [
    "--trainer.max_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.limit_val_batches=0",
    "--trainer.enable_checkpointing=false",
    "--wandb.mode=disabled",
]


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


class Trained:
    """A variant outside of Lightning: model, data and steps.

    Args:
        name: file of the variant.
        options: of its command line, after the variant.
    """

    def __init__(self, name: str, options: Sequence[str]) -> None:
        self.options = ["-c", "base", *options, "-c", name, *SHORT]
        cli = build([*self.options, "--runs=/nowhere"])
        self.data: Any = cli.datamodule
        self.data.setup("fit")
        self.steps, self.model, self.size = Steps(cli.model), cli.model, self.data.batch_size
        self.ours = forever(lambda: (self.data.on_after_batch_transfer(batch) for batch in self.data.train_dataloader()))
        self.resident = next(self.ours)

    def trainer(self, steps: int) -> float:
        """Seconds of a step of a whole training, as `semconv fit` does it, without its first ones."""
        with tempfile.TemporaryDirectory() as runs:
            trained = build([*self.options, f"--trainer.max_steps={steps + Throughput.WARMUP}", f"--runs={runs}"])
            trained.trainer.fit(trained.model, datamodule=trained.datamodule)
            return self.size / float(trained.record.folder.summary["cost/train_images_per_second"])


class Steps:
    """Training steps outside of Lightning."""

    def __init__(self, model: Any) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def __call__(self, batch: Batch) -> None:
        view, mask = self.model.look(batch, "test")
        loss = self.model.objective(self.model(view), batch.images, mask)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()

    def run(self, batches: Iterator[Batch], steps: int) -> tuple[float, float]:
        """Seconds of a step after a warm-up, and the share of them spent waiting for data."""
        waited = 0.0
        for _ in range(WARMUP):
            self(next(batches))
        start = time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            self(batch)
        seconds = time.perf_counter() - start
        return seconds / steps, waited / seconds


def forever(make: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
    while True:
        yield from make()


def found(tier: str) -> list[str]:
    """The options of a tier whose images are here; of the smoke tier, scenes, none."""
    return ["-c", f"data/{tier}"] if tier != "scenes" else []


def measure(name: str, tier: str, steps: int, rounds: int, num_workers: int) -> dict[str, Any]:
    """Measure one variant: medians over rounds."""
    trained = Trained(name, found(tier))
    workers = DataLoader(
        TorchvisionImages(trained.data),
        trained.size,
        shuffle=True,
        drop_last=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    theirs = forever(lambda: (Batch(images, index, index) for images, index in workers))
    waits: dict[str, list[float]] = {"loader": [], "torchvision": []}

    def stepping(kind: str, batches: Iterator[Batch]) -> float:
        seconds, waited = trained.steps.run(batches, steps)
        waits.setdefault(kind, []).append(waited)
        return seconds

    turns = alternate(
        {
            "bare": lambda: stepping("bare", repeat(trained.resident)),
            "loader": lambda: stepping("loader", trained.ours),
            "torchvision": lambda: stepping("torchvision", theirs),
            "trainer": lambda: trained.trainer(steps),
        },
        rounds,
        warmup=0,  # each warms up itself
    )
    return {
        "variant": name,
        "bare images/s": trained.size / turns["bare"].median,
        "data wait": statistics.median(waits["loader"]),
        "torchvision's wait": statistics.median(waits["torchvision"]),
        "bare / trainer, of time": ratio(turns["bare"], turns["trainer"]).median,
        "torchvision / loader, of time": ratio(turns["torchvision"], turns["loader"]).median,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--tier", default="scenes", help="scenes, or a file of experiments/data: cifar10, imagenette96")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of torchvision's loader")
    given = parser.parse_args()
    keep_freed_memory()
    quieten()
    for name in given.variants:
        print(json.dumps(measure(name, given.tier, given.steps, given.rounds, given.workers)), flush=True)


if __name__ == "__main__":
    main()
