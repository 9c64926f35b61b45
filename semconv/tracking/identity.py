"""The identity of a run, the same in every record of it."""

from collections.abc import Mapping
from typing import Any

from semconv.tracking.facts import control

DATA_KEYS = (
    *("source", "size", "channels", "batch_size", "num_images", "num_test_images", "test_fraction"),
    *("crop_scale", "flip", "range"),
)
MODEL_KEYS = (
    *("cell", "size", "padding_mode", "masker", "corruption", "objective", "evaluation_seed"),
    *("base_lr", "min_lr", "warmup", "betas", "optimizer", "schedule", "weight_decay", "decay_tokens"),
)
TRAINER_KEYS = (
    *("max_epochs", "max_steps", "limit_train_batches", "limit_test_batches", "accumulate_grad_batches", "fast_dev_run"),
    *("precision", "gradient_clip_val"),
)
VARIANT_KEYS = ("encoder", "decoder", "control")
EVALUATION_KEYS = ("evaluation_images", "recalibrate_batch_norm")
IDENTITY = ("experiment", "control", "seed", "variant", "protocol")


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Take the identity of a run from its configuration: name, seed, networks, and the protocol.

    Runs are ranked together only if their protocols are equal.

    Args:
        config: the run's whole configuration, as in `config.yaml`.
    """
    model, data, trainer = config["model"]["init_args"], config["data"].get("init_args", {}), config["trainer"]
    protocol = {
        "data": {key: data.get(key) for key in DATA_KEYS},
        "model": {key: model.get(key) for key in MODEL_KEYS},
        "trainer": {key: trainer[key] for key in TRAINER_KEYS},
        "evaluation": {key: config.get(key) for key in EVALUATION_KEYS},
    }
    variant = {key: model.get(key) for key in VARIANT_KEYS}
    pretrained = {"pretrained_run": model["pretrained_run"]} if model.get("pretrained_run") else {}
    return {
        **pretrained,
        "experiment": config["experiment"],
        "control": control(config),
        "seed": config["seed_everything"],
        "variant": variant,
        "protocol": protocol,
    }
