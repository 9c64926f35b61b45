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
FINETUNING_KEYS = ("momentum", "layer_decay", "drop_path", "mixup", "cutmix", "smoothing")  # of a run that starts from another
# keys of data and trainer that are part of the protocol where they are not as usual
DATA_USUALLY = {
    "train_split": "train",
    "test_split": "test",
    "validation_split": None,
    "validation_fraction": 0.05,
    "mean": None,
    "std": None,
    "labels": "folders",
    "image_column": None,
    "label_column": None,
    "maps": None,
    "map_kind": "classes",
}
TRAINER_USUALLY = {
    "gradient_clip_algorithm": None,
    "limit_val_batches": None,
    "overfit_batches": 0.0,
    "max_time": None,
    "min_epochs": None,
    "min_steps": None,
}
# callbacks of Lightning that leave training as it is; any other may change it
WATCHING = {
    *("ModelSummary", "RichModelSummary", "ProgressBar", "TQDMProgressBar", "RichProgressBar"),
    *("LearningRateMonitor", "DeviceStatsMonitor", "ThroughputMonitor", "ModelCheckpoint", "OnExceptionCheckpoint"),
}
VARIANT_KEYS = ("encoder", "decoder", "control")
# of a user's own class all other arguments are part of the protocol
ELSEWHERE = (
    *("seed", "image_size", "compile", "num_workers", "root", "download", "cache_folder", "cache_limit", "max_pixels"),
    *("on_bad_image", "pretrained_run"),
)
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
        "data": {**{key: data.get(key) for key in DATA_KEYS}, **_unusual(data, DATA_USUALLY), **_own(config["data"])},
        "model": {
            **{key: model.get(key) for key in (*MODEL_KEYS, *(FINETUNING_KEYS if model.get("pretrained_run") else ()))},
            **_own(config["model"]),
        },
        "trainer": {
            **{key: trainer[key] for key in TRAINER_KEYS},
            **_unusual(trainer, TRAINER_USUALLY),
            "callbacks": _changing(trainer.get("callbacks")),
        },
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


def _own(part: Mapping[str, Any]) -> dict[str, Any]:
    """The class of a part that is not of semconv, and the arguments that only this class has."""
    name = part.get("class_path")
    if not isinstance(name, str) or name.startswith("semconv."):
        return {}
    known = {*DATA_KEYS, *DATA_USUALLY, *MODEL_KEYS, *FINETUNING_KEYS, *VARIANT_KEYS, *ELSEWHERE}
    return {"class": name, **{key: value for key, value in (part.get("init_args") or {}).items() if key not in known}}


def _unusual(values: Mapping[str, Any], usually: Mapping[str, Any]) -> dict[str, Any]:
    """The values of some keys; None where one is as usual, and None is left out of a protocol that is compared."""
    return {key: None if values.get(key) == usual else values.get(key) for key, usual in usually.items()}


def _changing(callbacks: Any) -> list[Any] | None:
    """Callbacks of the user that may change training, as the configuration has them; None if there are none."""
    given = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
    return [each for each in given if _class_name(each) not in WATCHING] or None


def _class_name(callback: Any) -> str:
    return str(callback.get("class_path") if isinstance(callback, Mapping) else callback).rpartition(".")[2]
