"""Cost of a network: operations, images per second, memory."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from semconv.memory import peak_resident


class Throughput:
    """Images per second of training, without the first batches and without validation; devices are waited for only when read."""

    WARMUP = 5

    def __init__(self) -> None:
        self.images, self.seconds, self._batches = 0, 0.0, 0
        self._uncounted = 0  # images since `go_on`, whose seconds are not known yet
        self._since: float | None = None

    def count(self, images: int, device: torch.device) -> None:
        """A training batch is done."""
        self._batches += 1
        if self._batches == self.WARMUP:
            self._since = now(device)
        elif self._batches > self.WARMUP:
            self._uncounted += images

    def pause(self, device: torch.device) -> None:
        """Stop counting: training pauses."""
        if self._since is not None:
            self.seconds += now(device) - self._since
            self.images += self._uncounted
            self._uncounted, self._since = 0, None

    def go_on(self, device: torch.device) -> None:
        """Training goes on after `pause`."""
        if self._batches >= self.WARMUP:
            self._since = now(device)

    @property
    def rate(self) -> float | None:
        """Images per second until the last `pause`; None before."""
        return self.images / self.seconds if self.images else None


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode within; afterwards each module has the mode that it had before."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def count_flops(module: nn.Module, *inputs: Any) -> int:
    """Floating-point operations of one forward pass in evaluation mode; a multiply-add counts as two.

    Args:
        module: what is called.
        inputs: its arguments; tensors in them are moved to the module's device.
    """
    return _count(module, inputs, backward=False)


def count_training_flops(module: nn.Module, *inputs: Any) -> int:
    """Operations of a forward pass and of a backward pass to the gradients of all parameters; as `count_flops` otherwise."""
    return _count(module, inputs, backward=True)


def flops_per_image(count: Callable[..., int], module: nn.Module, inputs: Sequence[Any], batch_size: int) -> float:
    """Operations for one image in a batch, of which some, as those of position, are done once for the whole batch.

    Operations are a fixed number and a number for each image, so that counts of one and of two images give those of any batch.

    Args:
        count: `count_flops` or `count_training_flops`.
        module: what is called.
        inputs: its arguments for one image; all tensors in them have a batch axis first.
        batch_size: images in the batch.
    """
    one = count(module, *inputs)
    two = count(module, *tree_map_only(torch.Tensor, lambda tensor: torch.cat([tensor, tensor]), tuple(inputs)))
    return (two - one) + (2 * one - two) / batch_size


def _count(module: nn.Module, inputs: tuple[Any, ...], backward: bool) -> int:
    inputs = tree_map_only(torch.Tensor, lambda tensor: tensor.to(_device(module)), inputs)
    backward = backward and any(parameter.requires_grad for parameter in module.parameters())
    # attention is counted in the plain kernel, whose operations the counter knows on every device; what is compiled, uncompiled
    with (
        torch.set_grad_enabled(backward),
        torch.compiler.set_stance("force_eager"),
        sdpa_kernel(SDPBackend.MATH),
        evaluation_mode(module),
        FlopCounterMode(display=False, custom_mapping=_MAPPING) as counter,
    ):
        answer = module(*inputs)
        if backward:
            parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
            total = sum(leaf.float().square().mean() for leaf in tree_leaves(answer) if getattr(leaf, "requires_grad", False))
            torch.autograd.grad(total, parameters, allow_unused=True)
    return counter.get_total_flops()


def inference_rate(module: Any, batch: Any, data: Any, precision: Callable[[], Any], rounds: int = 5) -> float:
    """Images per second that a task predicts, in evaluation mode on its device: the median of some rounds after two of warm-up.

    Args:
        module: a task with `look`.
        batch: of images as they are loaded.
        data: prepares it on the device.
        precision: context in which the task is called.
        rounds: how often it is measured.
    """
    device = _device(module)
    batch = data.on_after_batch_transfer(tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), batch), 0)
    view, _ = module.look(batch, "test")
    with evaluation_mode(module), torch.no_grad(), precision():
        seconds = step_seconds(lambda: module(view), device, rounds)
    return len(batch.images) / seconds


def saved_bytes(compute: Callable[[], torch.Tensor], module: nn.Module) -> int:
    """Bytes that a forward pass keeps for its backward pass, without the parameters.

    Args:
        compute: the forward pass.
        module: holds the parameters.
    """
    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = compute()  # held, so that no storage is freed and its address used again
    size = sum(bytes for address, bytes in kept.items() if address not in own)
    del loss
    return size


def step_seconds(step: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Seconds of a step: the median of some rounds after two of warm-up."""
    seconds = []
    for _ in range(rounds + 2):
        begin = now(device)
        step()
        seconds.append(now(device) - begin)
    return statistics.median(seconds[2:])


def _convolution_backward(
    gradient: Sequence[int], x: Sequence[int], weight: Sequence[int], *others: Any, out_shape: Any = None, **options: Any
) -> int:
    """Operations for the gradients of input and weight, each of which takes as many as the convolution: torch's own count takes no
    notice of groups."""
    for_input, for_weight, _ = others[-1]
    is_transposed = others[4]
    return 2 * math.prod(x if is_transposed else gradient) * math.prod(weight[1:]) * (for_input + for_weight)


_MAPPING: dict[Any, Any] = {torch.ops.aten.convolution_backward: _convolution_backward}


def _device(module: nn.Module) -> torch.device:
    parameter = next(module.parameters(), None)
    return parameter.device if parameter is not None else getattr(module, "device", torch.device("cpu"))


def peak_memory(device: torch.device) -> int:
    """Bytes held at most: by the allocator of a CUDA device, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident()


def now(device: torch.device) -> float:
    """Seconds on the clock, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def count_images(batch: Any) -> int:
    """Number of images in a batch of any form: the length of its first tensor."""
    return len(next(leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor)))
