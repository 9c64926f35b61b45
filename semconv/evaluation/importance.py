"""Permutation importance of each indicator of a trained network (Breiman, 2001)."""

from typing import Any

import torch

from semconv.controls import Fixed, Only, Shuffled, Zero, find_indicators
from semconv.corruption import View
from semconv.evaluation.features import Evaluated, absent, frozen
from semconv.indicators import Control, Indicator

IMAGES = 512


def importance(evaluated: Evaluated, count: int = IMAGES) -> dict[str, Any]:
    """Growth of `test/masked_mse` when the signals of one indicator are replaced.

    `importance/<indicator>/zeroed`, `/shuffled` (over the batch) and, of indicators of the mask, `/another_mask` (one image's, for
    all). Masks, images and everything else stay as they are, so that a control keeps its other signals.

    Args:
        evaluated: the network and its images.
        count: test images.
    """
    parts = [part for indicators in find_indicators(evaluated.task.encoder) for part in indicators]
    if not parts:
        return absent("the network has no indicators", "importance")
    substitutes: dict[str, Control] = {"zeroed": Zero(), "shuffled": Shuffled(), "another_mask": Fixed(evaluated.task.masker)}
    tries: dict[str, tuple[Indicator, Control]] = {
        f"importance/{name}/{how}": (part, control)
        for name, part in _named(parts)
        for how, control in substitutes.items()
        if how != "another_mask" or part.conveys == "mask"
    }
    whole = _errors(evaluated, count, tries)
    intact = whole.pop("")
    return {key: error - intact for key, error in whole.items()}


def _named(parts: list[Indicator]) -> list[tuple[str, Indicator]]:
    """Indicators by the names of their classes, several of one class numbered."""
    names = [type(part).__name__ for part in parts]
    return [
        (name if names.count(name) == 1 else f"{name}_{names[:number].count(name)}", part)
        for number, (name, part) in enumerate(zip(names, parts, strict=True))
    ]


def _errors(evaluated: Evaluated, count: int, tries: dict[str, tuple[Indicator, Control]]) -> dict[str, float]:
    """Mean error over the images, under each substitution and, by an empty name, under none."""
    task = evaluated.task
    sums = dict.fromkeys(["", *tries], 0.0)
    images = 0
    with frozen(task):
        for batch in evaluated.batches("test", count):
            view, mask = task.look(batch, "test")
            images += len(mask)
            sums[""] += _error(evaluated, view, batch, mask)
            for name, (part, control) in tries.items():
                holders = [indicators for indicators in find_indicators(task.encoder) if any(part is own for own in indicators)]
                before = [holder.control for holder in holders]
                try:
                    for holder in holders:
                        holder.control = Only(part, control, otherwise=holder.control)
                    sums[name] += _error(evaluated, view, batch, mask)
                finally:
                    for holder, control_before in zip(holders, before, strict=True):
                        holder.control = control_before
    everyone = evaluated.gathered((sums, images))
    total = sum(number for _, number in everyone)
    return {name: sum(part[name] for part, _ in everyone) / total for name in sums}


def _error(evaluated: Evaluated, view: View, batch: Any, mask: torch.Tensor) -> float:
    with evaluated.precision():
        prediction = evaluated.task(view)
    return evaluated.task.squared.per_image(prediction, batch.images, mask).double().sum().item()
