"""Optimisers, their parameter groups, and the learning rate's course."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from timm.layers.grn import GlobalResponseNorm
from timm.scheduler.plateau_lr import PlateauLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from semconv.configuration import one_line, require

# called with groups of parameters and a rate, which the protocol gives
OptimizerFactory = Callable[[list[dict[str, Any]], float], Optimizer]
ScheduleFactory = Callable[[Optimizer], LRScheduler | Scheduler]

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, GlobalResponseNorm)


def check_schedule(base_lr: float, warmup: float, weight_decay: float, betas: Sequence[float], min_lr: float = 0.0) -> None:
    """Refuse settings with which nothing can be learned.

    Raises:
        ValueError: one is out of its range.
    """
    require("base_lr", base_lr, 0, exclude="low")
    require("min_lr", min_lr, 0, base_lr)
    require("warmup", warmup, 0, 1)
    require("weight_decay", weight_decay, 0)
    for beta in betas:
        require("betas", beta, 0, 1, exclude="high")


def parameter_groups(model: nn.Module, weight_decay: float, decay_tokens: bool) -> list[dict[str, Any]]:
    """Split trainable parameters into those whose weights decay and those that do not: norms, biases and tokens.

    A norm is known by its class, or by a weight of one dimension. A token is a parameter that a module holds beside its layers, as
    a class token, a mask token or an embedding table. MAE's reference decays tokens, being of three dimensions, and no parameter of
    one; `decay_tokens` does likewise.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            is_token = not name.endswith("weight")  # attention of torch has an in_proj_weight
            exempt = isinstance(module, NORMS) or name == "bias" or parameter.ndim <= 1 or (is_token and not decay_tokens)
            (kept if exempt else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def warmup_cosine(step: int, total: int, warmup: float, floor: float) -> float:
    """The learning rate at an optimiser step, as a share of its peak: up from 0 in a line, then down half a cosine.

    Args:
        step: optimiser steps done.
        total: optimiser steps of the whole run.
        warmup: share of the steps in which the rate rises.
        floor: share of the peak at the end.
    """
    rise = warmup * total
    if step < rise:
        return step / rise
    progress = min(1.0, (step - rise) / max(1.0, total - rise))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(factory: OptimizerFactory, groups: list[dict[str, Any]], rate: float) -> Optimizer:
    """An optimiser of a class of torch or timm.

    Args:
        factory: makes it, from groups of parameters and a learning rate.
        groups: see `parameter_groups`; their weight decay is the protocol's.
        rate: learning rate.

    Raises:
        ValueError: it cannot be built so, or has another weight decay, or none where one is asked for.
    """
    try:
        optimizer = factory(groups, rate)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"model.optimizer cannot be built: {one_line(error, 200)}: correct its arguments, or choose another"
        ) from error
    known = inspect.signature(type(optimizer)).parameters.get("weight_decay")
    given = optimizer.defaults.get("weight_decay")
    if given is None and any(group["weight_decay"] for group in groups):
        raise ValueError(
            f"model.optimizer {type(optimizer).__name__} has no weight decay: give model.weight_decay 0, or another one"
        )
    if known is not None and given != known.default:
        raise ValueError(
            f"model.optimizer.weight_decay is {given}: give model.weight_decay, which leaves out norms, biases and tokens"
        )
    return optimizer


def build_schedule(factory: ScheduleFactory, optimizer: Optimizer) -> LRScheduler | Scheduler:
    """A schedule of a class of torch or timm, which takes a step with each step of the optimiser.

    Raises:
        ValueError: it cannot be built so, follows a metric, or ignores the optimiser's rate.
    """
    try:
        schedule = factory(optimizer)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"model.schedule cannot be built: {one_line(error, 200)}: correct its arguments, or choose another"
        ) from error
    for kinds, why in (
        ((ReduceLROnPlateau, PlateauLRScheduler), "follows a metric: choose a schedule of steps"),
        ((CyclicLR, OneCycleLR), "sets a rate of its own: choose one that follows base_lr"),
    ):
        if isinstance(schedule, kinds):
            raise ValueError(f"model.schedule is {type(schedule).__name__}, which {why}")
    return schedule


def advance(schedule: LRScheduler | Scheduler, steps: int) -> None:
    """Set the rate that follows after `steps` steps of the optimiser."""
    if isinstance(schedule, Scheduler):  # of the two, one does nothing: steps stand for the epochs of timm's
        schedule.step(steps)
        schedule.step_update(steps)
    else:
        schedule.step()
