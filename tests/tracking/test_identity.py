"""What two runs must share to be compared."""

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
        "data.image_column": "picture",
        "data.label_column": "coarse_label",
        "trainer.gradient_clip_algorithm": "value",
        "trainer.overfit_batches": "2",
        "trainer.max_time": "00:00:10:00",
        "trainer.callbacks": "StochasticWeightAveraging",
    }
    changed = protocol(*(f"--{name}={value}" for name, value in options.items()), "--trainer.callbacks.swa_lrs=0.1")
    assert set(differences([protocol(), changed])) == set(options)
    early = "--trainer.callbacks=lightning.pytorch.callbacks.EarlyStopping", "--trainer.callbacks.monitor=val/masked_mse"
    assert list(differences([protocol(), protocol(*early)])) == ["trainer.callbacks"]


def test_what_watches_alone_is_not():
    assert (
        protocol("--trainer.callbacks=LearningRateMonitor", "--data.test_split=test", "--trainer.overfit_batches=0") == protocol()
    )
