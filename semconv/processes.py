"""Values from all processes of a distributed run."""

from typing import TypeVar

import torch

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
