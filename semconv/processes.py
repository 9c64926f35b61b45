"""Values of all processes of a run that is spread over several devices."""

from typing import TypeVar

import torch

T = TypeVar("T")


def all_gather(value: T, world_size: int) -> list[T]:
    """The values of all processes, in the order of their ranks, on each of them.

    Args:
        value: this process's; any object that can be pickled.
        world_size: number of processes; with one, nothing is sent.
    """
    everyone = [value] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(everyone, value)
    return everyone
