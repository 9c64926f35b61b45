"""What a network's gates let through at masked sites and at visible ones."""

from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from semconv.convolution import Amplitude, layer_of
from semconv.evaluation.features import Evaluated, frozen, in_precision
from semconv.indicators import masked_fraction

IMAGES = 512
EPSILON = 1e-9  # of the mean square: less is rounding, and the gate a constant


def gates(evaluated: Evaluated, count: int = IMAGES) -> dict[str, float]:
    """What each learned gate, the A(u) of a mechanism, is at masked and at visible sites, under masks of the training ratio.

    `mechanism/gate_masked/<layer>`, `mechanism/gate_visible/<layer>`: means over sites and channels; plain has 1 everywhere.
    `mechanism/gate_mask_r2/<layer>`: the share of the variance of A over sites, summed over channels, that lies between masked and
    visible sites: 0 where A does not depend on the mask, 1 where it depends on nothing else. A site that is masked in part counts
    as masked from a half on. What is not defined is left out: means of no site, the share of a constant.

    Args:
        evaluated: the network and its images.
        count: test images.

    Returns:
        Nothing for a network without such gates.
    """
    found: dict[str, Tensor] = {}  # by layer, `2 1+2c`: number of visible and of masked sites, sums and sums of squares over them
    masks: list[Tensor] = []  # of the batch

    def read(layer: str, amplitude: Amplitude, given: Any, passed: Tensor) -> None:
        masked = masked_fraction(masks[0], *passed.shape[2:]).flatten() >= 0.5
        passed = passed.expand(len(masks[0]), -1, -1, -1)  # of signals that are the same for all images there is one
        values = rearrange(passed, "b c h w -> (b h w) c").double() + amplitude.constant
        rows = torch.cat([torch.ones_like(values[:, :1]), values, values.square()], dim=1)
        found[layer] = found.get(layer, 0) + (torch.stack([~masked, masked]).to(rows) @ rows).cpu()

    hooks = [
        part.register_forward_hook(partial(read, layer_of(path)))
        for path, part in evaluated.encoder.named_modules()
        if isinstance(part, Amplitude)
    ]
    if not hooks:
        return {}
    try:
        with frozen(evaluated.encoder):
            for batch in evaluated.batches("test", count):
                view, mask = evaluated.task.look(batch, "probe")
                masks[:] = [mask]
                with evaluated.precision():
                    evaluated.encoder(in_precision(view, evaluated.task.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    everyone = evaluated.gathered(found)
    totals = {layer: sum(process[layer] for process in everyone if layer in process) for process in everyone for layer in process}
    return {key: value for layer, total in totals.items() for key, value in _described(layer, total).items()}


def _described(layer: str, totals: Tensor) -> dict[str, float]:
    counts, (sums, squares) = totals[:, 0], totals[:, 1:].unflatten(1, (2, -1)).unbind(1)
    means = sums / counts[:, None]
    results = {
        f"mechanism/gate_{name}/{layer}": mean.item()
        for name, mean, number in zip(("visible", "masked"), means.mean(1), counts, strict=True)
        if number
    }
    if len(results) == 2:
        middle = sums.sum(0) / counts.sum()
        total = squares.sum() - counts.sum() * middle.square().sum()
        between = (counts[:, None] * (means - middle).square()).sum()
        if total > EPSILON * squares.sum():
            results[f"mechanism/gate_mask_r2/{layer}"] = (between / total).item()
    return results
