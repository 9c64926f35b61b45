"""The number of batches that a trainer's options ask for."""

from collections.abc import Mapping
from typing import Any


def batches_of(trainer: Mapping[str, Any], batches: int) -> int | None:
    """Count the batches of a whole training, as Lightning does; a limit of time may end it earlier.

    Args:
        trainer: options of a trainer.
        batches: of an epoch, once the data are limited.

    Returns:
        None for a training without an end.
    """
    epochs, steps, accumulated = (trainer.get(name) for name in ("max_epochs", "max_steps", "accumulate_grad_batches"))
    accumulated = accumulated or 1
    ends = [batches * epochs] if epochs is not None and epochs >= 0 else []
    if steps is not None and steps >= 0:
        whole, rest = divmod(steps, -(-batches // accumulated))  # the last step of an epoch may have fewer batches
        ends.append(whole * batches + min(rest * accumulated, batches))
    return min(ends, default=None)


def limited(trainer: Mapping[str, Any], batches: int) -> int:
    """Limit the batches of an epoch.

    Args:
        trainer: options of a trainer, each a number of batches or a share of them.
        batches: of an epoch of all images.
    """
    for name in ("limit_train_batches", "overfit_batches"):
        limit = trainer.get(name)
        if limit is not None and (limit or name != "overfit_batches"):
            batches = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
    return batches
