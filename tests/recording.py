"""Records what a run meets, on one process or on two."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import subprocess_script
from lightning.pytorch.utilities import rank_zero_only

from semconv.commands.train import SemconvCLI, build
from semconv.data import Batch
from semconv.processes import gathered
from tests.experiments import arguments
from tests.processes import Forked

SHORT = [
    "--trainer.max_steps=3",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.limit_val_batches=0",
    "--trainer.log_every_n_steps=1",
    "--data.num_images=128",
    "--data.num_test_images=33",
    "--data.batch_size=32",
    "--evaluation=none",
    "--model.size=micro",
]


class Recorder(Callback):
    """Keeps, by image, a fingerprint of what each training step met: the image as augmented, its mask, and how it was corrupted."""

    def __init__(self) -> None:
        self.steps: list[dict[int, tuple[float, int, float]]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        view, mask = pl_module.look(batch, "train")  # type: ignore[operator]
        images = batch.images.double().flatten(1)
        # sums weighted by place: equal for equal contents, different for almost all others
        places = images.new_tensor(range(1, images.shape[1] + 1)).sqrt()
        seen = view.pixels.double().flatten(1) @ places
        cells = (mask.flatten(1) * 2 ** mask.new_tensor(range(mask[0].numel()), dtype=int).remainder(62)).sum(1)
        rows = zip((images @ places).tolist(), cells.tolist(), seen.tolist(), strict=True)
        self.steps.append(dict(zip(batch.index.tolist(), rows, strict=True)))


def train(
    name: str, folder: Path, *overrides: str, callbacks: Sequence[Callback] = (), ckpt_path: Path | None = None
) -> SemconvCLI:
    """Train an experiment for three steps, unless told otherwise."""
    cli = build(arguments(name, *SHORT, f"--runs={folder}", *overrides))
    cli.trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=ckpt_path)
    return cli


def logged(folder: Path) -> list[dict[str, Any]]:
    """The rows that the one run below a folder has logged, without what depends on the machine."""
    (path,) = folder.glob("*/*/metrics.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("time", "train/images_per_second")} for row in rows]


def main(name: str, folder: Path, *overrides: str) -> None:
    recorder = Recorder()
    sources = [word for word in overrides if word.startswith("--ckpt_path=")]  # an option of subcommands
    options = [word for word in overrides if word not in sources]
    ckpt_path = Path(sources[0].partition("=")[2]) if sources else None
    cli = train(name, folder, *options, callbacks=[recorder], ckpt_path=ckpt_path)
    results: Any = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    weights = [gathered(parameter).double().square().sum().item() for parameter in cli.model.parameters()]
    held = sum(getattr(parameter, "_local_tensor", parameter).numel() for parameter in cli.model.parameters())
    record = {"steps": recorder.steps, "test": results[0], "weights": weights, "held": held}
    (folder / f"rank{cli.trainer.global_rank}.json").write_text(json.dumps(record))


def record_over_two_processes(name: str, folder: Path, *overrides: str, strategy: str = "ddp") -> list[dict[str, Any]]:
    """Train on two processes; what each of them has met, computed and logged."""
    words = [name, str(folder), *overrides, "--trainer.devices=2", f"--trainer.strategy={strategy}"]
    done = Forked(words, folder, program=_one_of_several).wait()
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def _one_of_several() -> None:
    """A process as Lightning starts it, or the first, whose further ones are forked where Lightning would start them."""
    # Lightning reads it as it is imported
    rank_zero_only.rank = int(os.environ.get("LOCAL_RANK", 0))  # type: ignore[attr-defined]
    name, folder, *overrides = sys.argv[1:]

    def start(command: list[str], env: dict[str, str], cwd: None) -> Forked:
        place = Path(folder) / f"rank{env['LOCAL_RANK']}"
        place.mkdir()
        return Forked(sys.argv[1:], place, env, _one_of_several)

    subprocess_script.subprocess = SimpleNamespace(Popen=start)  # type: ignore[assignment, attr-defined]
    main(name, Path(folder), *overrides)
