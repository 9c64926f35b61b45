"""The quick evaluation that every run, ViT and CNN alike, ends with."""

import math
from functools import partial
from typing import Any, Literal, NamedTuple

from semconv.controls import find_indicators
from semconv.evaluation.features import Evaluated, Features, Look, absent, extract, recalibrated, unmasked
from semconv.evaluation.gates import gates
from semconv.evaluation.importance import importance
from semconv.evaluation.pixels import remembered, thumbnails
from semconv.evaluation.probes import (
    NEIGHBOURS,
    LinearClassifier,
    check_labels,
    choose_linear,
    knn_scores,
    top1,
)
from semconv.evaluation.sites import dense_miou, probe_sites
from semconv.metrics import UNTRAINED

DRAWS = 4  # masks of which the accuracy at the training ratio is the mean
PROBED = ("linear_top1", "knn_top1")

Kind = Literal["whole", "masked"]  # nothing masked, or masked as in training
KINDS: tuple[Kind, ...] = ("whole", "masked")


class Probed(NamedTuple):
    """Accuracies of probes of one kind of view."""

    linear: float
    knn: float
    classifier: LinearClassifier
    num_train_images: int
    num_test_images: int

    def named(self, form: str) -> dict[str, float]:
        """The accuracies by key: `form` with the name of the probe in place of its braces."""
        return {form.format(name): value for name, value in zip(PROBED, (self.linear, self.knn), strict=True)}


def evaluate(evaluated: Evaluated, num_images: int, recalibrate: bool) -> tuple[dict[str, Any], LinearClassifier | None]:
    """All keys of the quick evaluation that need more than the test step, and the classifier of whole images.

    Args:
        evaluated: the network and its images.
        num_images: at most so many images of train, and of test, are probed with.
        recalibrate: give batch norms, of the trained and of the untrained network, the statistics of each kind of view before
            features are taken; else they have those of masked views.

    Returns:
        Results by key, null with a reason where the data do not allow them; None for the classifier then.
    """
    whole, masked = (_calibrated(evaluated, kind) for kind in KINDS) if recalibrate else (evaluated, evaluated)
    classifier = None
    try:
        results, classifier = _accuracies(whole, masked, num_images)
        results |= _pixels(evaluated, num_images)
    except ValueError as error:
        forms = ("probe/{}", "probe/{}_masked", "probe/{}_masked_visible", "pixels/{}")
        results = absent(error, *(form.format(name) for form in forms for name in PROBED))
    results |= probe_sites(masked)
    try:
        results["probe/dense_miou"] = dense_miou(whole)
    except ValueError as error:
        results |= absent(error, "probe/dense_miou")
    return results | _untrained(evaluated, num_images, recalibrate) | importance(evaluated) | gates(evaluated), classifier


def while_training(evaluated: Evaluated, num_images: int, recalibrate: bool) -> dict[str, float]:
    """Accuracies of both probes on whole validation images, fitted to training images; test images stay unseen.

    Args:
        evaluated: the network and its images.
        num_images: at most so many images of train, and of validation.
        recalibrate: give batch norms the statistics of whole images before features are taken.

    Raises:
        ValueError: there are no labels, or too few images.
    """
    look = _look(evaluated, "whole", 0)
    encoder = recalibrated(evaluated, look) if recalibrate else evaluated.encoder
    train, validation = (extract(evaluated, encoder, part, num_images, look) for part in ("train", "validation"))
    return _probe(train, [validation]).named("val/{}")


def _accuracies(of_whole: Evaluated, of_masked: Evaluated, num_images: int) -> tuple[dict[str, Any], LinearClassifier]:
    """Probes on whole images; and on masked ones, of features pooled over all sites, and over visible sites."""
    whole = _probe(*_extract(of_whole, "whole", num_images))
    train, tests = _extract(of_masked, "masked", num_images)
    masked = visible = _probe(train, tests)
    encoder = of_masked.encoder
    # else no other sites have a feature, unless a control tells it other ones
    if not encoder.drops_masked or any(indicators.control for indicators in find_indicators(encoder)):
        visible = _probe(train.of_visible(), [test.of_visible() for test in tests])
    results: dict[str, Any] = {
        "probe/num_features": len(whole.classifier.mean),
        "probe/num_train_images": whole.num_train_images,
        "probe/num_test_images": whole.num_test_images,
        "probe/penalty": whole.classifier.penalty,
    }
    results |= whole.named("probe/{}") | masked.named("probe/{}_masked") | visible.named("probe/{}_masked_visible")
    results |= {f"probe/{name}_gap": results[f"probe/{name}"] - results[f"probe/{name}_masked"] for name in PROBED}
    return results, whole.classifier


def _untrained(evaluated: Evaluated, num_images: int, recalibrate: bool) -> dict[str, Any]:
    """Probes of the encoder at its initial weights, on the same images: what its architecture gives without training.

    Its batch norms have statistics by the rule of the trained encoder's: of each kind of view, or of masked views alone,
    as training leaves them.
    """
    task = evaluated.task
    if not any(parameter.requires_grad for parameter in task.encoder.parameters()):
        return absent("the encoder has no weights to train", *(f"{UNTRAINED}/probe/{name}" for name in PROBED))
    initial = evaluated._replace(other=task.untrained_encoder())
    masked = _calibrated(initial, "masked")
    results = probe_sites(masked)
    try:
        whole = _calibrated(initial, "whole") if recalibrate else masked
        results |= _probe(*_extract(whole, "whole", num_images)).named("probe/{}")
    except ValueError as error:
        results |= absent(error, *(f"probe/{name}" for name in PROBED))
    return {f"{UNTRAINED}/{key}": value for key, value in results.items()}


def _pixels(evaluated: Evaluated, num_images: int) -> dict[str, float]:
    """The same probes of thumbnails, which no network has seen."""
    train, test = (thumbnails(evaluated, part, num_images) for part in ("train", "test"))
    return remembered(evaluated.data, (train, test), lambda: _probe(train, [test]).named("pixels/{}"))


def _probe(train: Features, tests: list[Features]) -> Probed:
    """Linear probe and nearest neighbours: means over several draws of test features."""
    num_classes = check_labels(train, tests[0], NEIGHBOURS)
    classifier = choose_linear(train, num_classes)
    linear = [top1(classifier.scores(test.vectors), test.labels) for test in tests]
    knn = [top1(knn_scores(train, test.vectors, num_classes), test.labels) for test in tests]
    return Probed(sum(linear) / len(tests), sum(knn) / len(tests), classifier, len(train.labels), len(tests[0].labels))


def _extract(evaluated: Evaluated, kind: Kind, num_images: int) -> tuple[Features, list[Features]]:
    """Features of at most so many images of train, and of test under each draw of masks."""
    draws = DRAWS if kind == "masked" else 1
    count = math.ceil(num_images / draws)
    tests = [extract(evaluated, evaluated.encoder, "test", count, _look(evaluated, kind, draw)) for draw in range(draws)]
    return extract(evaluated, evaluated.encoder, "train", num_images, _look(evaluated, kind, 0)), tests


def _calibrated(evaluated: Evaluated, kind: Kind) -> Evaluated:
    """The encoder with the statistics of a kind of view in its batch norms."""
    return evaluated._replace(other=recalibrated(evaluated, _look(evaluated, kind, 0)))


def _look(evaluated: Evaluated, kind: Kind, draw: int) -> Look:
    task = evaluated.task
    if kind == "whole":
        return partial(unmasked, cell=task.geometry.cell)
    return lambda batch: task.look(batch, "probe", draw)[0]
