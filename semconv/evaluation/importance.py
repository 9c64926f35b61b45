"""What a trained network makes of each thing it is told: permutation importance (Breiman, 2001)."""

from typing import Any

import torch

from semconv.corruption import View
from semconv.evaluation.features import Examined, frozen
from semconv.indicators import Indicator
from semconv.twins import Fixed, Only, Shuffled, Twin, Zero, told_things

IMAGES = 512


def importance(examined: Examined, count: int = IMAGES) -> dict[str, Any]:
    """By how much `test/masked_mse` grows when one indicator stops telling the truth.

    `importance/<indicator>/zeroed`, `/shuffled` (over the batch) and, of indicators of the mask, `/another_mask` (one image's, for
    all). Masks, images and everything else stay as they are.

    Args:
        examined: the network and its images.
        count: test images.
    """
    told = [part for indicators in told_things(examined.task.encoder) for part in indicators]
    if not told:
        return {"importance": None, "importance/reason": "the network is told nothing"}
    substitutes: dict[str, Twin] = {"zeroed": Zero(), "shuffled": Shuffled(), "another_mask": Fixed(examined.task.masker)}
    tries: dict[str, tuple[Indicator, Twin]] = {
        f"importance/{name}/{how}": (part, twin)
        for name, part in _named(told)
        for how, twin in substitutes.items()
        if how != "another_mask" or part.tells == "mask"
    }
    whole = _errors(examined, count, tries)
    intact = whole.pop("")
    return {key: error - intact for key, error in whole.items()}


def _named(parts: list[Indicator]) -> list[tuple[str, Indicator]]:
    """Indicators by the names of their classes, several of one class numbered."""
    names = [type(part).__name__ for part in parts]
    return [
        (name if names.count(name) == 1 else f"{name}_{names[:number].count(name)}", part)
        for number, (name, part) in enumerate(zip(names, parts, strict=True))
    ]


def _errors(examined: Examined, count: int, tries: dict[str, tuple[Indicator, Twin]]) -> dict[str, float]:
    """Mean error over the images, under each substitution and, by an empty name, under none."""
    task = examined.task
    sums = dict.fromkeys(["", *tries], 0.0)
    images = 0
    with frozen(task):
        for batch in examined.batches("test", count):
            view, mask = task.look(batch, "test")
            images += len(mask)
            sums[""] += _error(examined, view, batch, mask)
            for name, (part, twin) in tries.items():
                holders = [indicators for indicators in told_things(task.encoder) if any(part is own for own in indicators)]
                before = [holder.twin for holder in holders]
                try:
                    for holder in holders:
                        holder.twin = Only(part, twin)
                    sums[name] += _error(examined, view, batch, mask)
                finally:
                    for holder, twin_before in zip(holders, before, strict=True):
                        holder.twin = twin_before
    everyone = examined.gathered((sums, images))
    total = sum(number for _, number in everyone)
    return {name: sum(part[name] for part, _ in everyone) / total for name in sums}


def _error(examined: Examined, view: View, batch: Any, mask: torch.Tensor) -> float:
    with examined.precision():
        prediction = examined.task(view)
    return examined.task.squared.per_image(prediction, batch.images, mask).double().sum().item()
