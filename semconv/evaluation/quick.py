"""The quick evaluation: what every run, ViT and CNN alike, ends with."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from semconv.evaluation import features
from semconv.evaluation.features import Evaluated, Features, Look
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


class Probed(dict[str, Any]):
    """Results by key, with the classifier of whole images that they come from."""

    classifier: LinearClassifier | None = None


def evaluate(evaluated: Evaluated, num_images: int, recalibrate: bool, keep: Path | None) -> Probed:
    """All keys of the quick evaluation that need more than the test step.

    Args:
        evaluated: the network and its images.
        num_images: at most so many images of train, and of test, are probed with.
        recalibrate: give batch norms the statistics of each kind of view before features are taken.
        keep: folder that features are kept in; None: nowhere.
    """
    results = Probed()
    _attempt(
        results,
        [*PROBED, *(f"{key}_masked" for key in PROBED)],
        lambda: _classify(evaluated, num_images, recalibrate, keep, results),
    )
    results.update(probe_sites(evaluated))
    _attempt(results, ["probe/dense_miou"], lambda: {"probe/dense_miou": dense_miou(evaluated)})
    results.update(importance(evaluated))
    return results


def views(evaluated: Evaluated) -> dict[str, Look]:
    """The two kinds of view that features are taken of: nothing masked, and masked as in training."""
    task = evaluated.task
    return {
        "whole": lambda batch: features.unmasked(batch, task.geometry.cell),
        "masked": lambda batch: task.look(batch, "probe")[0],
    }


def _classify(evaluated: Evaluated, num_images: int, recalibrate: bool, keep: Path | None, results: Probed) -> dict[str, Any]:
    """Linear probe and nearest neighbours, of whole images and of images masked as in training."""
    task = evaluated.task
    found: dict[str, Any] = {}
    for kind, look in views(evaluated).items():
        encoder = features.recalibrated(evaluated, look) if recalibrate else task.encoder
        settings = {"kind": kind, "num_images": num_images, "data": evaluated.data.describe(), "seed": task.evaluation_seed}
        print_of = features.fingerprint(encoder, **settings, masker=vars(task.masker), corruption=repr(task.corruption))

        def get(
            part: str, count: int, draw: int = 0, look: Look = look, encoder: nn.Module = encoder, name: str = print_of
        ) -> Features:
            seen: Look = look if not draw else lambda batch: task.look(batch, "probe", draw)[0]
            file = f"features-{name}-{part}-{count}-{draw}"
            return features.kept(keep, file, lambda: features.extract(evaluated, encoder, part, count, seen))

        train = get("train", num_images)
        tests = [get("test", num_images)]
        if kind == "masked":
            tests = [get("test", math.ceil(num_images / DRAWS), draw) for draw in range(DRAWS)]
        num_classes = check_labels(train, tests[0], NEIGHBOURS)
        classifier = choose_linear(train, num_classes)
        linear = [top1(classifier.scores(test.vectors), test.labels) for test in tests]
        nearest = [top1(knn_scores(train, test.vectors, num_classes), test.labels) for test in tests]
        suffix = "" if kind == "whole" else "_masked"
        found[f"probe/linear_top1{suffix}"] = sum(linear) / len(linear)
        found[f"probe/knn_top1{suffix}"] = sum(nearest) / len(nearest)
        if kind == "whole":
            results.classifier = classifier
            about: dict[str, float] = {"num_features": train.vectors.shape[1], "num_train_images": len(train.labels)}
            about |= {"num_test_images": len(tests[0].labels), "penalty": classifier.penalty}
            found |= {f"probe/{name}": value for name, value in about.items()}
    for key in PROBED:
        found[f"{key}_gap"] = found[key] - found[f"{key}_masked"]
    return found


def _attempt(results: dict[str, Any], keys: list[str], compute: Callable[[], Mapping[str, Any]]) -> None:
    """Add what is computed; where the data do not allow it, nulls with the reason beside them."""
    try:
        results.update(compute())
    except ValueError as error:
        for key in keys:
            results |= {key: None, f"{key}/reason": str(error)}
