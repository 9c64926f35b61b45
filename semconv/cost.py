"""What a network costs: operations, images per second, memory."""

import resource
import sys
import time
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode


class Throughput:
    """Images per second of training, without the first batches and without validation; devices are waited for only when read."""

    WARMUP = 5

    def __init__(self) -> None:
        self.images, self.seconds, self._batches = 0, 0.0, 0
        self._since: float | None = None

    def count(self, images: int, device: torch.device) -> None:
        """A training batch is done."""
        self._batches += 1
        if self._batches == self.WARMUP:
            self._since = _now(device)
        elif self._batches > self.WARMUP:
            self.images += images

    def pause(self, device: torch.device) -> None:
        """What follows is not training."""
        if self._since is not None:
            self.seconds += _now(device) - self._since
            self._since = None

    def go_on(self, device: torch.device) -> None:
        """Training goes on after `pause`."""
        if self._batches >= self.WARMUP:
            self._since = _now(device)

    @property
    def rate(self) -> float | None:
        """Images per second until the last `pause`; None before."""
        return self.images / self.seconds if self.seconds else None


def count_flops(module: nn.Module, *inputs: Any) -> int:
    """Floating-point operations of one forward pass in evaluation mode; a multiply-add counts as two.

    Args:
        module: what is called.
        inputs: its arguments; tensors in them are moved to the module's device.
    """
    device = next(module.parameters()).device
    inputs = tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), inputs)
    training = module.training
    module.eval()
    # attention is counted in the plain kernel, whose operations the counter knows on every device; what is compiled, uncompiled
    with (
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        module(*inputs)
    module.train(training)
    return counter.get_total_flops()


def peak_memory(device: torch.device) -> int:
    """Bytes held at most: by the allocator of a CUDA device, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
