"""Options that Lightning takes as they are, refused in the words of semconv: the whole key, the value and the remedy."""

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from semconv.configuration import get, one_line, require
from semconv.sharding import FullySharded

BOUNDS = {
    "seed_everything": (0, 2**32 - 1),
    **{f"trainer.{name}": (1, math.inf) for name in ("log_every_n_steps", "accumulate_grad_batches", "check_val_every_n_epoch")},
    **{f"trainer.{name}": (-1, math.inf) for name in ("max_steps", "max_epochs", "num_sanity_val_steps")},
    **{f"trainer.{name}": (0, math.inf) for name in ("min_steps", "min_epochs", "gradient_clip_val")},
    "trainer.num_nodes": (1, math.inf),
}
# options of which a whole number counts batches, and any other is a share of them
COUNTS_OR_SHARES = (
    *(f"limit_{part}_batches" for part in ("train", "val", "test", "predict")),
    "overfit_batches",
    "val_check_interval",
)
# what Lightning calls an option where it does not name it
CALLED = {"backend": "accelerator", "duration": "max_time"}


def check_ranges(config: Mapping[str, Any]) -> None:
    """Refuse numbers that Lightning takes or fails on, and that make no sense.

    Args:
        config: the configuration of a subcommand.

    Raises:
        ValueError: there is one.
    """
    for key, (low, high) in BOUNDS.items():
        if isinstance(value := get(config, key), int | float):
            require(key, value, low, high)
    for name in COUNTS_OR_SHARES:
        value, least = get(config, f"trainer.{name}"), int(name == "val_check_interval")
        if not isinstance(value, int | float):
            continue
        if not (value >= least if isinstance(value, int) else 0 <= value <= 1 and (value > 0 or not least)):
            share = "above 0 and " if least else ""
            raise ValueError(
                f"trainer.{name} is {value}: give a number of batches, {least} or more, or a share of them, {share}at most 1.0"
            )


def nothing_to_train(trainer: Mapping[str, Any]) -> str | None:
    """The option by which a training ends before its first step; None if there is none."""
    for name in ("max_steps", "max_epochs", "limit_train_batches", "max_time"):
        value = trainer.get(name)
        if value == 0 if name != "max_time" else _is_over(value):
            return f"trainer.{name} is {value}, and nothing is left to train: give more"
    return None


def refuse_finders(callbacks: list[Callback]) -> None:
    """Refuse callbacks that would change, in training, what the run records of it.

    Raises:
        ValueError: there is one.
    """
    for callback in callbacks:
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            raise ValueError(
                f"{type(callback).__name__} changes the protocol in training: search by semconv sweep learning_rate or semconv "
                "study, which record every value"
            )


def avoid_mps(accelerator: Any) -> Any:
    """An accelerator that has float64: the CPU where Lightning would choose Apple's GPU by itself.

    Args:
        accelerator: option of a trainer.

    Raises:
        ValueError: Apple's GPU is asked for.
    """
    if not torch.backends.mps.is_available() or accelerator not in ("auto", "mps", "gpu"):
        return accelerator
    if accelerator != "auto":
        raise ValueError(f"trainer.accelerator is {accelerator}, and Apple's GPU has no float64, which metrics need: give cpu")
    return "cpu"


def check_sharding(trainer: Namespace, config: Namespace, subcommand: str | None) -> None:
    """Refuse strategies that shard weights in other ways, and what does not work with sharded ones.

    Raises:
        ValueError: there is one.
    """
    strategy = trainer.get("strategy")
    if isinstance(strategy, FSDPStrategy | ModelParallelStrategy) and not isinstance(strategy, FullySharded):
        raise ValueError(f"trainer.strategy is {type(strategy).__name__}: give fsdp2, which shards the weights of every variant")
    if isinstance(strategy, str) and strategy in FSDPStrategy.get_registered_strategies():
        raise ValueError(f"trainer.strategy is {strategy}: give fsdp2, which shards the weights of every variant")
    if strategy != "fsdp2" and not isinstance(strategy, FullySharded):
        return
    model = config["model"]["init_args"]
    for key, value, remedy in (
        ("evaluation", subcommand in ("run", "test") and config["evaluation"] != "none" and config["evaluation"], "none"),
        ("evaluation_every", config["evaluation_every"], "null"),
        ("model.compile", model.get("compile"), "false"),
        ("trainer.sync_batchnorm", trainer.get("sync_batchnorm"), "false"),
        ("trainer.precision", trainer.get("precision") in ("16", 16, "16-mixed") and trainer["precision"], "bf16-mixed"),
    ):
        if value:
            later = ", and evaluate its checkpoint on one device by semconv test" if key == "evaluation" else ""
            raise ValueError(f"{key} is {value}, which does not work with the strategy fsdp2: give {remedy}{later}")


def refuse_second_record(loggers: list[Logger]) -> None:
    """Refuse a logger that would write the run to W&B once more, without its configuration and its clocks.

    Raises:
        ValueError: there is one.
    """
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        raise ValueError(
            "trainer.logger is WandbLogger, and each run has a record in W&B already: leave it out, and set --wandb.project, "
            "--wandb.group and others"
        )


def about_trainer(error: Exception, trainer: Mapping[str, Any]) -> str | None:
    """What Lightning says of an option, with its key and value; None if it names no option.

    Args:
        error: of the making of a trainer.
        trainer: its options.
    """
    text = one_line(error, 200).partition(" Find a complete list")[0]
    for word in re.findall(r"[a-z_]+", text):
        name = CALLED.get(word, word)
        if trainer.get(name) is not None:
            return f"trainer.{name} is {str(trainer[name])[:60]}: {text.rstrip('.!')}: give another"
    return None


def _is_over(limit: Any) -> bool:
    """True for a time limit of zero, in any form that a trainer takes."""
    if isinstance(limit, Mapping):
        return not any(limit.values())
    if isinstance(limit, str):
        return re.fullmatch("[0:]+", limit) is not None
    return isinstance(limit, timedelta) and limit <= timedelta()
