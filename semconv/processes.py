"""Values from all processes of a distributed run."""

from typing import TypeVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

T = TypeVar("T")


def all_gather(value: T, world_size: int) -> list[T]:
    """Gather the values of all processes, in the order of their ranks, on each process.

    Args:
        value: the value of this process: any object that can be pickled.
        world_size: number of processes; with one, nothing is sent.
    """
    everyone = [value] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(everyone, value)
    return everyone


def gathered(value: Tensor) -> Tensor:
    """A tensor whose parts lie on several processes, as a whole on each; all processes must call it. Others are as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value
