"""Weights, gradients and the state of the optimiser in shards over the processes of a run: torch's FSDP2."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from semconv.processes import gathered


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the parts of a model that have weights, and in them each of their `blocks`; once.

    Args:
        model: the model.
        mesh: the processes, in one dimension.
    """
    for part in model.children():
        if isinstance(part, FSDPModule) or not any(True for _ in part.parameters()):
            continue
        for module in part.modules():
            for block in getattr(module, "blocks", ()):
                fully_shard(block, mesh=mesh)
        fully_shard(part, mesh=mesh)


class FullySharded(ModelParallelStrategy):
    """Trains a task whose weights are sharded over all processes (Lightning's name: fsdp2).

    Each part of the network is gathered while it is computed, and all of them while a stage is evaluated. Checkpoints are those of
    a run on one device, and resume on any number of devices.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        assert self.model is not None
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=strict)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=options)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The state as an optimiser of whole weights has it; all processes must call it, and the first has it."""
        state = tree_map_only(DTensor, lambda tensor: gathered(tensor).cpu(), optimizer.state_dict())
        return state if self.is_global_zero else {}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            shards = {
                number: {name: _shard_like(parameters[number], value) for name, value in values.items()}
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": shards})

    def on_validation_start(self) -> None:
        self._gather()

    def on_validation_end(self) -> None:
        self._release()

    def on_test_start(self) -> None:
        self._gather()

    def on_test_end(self) -> None:
        self._release()

    def on_predict_start(self) -> None:
        self._gather()

    def on_predict_end(self) -> None:
        self._release()

    def _gather(self) -> None:
        """Make all weights whole, so that one process alone may compute, as for pictures; statistics are the first process's."""
        assert self.model is not None
        with torch.inference_mode(False), torch.no_grad():  # training continues with the same tensors
            for part in self._parts:
                part.set_reshard_after_forward(False, recurse=False)
                part.unshard()
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def _release(self) -> None:
        for part in self._parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()

    @property
    def _parts(self) -> list[FSDPModule]:
        assert self.model is not None
        return [module for module in self.model.modules() if isinstance(module, FSDPModule)]


def _shard_like(parameter: Tensor, value: Any) -> Any:
    """A value of the optimiser's state, sharded as its parameter if it has its shape."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value


StrategyRegistry.register("fsdp2", FullySharded, description=FullySharded.__doc__)
