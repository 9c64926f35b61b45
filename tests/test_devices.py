"""Training steps that never wait for a GPU and whose shapes are fixed: on the CPU as far as can be shown there."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from semconv.callbacks import Divergence, Dynamics
from semconv.corruption import Bert, CamouflageFill, Hide, MeanFill, Noise, NoiseFill
from semconv.data import Batch
from semconv.hashing import make_keys
from semconv.masking import MASKERS
from semconv.tasks import MaskedReconstruction
from tests.experiments import all_experiments, built, every_experiment, make_task

ATEN: Any = torch.ops.aten
# what hands a value, or a shape that depends on values, to Python: a GPU would be waited for
READS = {ATEN._local_scalar_dense, ATEN.is_nonzero, ATEN.nonzero, ATEN.masked_select, ATEN.equal, ATEN._unique2, ATEN.bincount}


# what brings numbers of Python onto a device: a copy, which waits
COPIES = {torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, Tensor.new_tensor}


class Copies(TorchFunctionMode):
    """Notes the calls that copy numbers of Python, which the dispatcher does not show on the meta device."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in COPIES and not isinstance(args[-1], Tensor):
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Watch(TorchDispatchMode):
    """Notes the operators of a step on the meta device, whose tensors have no values, that would wait for a GPU.

    These are the operators that read a value, index by a mask, or take, make or copy a tensor of the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        place = kwargs.get("device")
        by_mask = func.overloadpacket is ATEN.index and any(index is not None and index.dtype == torch.bool for index in args[1])
        elsewhere = place is not None and torch.device(place).type != "meta"
        noted = func.overloadpacket in READS or by_mask or elsewhere or _off_device((args, kwargs))
        if noted:
            self.found.append(str(func))
        made = func(*args, **kwargs)
        if not noted and _off_device(made):
            self.found.append(str(func))
        return made


def _off_device(values: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.device.type != "meta" for leaf in tree_leaves(values))


def waits(step: Callable[[], Any]) -> list[str]:
    """The operators of a step that would wait for a GPU. The first of them may end the step: there is no value to give."""
    with Watch() as watch, Copies(watch.found):
        try:
            step()
        except (RuntimeError, NotImplementedError):
            if not watch.found:
                raise
    return watch.found


def draw_batch(task: MaskedReconstruction, device: str, count: int = 2) -> Batch:
    """A training batch as it arrives on a device, to be cropped and flipped there."""
    height, width = task.geometry.size
    box = torch.tensor([1, 2, height - 2, width - 3])
    return Batch(
        torch.arange(count * task.geometry.channels * height * width, dtype=torch.uint8)
        .view(count, task.geometry.channels, height, width)
        .to(device),
        *(torch.arange(count, device=device),) * 2,
        boxes=box.expand(count, 4).to(device),
        flipped=(torch.arange(count) % 2 == 0).to(device),
        frame=torch.zeros(count, 5, device=device),
    )


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks without a trainer, who would log to it."""
    monkeypatch.setattr(MaskedReconstruction, "log", lambda self, *_, **__: None)


@pytest.mark.parametrize(
    ("step", "operator"),
    [
        (lambda x: x.sum().item(), "aten._local_scalar_dense.default"),
        (lambda x: 1 if x.sum() > 0 else 2, "aten._local_scalar_dense.default"),
        (lambda x: x[x > 0], "aten.index.Tensor"),
        (lambda x: x.cpu(), "aten._to_copy.default"),
        (lambda x: x + torch.zeros(3), "aten.zeros.default"),
        (lambda x: x + torch.tensor([1, 2, 3], device="meta"), "tensor"),
    ],
    ids=["item", "branch", "boolean index", "copy", "CPU tensor", "copied constant"],
)
def test_what_would_wait_is_found(step, operator):
    assert waits(lambda: step(torch.ones(3, device="meta")))[0] == operator


@all_experiments
def test_a_training_step_reads_no_value_and_leaves_its_device_never(name, silent):
    task = make_task(name).train().to("meta")
    batch = draw_batch(task, "meta")._replace(images=torch.zeros(2, task.geometry.channels, *task.geometry.size, device="meta"))

    def step() -> None:
        task.on_train_batch_start(batch, 0)
        task.training_step(batch, 0).backward()

    assert waits(step) == []


def test_what_stands_beside_the_network_in_a_step_reads_no_value_either(silent):
    """Crops, maskers, corruptions, clipping and what runs record: at a step that is logged, at the end of none."""
    task = make_task("cnn_gradual").train().to("meta")
    data, batch = built("cnn_gradual").datamodule, draw_batch(task, "meta")
    optimizer = torch.optim.SGD(task.parameters())
    trainer: Any = SimpleNamespace(
        optimizers=[optimizer],
        precision_plugin=SimpleNamespace(scaler=None),
        strategy=SimpleNamespace(root_device=torch.device("meta")),
        current_epoch=0,
        global_step=9,
        log_every_n_steps=10,
        is_last_batch=False,
        world_size=1,
    )
    callbacks: list[Any] = [Divergence(), Dynamics()]
    for parameter in task.parameters():
        parameter.grad = torch.zeros_like(parameter)
    keys, count = make_keys(0, batch.index), task.masker.count(task.num_cells)

    def step() -> None:
        images = data.on_after_batch_transfer(batch).images
        for kind in MASKERS:
            mask = kind(0.5)(keys, task.geometry.grid, count)
            for corruption in (Hide(MeanFill()), Hide(NoiseFill()), Noise(), Bert(CamouflageFill())):
                corruption(images, mask, count, keys)
        for callback in callbacks:
            if isinstance(callback, Divergence):
                callback.on_train_batch_start(trainer, task, batch, 0)
            callback.on_before_optimizer_step(trainer, task, optimizer)
            callback.on_train_batch_end(trainer, task, images.sum(), batch, 0)
        nn.utils.clip_grad_norm_(task.parameters(), 5.0)

    step()  # the first one makes constants, of which each device keeps a copy
    assert waits(step) == []


@pytest.mark.slow
@every_experiment
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_a_training_step_is_one_graph_of_fixed_shapes(name, silent):
    """So that a compiler may record it once: no break, and no second graph for other images, masks and steps."""
    from torch._dynamo.testing import CompileCounter  # an import of seconds

    task = make_task(name).train()
    torch._dynamo.reset()  # of other variants
    counter = CompileCounter()

    def compute(batch: Batch) -> Tensor:
        view, mask = task.look(batch, "test")
        return forward(view, batch.images, mask)

    forward = torch.compile(lambda view, images, mask: task.objective(task(view), images, mask), backend=counter, fullgraph=True)
    batch = built(name).datamodule.on_after_batch_transfer(draw_batch(task, "cpu"))
    task(task.look(batch, "test")[0])  # einops remembers torch at its first call, for which a graph would be made anew
    for number in range(3):
        compute(batch._replace(index=batch.index + 10 * number, images=batch.images * (1 + number))).backward()
    assert counter.frame_count == 1


@pytest.mark.gpu
@every_experiment
def test_a_training_step_never_waits_for_the_gpu(name, silent):
    task = make_task(name).train().cuda()
    data, batch = built(name).datamodule, draw_batch(task, "cuda")
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        given = data.on_after_batch_transfer(batch)
        task.on_train_batch_start(given, 0)
        task.training_step(given, 0).backward()
        nn.utils.clip_grad_norm_(task.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(2):  # the first ones may wait while libraries are loaded and constants are copied
        step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
