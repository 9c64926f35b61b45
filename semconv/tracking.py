"""The record that every run leaves in its own folder, whatever else logs it."""

import json
import os
import secrets
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

DATA_KEYS = ("source", "size", "channels", "batch_size", "num_images", "num_test_images", "crop_scale", "flip")
MODEL_KEYS = (
    *("cell", "size", "padding_mode", "masker", "corruption", "objective", "evaluation_seed"),
    *("base_lr", "min_lr", "warmup", "betas", "weight_decay", "decay_tokens"),
)
TRAINER_KEYS = (
    *("max_epochs", "max_steps", "limit_train_batches", "limit_test_batches", "accumulate_grad_batches", "fast_dev_run"),
    *("precision", "gradient_clip_val"),
)
VARIANT_KEYS = ("encoder", "decoder")


class RunRecord(Logger):
    """Writes `metrics.jsonl`, one line per logged step, into a run's folder.

    Args:
        directory: the run's folder.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    @property
    def name(self) -> str:
        return self.directory.parent.name

    @property
    def version(self) -> str:
        return self.directory.name

    @property
    def log_dir(self) -> str:
        return str(self.directory)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, "time": round(time.time(), 3), **metrics}
        with open(self.directory / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: `config.yaml` holds all of them."""


def new_run_directory(runs: str, experiment: str) -> Path:
    """Where a new run is recorded: `<runs>/<experiment>/<run id>`; the id is that of the W&B run where one is given."""
    run_id = os.environ.get("WANDB_RUN_ID") or time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)
    return Path(runs) / experiment / run_id


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is known by: its name, its seed, its networks, and the protocol that runs must share to be ranked together.

    Args:
        config: the run's whole configuration, as in `config.yaml`.
    """
    model, data, trainer = config["model"]["init_args"], config["data"].get("init_args", {}), config["trainer"]
    protocol = {
        "data": {key: data.get(key) for key in DATA_KEYS},
        "model": {key: model.get(key) for key in MODEL_KEYS},
        "trainer": {key: trainer[key] for key in TRAINER_KEYS},
    }
    variant = {key: model.get(key) for key in VARIANT_KEYS}
    return {"experiment": config["experiment"], "seed": config["seed_everything"], "variant": variant, "protocol": protocol}


def update_summary(directory: Path, values: Mapping[str, Any]) -> None:
    """Add to a run's `summary.json`, which is never seen half-written."""
    path = directory / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps({**summary, **values}, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)
