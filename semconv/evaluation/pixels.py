"""Pixels as features: what probes find without a network."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from semconv.data import Batch, ImageData
from semconv.evaluation.features import Evaluated, Features, collect
from semconv.files import write_text

SIDE = 8  # of a thumbnail, in pixels
VERSION = 1  # of the probes: a change of what they give makes what was kept void


def thumbnails(evaluated: Evaluated, part: str, count: int | None) -> Features:
    """Images shrunk to at most 8 x 8 pixels, means over areas, as vectors."""

    def shrink(batch: Batch) -> tuple[Tensor, Tensor]:
        rows, columns = (min(SIDE, side) for side in batch.images.shape[2:])
        vectors = F.adaptive_avg_pool2d(batch.images.float(), (rows, columns)).flatten(1)
        return vectors, vectors

    return collect(evaluated, part, count, shrink)


def remembered(data: ImageData, features: Iterable[Features], make: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """Results that depend on some features alone, from the data's cache folder where they have been made before.

    Args:
        data: whose cache is used, unless it is turned off.
        features: all that the results depend on.
        make: makes them.
    """
    if not data.cache_limit:
        return make()
    digest = hashlib.sha256(str(VERSION).encode())
    for each in features:
        digest.update(each.vectors.numpy().tobytes() + each.labels.numpy().tobytes())
    path = data.cache_folder / f"pixels-{digest.hexdigest()[:32]}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        results = make()
    with contextlib.suppress(OSError):  # a folder that cannot be written to costs time, no results
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(results))
    return results
