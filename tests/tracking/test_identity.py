"""What two runs must share to be compared."""

from copy import deepcopy

from semconv.comparison.grouping import differences
from semconv.configuration import flatten
from semconv.tracking.identity import identity
from tests.experiments import parsed


def protocol(*options: str) -> dict:
    return flatten(identity(parsed("cnn_plain", *options))["protocol"])


def test_what_changes_training_or_testing_is_part_of_the_protocol():
    options = {
        "data.test_split": "val",
        "data.validation_fraction": "0.2",
        "data.mean": "[0,0,0]",
        "data.labels": "none",
        "data.maps": "maps",
        "data.image_column": "picture",
        "data.label_column": "coarse_label",
        "trainer.gradient_clip_algorithm": "value",
        "trainer.limit_val_batches": "3",
        "trainer.overfit_batches": "2",
        "trainer.max_time": "00:00:10:00",
        "trainer.callbacks": "StochasticWeightAveraging",
    }
    changed = protocol(*(f"--{name}={value}" for name, value in options.items()), "--trainer.callbacks.swa_lrs=0.1")
    assert set(differences([protocol(), changed])) == set(options)
    early = "--trainer.callbacks=lightning.pytorch.callbacks.EarlyStopping", "--trainer.callbacks.monitor=val/masked_mse"
    assert list(differences([protocol(), protocol(*early)])) == ["trainer.callbacks"]
    own = deepcopy(parsed("cnn_plain"))
    for part, arguments in (("model", {"factor": 2, "compile": True}), ("data", {"blur": 0.5, "num_workers": 3})):
        own[part]["class_path"] = f"mine.{part}"
        own[part]["init_args"] |= arguments
    found = differences([protocol(), flatten(identity(own)["protocol"])])
    assert set(found) == {"model.class", "model.factor", "data.class", "data.blur"}


def test_what_watches_alone_is_not():
    assert (
        protocol("--trainer.callbacks=LearningRateMonitor", "--data.test_split=test", "--trainer.overfit_batches=0") == protocol()
    )
