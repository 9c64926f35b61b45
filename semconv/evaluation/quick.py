"""The quick evaluation that every run, ViT and CNN alike, ends with."""

import math
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn

from semconv.evaluation.features import Evaluated, Features, Look, absent, extract, fingerprint, kept, recalibrated, unmasked
from semconv.evaluation.importance import importance
from semconv.evaluation.probes import (
    NEIGHBOURS,
    LinearClassifier,
    check_labels,
    choose_linear,
    knn_scores,
    top1,
)
from semconv.evaluation.sites import dense_miou, probe_sites

DRAWS = 4  # masks of which the accuracy at the training ratio is the mean
PROBED = ("probe/linear_top1", "probe/knn_top1")

Kind = Literal["whole", "masked"]  # nothing masked, or masked as in training


class Extractor(NamedTuple):
    """Features of one kind of view, kept in files."""

    evaluated: Evaluated
    encoder: nn.Module
    name: str  # of this encoder, kind of view and images
    folder: Path | None  # None: kept nowhere

    def extract(self, part: str, count: int, look: Look, draw: int = 0) -> Features:
        """Features of up to `count` images of a part; `draw` is the number of their masks."""
        file = f"features-{self.name}-{part}-{count}-{draw}"
        return kept(self.folder, file, lambda: extract(self.evaluated, self.encoder, part, count, look))


class Probed(NamedTuple):
    """Accuracies of probes of one kind of view."""

    linear: float
    knn: float
    classifier: LinearClassifier
    num_train_images: int
    num_test_images: int


def evaluate(
    evaluated: Evaluated, num_images: int, recalibrate: bool, folder: Path | None
) -> tuple[dict[str, Any], LinearClassifier | None]:
    """All keys of the quick evaluation that need more than the test step, and the classifier of whole images.

    Args:
        evaluated: the network and its images.
        num_images: at most so many images of train, and of test, are probed with.
        recalibrate: give batch norms the statistics of each kind of view before features are taken.
        folder: that features are kept in; None: nowhere.

    Returns:
        Results by key, null with a reason where the data do not allow them; None for the classifier then.
    """
    classifier = None
    try:
        whole, masked = (_probe(evaluated, kind, num_images, recalibrate, folder) for kind in ("whole", "masked"))
        results, classifier = _accuracies(whole, masked), whole.classifier
    except ValueError as error:
        results = absent(error, *PROBED, *(f"{key}_masked" for key in PROBED))
    results |= probe_sites(evaluated)
    try:
        results["probe/dense_miou"] = dense_miou(evaluated)
    except ValueError as error:
        results |= absent(error, "probe/dense_miou")
    return results | importance(evaluated), classifier


def _probe(evaluated: Evaluated, kind: Kind, num_images: int, recalibrate: bool, folder: Path | None) -> Probed:
    """Linear probe and nearest neighbours on one kind of view."""
    task, look = evaluated.task, partial(_look, evaluated, kind)
    encoder = recalibrated(evaluated, look(0)) if recalibrate else task.encoder
    settings = {"kind": kind, "num_images": num_images, "data": evaluated.data.describe(), "seed": task.evaluation_seed}
    name = fingerprint(encoder, **settings, masker=vars(task.masker), corruption=repr(task.corruption))
    features = Extractor(evaluated, encoder, name, folder)
    train = features.extract("train", num_images, look(0))
    draws = DRAWS if kind == "masked" else 1
    tests = [features.extract("test", math.ceil(num_images / draws), look(draw), draw) for draw in range(draws)]
    num_classes = check_labels(train, tests[0], NEIGHBOURS)
    classifier = choose_linear(train, num_classes)
    linear = [top1(classifier.scores(test.vectors), test.labels) for test in tests]
    knn = [top1(knn_scores(train, test.vectors, num_classes), test.labels) for test in tests]
    return Probed(sum(linear) / draws, sum(knn) / draws, classifier, len(train.labels), len(tests[0].labels))


def _look(evaluated: Evaluated, kind: Kind, draw: int) -> Look:
    task = evaluated.task
    if kind == "whole":
        return partial(unmasked, cell=task.geometry.cell)
    return lambda batch: task.look(batch, "probe", draw)[0]


def _accuracies(whole: Probed, masked: Probed) -> dict[str, Any]:
    results: dict[str, Any] = {
        "probe/num_features": len(whole.classifier.mean),
        "probe/num_train_images": whole.num_train_images,
        "probe/num_test_images": whole.num_test_images,
        "probe/penalty": whole.classifier.penalty,
    }
    for key, seen, hidden in zip(PROBED, (whole.linear, whole.knn), (masked.linear, masked.knn), strict=True):
        results |= {key: seen, f"{key}_masked": hidden, f"{key}_gap": seen - hidden}
    return results
