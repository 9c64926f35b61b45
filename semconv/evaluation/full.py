"""The full evaluation: what was learned, under conditions that training did not have.

Other mask ratios and kinds, a mask grid out of phase, shifted, flipped and resized images, the rank of the features, fewer labels.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from einops import EinopsError, repeat
from torch import Tensor
from torch.nn import functional as F

from semconv.configuration import one_line
from semconv.corruption import View
from semconv.data import Batch
from semconv.evaluation.features import Evaluated, Features, absent, extract, frozen, in_precision, recalibrated, unmasked
from semconv.evaluation.probes import LinearClassifier, check_labels, choose_linear, top1
from semconv.hashing import make_keys, permutation
from semconv.indicators.frame import turn_frame
from semconv.masking import MASKERS, Masker, spread_mask

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SCALES = (0.75, 1.5, 2.0)
LABELS = (0.01, 0.1, 1.0)
ERROR_IMAGES, TOP1_IMAGES = 1024, 2500

Change = Callable[[Batch], Batch]  # of images, and of their frames and maps with them


def evaluate(evaluated: Evaluated, classifier: LinearClassifier | None, recalibrate: bool) -> dict[str, Any]:
    """All keys of the full evaluation, `full/<metric>/<condition>`.

    Errors are means over all hidden pixels of up to 1,024 test images; accuracies are those of the quick evaluation's linear probe
    on up to 2,500 changed test images, with nothing masked. A shift is circular, to the right.

    Args:
        evaluated: the network and its images.
        classifier: the quick evaluation's, of whole images; None: accuracies are left out.
        recalibrate: give batch norms the statistics of whole images before features of such are taken, as for the classifier.
    """
    task, whole = evaluated.task, evaluated
    if recalibrate:
        whole = evaluated._replace(other=recalibrated(evaluated, partial(unmasked, cell=task.geometry.cell)))
    ratio, results = task.masker.count(task.num_cells) / task.num_cells, {}
    for other in RATIOS:
        results.update(_error(evaluated, f"ratio_{other:.2f}", ratio=other))
    for masker in MASKERS:
        if not isinstance(task.masker, masker):
            results.update(_error(evaluated, masker.__name__, masker=masker(ratio)))
    results.update(_error(evaluated, "half_cell", half_cell=True))
    for name, change in _changes(task.geometry.cell).items():
        results.update(_error(evaluated, name, change))
        results.update(_top1(whole, name, change, classifier))
    results.update(_top1(whole, "unchanged", lambda batch: batch, classifier))
    for pixels in range(1, task.geometry.cell + 1):
        key = f"full/equivariance_error/shift_{pixels}"
        results.update(_asked(key, partial(equivariance_error, whole, pixels)))
    results.update(_labels(whole))
    return results


def rankme(vectors: Tensor) -> float:
    """The effective rank of features `n d`: exp of the entropy of their singular values (Garrido et al., 2023)."""
    values = torch.linalg.svdvals(vectors.double())
    shares = values / values.sum() + 1e-7
    return torch.exp(-(shares * shares.log()).sum()).item()


def equivariance_error(evaluated: Evaluated, pixels: int) -> float:
    """Distance of features from shifting as images do, relative to their length: 0 is exact.

    Features are shifted by parts of a site by linear interpolation.

    Args:
        evaluated: the network and its images.
        pixels: by how many pixels images are shifted.
    """
    encoder, cell = evaluated.encoder, evaluated.task.geometry.cell
    apart, length = 0.0, 0.0
    with frozen(encoder):
        for batch in evaluated.batches("test", ERROR_IMAGES // 4):
            views = (in_precision(unmasked(each, cell), evaluated.task.dtype) for each in (batch, _shift(batch, pixels)))
            with evaluated.precision():
                still, moved = (encoder(view).features.float() for view in views)
            sites = pixels * still.shape[3] / batch.images.shape[3]
            whole, part = int(sites), sites - int(sites)
            shifted = (1 - part) * still.roll(whole, 3) + part * still.roll(whole + 1, 3)
            apart += (moved - shifted).double().square().sum().item()
            length += still.double().square().sum().item()
    everyone = evaluated.gathered((apart, length))
    if not (total := sum(second for _, second in everyone)):
        raise ValueError("all features are zero")
    return math.sqrt(sum(first for first, _ in everyone) / total)


def _asked(key: str, compute: Callable[[], float]) -> dict[str, Any]:
    """What is computed, under its key; null where the network cannot be asked, which all processes find alike."""
    try:
        return {key: compute()}
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError, ZeroDivisionError, EinopsError) as error:
        return absent(f"the network cannot be asked: {one_line(error, 200)}", key)


def _changes(cell: int) -> dict[str, Change]:
    shifts = {f"shift_{pixels}": partial(_shift, pixels=pixels) for pixels in range(1, cell + 1)}
    sizes = {f"resolution_{scale:g}": partial(_resize, scale=scale, cell=cell) for scale in SCALES}
    return {**shifts, **sizes, "flip": _flip}


def _shift(batch: Batch, pixels: int) -> Batch:
    """Circular, to the right. The frame stays: there is none that says that a view goes round."""
    external = batch.external if batch.external is None else batch.external.roll(pixels, 3)
    return batch._replace(images=batch.images.roll(pixels, 3), external=external)


def _flip(batch: Batch) -> Batch:
    frame = batch.frame if batch.frame is None else turn_frame(batch.frame)
    external = batch.external if batch.external is None else batch.external.flip(3)
    return batch._replace(images=batch.images.flip(3), frame=frame, external=external)


def _resize(batch: Batch, scale: float, cell: int) -> Batch:
    """Bicubic, antialiased, to whole numbers of cells; maps by the nearest pixel."""
    size = [max(2, round(scale * side / cell)) * cell for side in batch.images.shape[2:]]
    images, external = F.interpolate(batch.images.float(), size=size, mode="bicubic", antialias=True), batch.external
    if external is not None:
        external = F.interpolate(external, size=size, mode="nearest-exact")
    return batch._replace(images=images, external=external)


def _error(
    evaluated: Evaluated,
    name: str,
    change: Change = lambda batch: batch,
    masker: Masker | None = None,
    ratio: float | None = None,
    half_cell: bool = False,
) -> dict[str, Any]:
    """`test/masked_mse` under another condition; null where the network cannot be asked."""
    task = evaluated.task

    def compute() -> float:
        total, number = 0.0, 0
        with frozen(task):
            for batch in evaluated.batches("test", ERROR_IMAGES):
                changed = change(batch)
                images = changed.images
                view, mask = _look(task, changed, masker or task.masker, ratio, half_cell)
                with evaluated.precision():
                    prediction = task(view)
                hidden = spread_mask(mask, (images.shape[2], images.shape[3]))
                errors = task.squared.pixel_errors(prediction, task.squared.target(images))
                total += torch.where(hidden, errors, 0).double().sum().item()
                number += int(hidden.sum())
        everyone = evaluated.gathered((total, number))
        return sum(first for first, _ in everyone) / sum(second for _, second in everyone)

    return _asked(f"full/masked_mse/{name}", compute)


def _look(task: Any, batch: Batch, masker: Masker, ratio: float | None, half_cell: bool) -> tuple[View, Tensor]:
    """A view of images, and its mask, which may be finer than a cell."""
    images, index = batch.images, batch.index
    cell = task.geometry.cell
    grid = (images.shape[2] // cell, images.shape[3] // cell)
    cells = grid[0] * grid[1]
    count = masker.count(cells) if ratio is None else round(ratio * cells)
    if not 0 < count < cells:
        raise ValueError(f"ratio {ratio} hides {count} of {cells} cells")
    keys = make_keys(task.evaluation_seed, "full", index)
    mask = masker(make_keys(keys, "mask"), grid, count)
    if half_cell:
        mask, count = repeat(mask, "b gh gw -> b (gh 2) (gw 2)").roll((1, 1), (1, 2)), 4 * count
    view = task.corruption(images, mask, count, make_keys(keys, "corruption"))
    return view._replace(frame=batch.frame, external=batch.external), mask


def _top1(evaluated: Evaluated, name: str, change: Change, classifier: LinearClassifier | None) -> dict[str, Any]:
    """Accuracy of the linear probe on changed images; null without one, and where the network cannot be asked."""
    key = f"full/linear_top1/{name}"
    if classifier is None:
        return absent("there is no linear probe", key)

    def look(batch: Batch) -> View:
        return unmasked(change(batch), evaluated.task.geometry.cell)

    def compute() -> float:
        found = extract(evaluated, evaluated.encoder, "test", TOP1_IMAGES, look)
        return top1(classifier.scores(found.vectors), found.labels)

    return _asked(key, compute)


def _labels(evaluated: Evaluated) -> Mapping[str, Any]:
    """Rank of the features, and linear probes on fractions of all training images."""
    look = partial(unmasked, cell=evaluated.task.geometry.cell)
    train, test = (extract(evaluated, evaluated.encoder, part, None, look) for part in ("train", "test"))
    results: dict[str, Any] = {"full/rankme": rankme(train.vectors)}
    for share in LABELS:
        key = f"full/linear_top1/labels_{100 * share:g}"
        chosen = permutation(make_keys("labels"), len(train.labels))[: math.ceil(share * len(train.labels))]
        some = Features(*(each[chosen] for each in train))
        try:
            classes = check_labels(some, test)
            results[key] = top1(choose_linear(some, classes).scores(test.vectors), test.labels)
        except ValueError as error:
            results |= absent(error, key)
    return results
