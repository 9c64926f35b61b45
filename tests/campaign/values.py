"""Odd values of options: what cannot work is refused, and what is accepted makes sense."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import yaml

from semconv.commands.train import build, explaining
from tests.campaign.trial import Trial, attempt
from tests.experiments import arguments

ODD = [
    *(0, 1, -1, 2, 3, 7, 0.5, 1.5, -0.5, 1e-30, 1e30, 10**12, 2**63, math.nan, math.inf, -math.inf),
    *("abc", "", "1e-3", "0x10", "1_000", "[]", "{}", "null", "true", "[1]", "[0.5, 0.1]", "[0.1, 0.5]", "[32]", "[0, 0]"),
    *("[nan, 1]", "[0.1, 0.2, 0.3]", "[0.1, 0.2, .nan]", "[-1, -1]", "[32, 32, 32]", "[16, 16]", "1,2", "32x32", "é", " 1 "),
]
SMALL = ["--data.num_images=64", "--data.num_test_images=16", "--data.batch_size=16", "--trainer.accelerator=cpu"]

HUGE = ("data.num_images", "data.batch_size", "model.encoder.kernel_size")  # sensible on other machines


def number(low: float, high: float = math.inf, exclude: str = "", whole: bool = False, null: bool = False) -> Callable[[Any], bool]:
    """Whether a value is a number of a range; `exclude` has "low" and "high" for ends that do not belong to it."""

    def sensible(value: Any) -> bool:
        if value is None:
            return null
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or (whole and value % 1):
            return False
        return low <= value <= high and not ("low" in exclude and value == low) and not ("high" in exclude and value == high)

    return sensible


def several(count: int, each: Callable[[Any], bool], rising: bool = False, null: bool = False) -> Callable[[Any], bool]:
    """Whether a value is a list of so many numbers of a range."""

    def sensible(value: Any) -> bool:
        if value is None:
            return null
        return isinstance(value, list) and len(value) == count and all(map(each, value)) and (not rising or value == sorted(value))

    return sensible


share = number(0, 1)
open_share = number(0, 1, "low high")
# whether a value that an option accepts makes sense
SENSIBLE: dict[str, Callable[[Any], bool]] = {
    "model.base_lr": number(0, exclude="low"),
    "model.min_lr": number(0, 0.008),
    "model.warmup": share,
    "model.weight_decay": number(0),
    "model.betas": several(2, number(0, 1, "high")),
    "model.masker.ratio": lambda value: open_share(value) or several(2, open_share, rising=True)(value),
    "model.cell": number(2, 32, whole=True),
    "model.seed": number(0, whole=True, null=True),
    "model.objective.eps": number(0),
    "model.objective.patch": number(1, 32, whole=True),
    "model.encoder.kernel_size": number(1, whole=True),
    "model.encoder.drop_path": number(0, 1, "high"),
    "model.encoder.mlp_ratio": number(0, 1000, exclude="low", null=True),
    "data.batch_size": number(1, 64, whole=True),
    "data.size": several(2, number(4, whole=True)),
    "data.crop_scale": several(2, number(0, 1, "low"), rising=True, null=True),
    "data.mean": several(3, number(-math.inf), null=True),
    "data.std": several(3, number(0, exclude="low"), null=True),
    "data.validation_fraction": number(0, 1, "high"),
    "data.num_images": number(16, whole=True, null=True),
    "data.num_workers": number(0, whole=True, null=True),
    "data.cache_limit": number(0, whole=True),
    "trainer.max_epochs": number(-1, whole=True, null=True),
    "trainer.max_steps": number(-1, whole=True),
    "trainer.gradient_clip_val": number(0, null=True),
    "trainer.limit_val_batches": number(0, null=True),
    "evaluation_images": number(1, whole=True),
    "checkpoint_every": number(1, whole=True, null=True),
    "checkpoint_minutes": number(0, exclude="low", null=True),
    "nonfinite_steps": number(1, whole=True),
    "seed_everything": number(0, 2**32 - 1, whole=True),
}


def odd_values(random: Random, folder: Path) -> Iterator[Trial]:
    """Values of options of `fit`, up to the first batch."""
    while True:
        key, value = random.choice(list(SENSIBLE)), random.choice(ODD)
        option = f"--{key}={value}"
        options = [*(word for word in SMALL if not word.startswith(f"--{key}=")), f"--runs={folder}", option]
        if value == 10**12 and key in HUGE:
            continue
        trial = attempt(partial(_begin, ["fit", *arguments("cnn_channels", *options)]), option)
        if trial.outcome == "accepted" and not SENSIBLE[key](_read(value)):
            trial = trial._replace(outcome="nonsense accepted", fine=False)
        yield trial


def _begin(words: list[str]) -> None:
    with explaining(debug=False):
        cli = build(words[1:])
        cli.datamodule.setup("fit")
        cli.datamodule.train_dataloader()


def _read(value: Any) -> Any:
    """A value as YAML has it; exponents without a point, which YAML takes for text, are numbers here."""
    text = {math.inf: ".inf", -math.inf: "-.inf"}.get(value, str(value))
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    try:
        return float(found) if isinstance(found, str) else found
    except ValueError:
        return found
