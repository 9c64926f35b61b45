"""Check that no hidden pixel reaches the prediction or the features."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from semconv.checks.zeros import draw_zeros
from semconv.corruption import CamouflageFill, Corruption, Fill, Hide, MeanFill, NoiseFill, View, ZeroFill
from semconv.data import Batch, ImageData
from semconv.indicators import masked_fraction
from semconv.masking import MASKERS, Masker, RandomMasker, spread_mask
from semconv.objective import Objective
from semconv.tasks import MaskedReconstruction, Stage

EVALUATION: tuple[Stage, ...] = ("test", "val", "probe")
BATCHES = (2, 8, 1, 3)
FILLS: tuple[Fill, ...] = (ZeroFill(), CamouflageFill(), MeanFill(), NoiseFill())

Outputs = list[tuple[str, list[Tensor]]]  # what modules gave, in the order in which they were done, by path


class Leak(NamedTuple):
    """A way in which hidden pixels get out."""

    what: str  # prediction or features
    by: str  # content, NaN or gradient
    layer: str  # path of the first module that lets them out
    view: bool  # whether the view differs already: then the corruption, or what comes before it, shows them


class Circumstances(NamedTuple):
    """The circumstances of one test."""

    stage: Stage = "test"  # train makes a training step; in every other stage the task looks and predicts
    epoch: int = 0  # of training
    bf16: bool = False  # the network computes in bfloat16, by autocast
    images: int = 2  # in the batch
    trainer: bool = False  # the task has a trainer, as in a run

    @property
    def training(self) -> bool:
        return self.stage == "train"

    def __str__(self) -> str:
        epoch = f" of epoch {self.epoch}" if self.training else ""
        return f"{self.stage}{epoch}, {self.images} image{'s' * (self.images > 1)}, {'bf16' if self.bf16 else 'fp32'}"


class Case(NamedTuple):
    """One way of hiding, and what was found under it."""

    masker: str
    corruption: str
    circumstances: Circumstances
    leak: Leak | None


def check_leakage(task: MaskedReconstruction, data: ImageData | None = None) -> Iterator[Case]:
    """Look for leaks under all maskers and fills and the task's own, in every stage.

    Images are drawn at random. What starts at zero is drawn too, in a copy: a leak through it would else show after training only.
    Number of images, precision, epoch and stage change from case to case, so that each is met in training and in evaluation; mask
    ratios of .05 and .95 and an odd number of cells come on top.

    Args:
        task: the experiment's.
        data: whose transfer of batches to the device is tested too: it must not mix pixels.
    """
    task = deepcopy(task).float().cpu()
    draw_zeros(task)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(max(BATCHES), task.geometry.channels, *task.geometry.size, generator=generator)
    if data is not None:
        yield Case(type(task.masker).__name__, "data module", Circumstances(images=4), find_mixing(task, data))
    hiding = corruptions(task)
    own, *others = ((type(masker).__name__, masker, hiding) for masker in maskers(task))
    rare = ((f"RandomMasker {ratio:.2g}", RandomMasker(ratio), hiding[:1]) for ratio in _ratios(task.num_cells))
    ways = [(name, masker, corruption) for name, masker, each in (own, *rare, *others) for corruption in each]
    for number, (name, masker, corruption) in enumerate(ways):
        for stage in (EVALUATION[number % len(EVALUATION)], "train"):
            batch = BATCHES[number % len(BATCHES)]
            circumstances = Circumstances(stage, number // 4 % 2, bool(number // 2 % 2), batch, number % 3 > 0)
            yield Case(name, name_of(corruption), circumstances, find_leak(task, images[:batch], masker, corruption, circumstances))


def find_leak(
    task: MaskedReconstruction, images: Tensor, masker: Masker, corruption: Corruption, circumstances: Circumstances | None = None
) -> Leak | None:
    """Find the way in which a hidden pixel of some images gets to the features or the prediction, if any does.

    Their content is replaced, by other numbers and by NaN, and so is that of a map that comes with the images, unless the network
    is said to know it: nothing may change by a bit. And the gradient of what comes out with respect to hidden pixels must be
    exactly 0. Hidden are the chosen cells, unless the corruption says that it does not hide all of them (`hides_chosen`), and
    what the view calls masked. The task is as before afterwards.

    Args:
        task: what predicts.
        images: `b c h w`, without NaN.
        masker: draws the masks.
        corruption: hides the cells; one that lets them be seen (`hides` is false) cannot be checked.
        circumstances: the circumstances; None: those of testing.
    """
    circumstances = circumstances or Circumstances()
    with _as_it_was(task), _replaced(task, masker=masker, corruption=corruption, **_surroundings(circumstances)):
        task.train(circumstances.training)
        run = partial(_run, task, circumstances)
        batch = _batch(images)
        view, chosen = task.look(batch, circumstances.stage)
        hidden = spread_mask(chosen | view.mask if corruption.hides_chosen else view.mask, task.geometry.size)
        others = {by: _batch(torch.where(hidden, value, images)) for by, value in (("content", 5.0), ("NaN", math.nan))}
        if "oracle" not in task.encoder.conveys:
            others["map"] = batch._replace(external=hidden.to(images.dtype))
        watched = {"encoder": task.encoder, "decoder": task.decoder, "": task}
        found = _find_change(batch, hidden, others, partial(run, watched=watched))
        if found is None:
            return None
        path, by = found
        modules = dict(_layers(task))
        layer = _first_layer(view, batch, hidden, others.get(by), partial(run, watched=modules)) or path or "forward"
        differs = any(not _same([view.pixels], [task.look(other, circumstances.stage)[0].pixels]) for other in others.values())
        return Leak("features" if path == "encoder" else "prediction", by, layer, differs)


def find_mixing(task: MaskedReconstruction, data: ImageData) -> Leak | None:
    """Find out whether the transfer of a batch to the device lets hidden pixels change visible ones.

    Args:
        task: draws the masks.
        data: the data module of the experiment; its transfer normalises, and may crop and flip in training.
    """
    generator = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (4, task.geometry.channels, *task.geometry.size), generator=generator).to(torch.uint8)
    for stage in EVALUATION:  # in training a transfer may crop and flip: then hidden pixels are elsewhere afterwards
        before = _transfer(data, _batch(raw), stage)
        hidden = spread_mask(task.look(before[-1][1], "test")[1], task.geometry.size)
        after = _transfer(data, _batch(torch.where(hidden, 255 - raw, raw)), stage)
        for (hook, one), (_, other) in zip(before, after, strict=True):
            seen = [torch.where(hidden, 0, batch.images) for batch in (one, other)]
            if not _same(seen[:1], seen[1:]):
                return Leak("features", "content", f"{type(data).__name__}.{hook}", view=True)
    return None


def _transfer(data: ImageData, batch: Batch, stage: Stage) -> list[tuple[str, Batch]]:
    """The batch after each hook of its transfer to the device, with the same draws every time."""
    steps = []
    with _replaced(data, trainer=_trainer_in(Circumstances(stage))), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for hook in ("on_before_batch_transfer", "on_after_batch_transfer"):
            batch = getattr(data, hook)(batch, 0)
            steps.append((hook, batch))
    return steps


def _ratios(cells: int) -> list[float]:
    """Mask ratios near the ends, and one that hides an odd number of cells."""
    odd = cells // 2 + 1 - cells // 2 % 2
    counts = {max(1, round(0.05 * cells)), min(cells - 1, round(0.95 * cells)), odd}
    return [count / cells for count in sorted(counts) if 0 < count < cells]


def _surroundings(circumstances: Circumstances) -> dict[str, Any]:
    """What a task has around it in a run: a trainer at some epoch; nothing is logged."""
    silent: dict[str, Any] = dict.fromkeys(("log", "log_dict"), lambda *_, **__: None)
    if not circumstances.trainer:
        return silent
    return {**silent, "_trainer": _trainer_in(circumstances)}


def _trainer_in(circumstances: Circumstances) -> Trainer:
    trainer = _trainer()
    trainer.fit_loop.epoch_progress.current.completed = circumstances.epoch
    trainer.state.fn = TrainerFn.FITTING if circumstances.stage in ("train", "val") else TrainerFn.TESTING
    trainer.state.stage = {"train": RunningStage.TRAINING, "val": RunningStage.VALIDATING}.get(
        circumstances.stage, RunningStage.TESTING
    )
    return trainer


@cache
def _trainer() -> Trainer:
    """One for all circumstances: to make one takes longer than to look for a leak in a small network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
        )


def maskers(task: MaskedReconstruction) -> list[Masker]:
    """The task's own, and every other kind that hides some of its cells and not all."""
    chosen = [task.masker]
    for masker in (kind() for kind in MASKERS):
        count = round(masker.high * task.num_cells)
        if type(masker) is not type(task.masker) and 0 < count < task.num_cells:
            chosen.append(masker)
    return chosen


def corruptions(task: MaskedReconstruction) -> list[Corruption]:
    """Hiding under every fill, and the task's own corruption where that is another one which hides."""
    hiding: list[Corruption] = [Hide(fill) for fill in FILLS]
    own = task.corruption
    known = type(own) is Hide and type(own.fill) in map(type, FILLS)
    return hiding if not own.hides or known else [own, *hiding]


def name_of(corruption: Corruption) -> str:
    """The class of a corruption, or of the fill by which it hides; with its module if it is not of semconv."""
    kind = type(corruption.fill if type(corruption) is Hide else corruption)
    return kind.__name__ if kind.__module__.startswith("semconv.") else f"{kind.__module__}.{kind.__name__}"


def _find_change(batch: Batch, hidden: Tensor, others: dict[str, Batch], run: Any) -> tuple[str, str] | None:
    """Find the watched module that changes with what is hidden, and by what; None: none does."""
    leaf = batch.images.clone().requires_grad_()
    reference: Outputs = run(batch._replace(images=leaf))
    for by, content in others.items():
        for (path, before), (_, after) in zip(reference, run(content), strict=True):
            if not _same(before, after):
                return path, by
    for path, outputs in reference:
        if _reached_by_gradient(outputs, leaf, hidden):
            return path, "gradient"
    return None


def _first_layer(view: View, batch: Batch, hidden: Tensor, other: Batch | None, run: Any) -> str | None:
    """The first layer that differs where something is visible.

    What differs at masked sites alone may still be masked away, as after a stem of separate patches; it counts if nothing else
    differs.
    """
    leaf = batch.images.clone().requires_grad_()
    before: Outputs = run(batch._replace(images=leaf))
    after = before if other is None else run(other)
    at_masked = None
    for (path, outputs), (_, changed) in zip(before, after, strict=True):
        seen = [_where_visible(output, view) for output in outputs]
        seen_changed = [_where_visible(output, view) for output in changed]
        if _reached_by_gradient(seen, leaf, hidden) if other is None else not _same(seen, seen_changed):
            return path
        if at_masked is None and other is not None and not _same(outputs, changed):
            at_masked = path
    return at_masked


def _where_visible(output: Tensor, view: View) -> Tensor:
    """A map with zeros at all sites that are wholly masked; what is no map stays as it is."""
    if output.dim() != 4 or len(output) != len(view.mask):
        return output
    return torch.where(masked_fraction(view.mask, output.shape[2], output.shape[3]) == 1, 0, output)


def _reached_by_gradient(outputs: list[Tensor], images: Tensor, hidden: Tensor) -> bool:
    parts = [output.square().sum() for output in outputs if output.requires_grad]
    if not parts:
        return False
    (gradient,) = torch.autograd.grad(torch.stack(parts).sum(), images, retain_graph=True, allow_unused=True)
    return gradient is not None and not bool((gradient.masked_select(hidden) == 0).all())


def _same(before: list[Tensor], after: list[Tensor]) -> bool:
    """Equal bit by bit, NaN where NaN was before."""
    return len(before) == len(after) and all(
        a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all()) for a, b in zip(before, after, strict=True)
    )


def _layers(task: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules that compute, but for those that are given the truth: objectives and metrics."""
    for path, module in task.named_modules():
        if path and not isinstance(module, Objective | Metric | nn.Identity):
            yield path, module


def _run(task: MaskedReconstruction, circumstances: Circumstances, batch: Batch, watched: dict[str, nn.Module]) -> Outputs:
    """Outputs of modules in one step of evaluation or training, from the same state and with the same draws every time."""
    outputs: Outputs = []

    def keep(path: str, module: nn.Module, _: Any, output: Any) -> None:
        outputs.append((path, [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]))

    with ExitStack() as stack:
        stack.enter_context(_as_it_was(task))
        stack.enter_context(torch.set_grad_enabled(batch.images.requires_grad))
        for path, module in watched.items():
            stack.callback(module.register_forward_hook(partial(keep, path)).remove)
            stack.enter_context(_replaced(module, **_recording(module, partial(keep, path))))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        if circumstances.bf16:
            stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        torch.manual_seed(0)
        if circumstances.training:
            task.training_step(batch, 0)
        else:
            task(task.look(batch, circumstances.stage)[0])
    if circumstances.training and not outputs:
        raise ValueError(
            f"{type(task).__name__}.training_step runs neither its encoder nor its decoder, so that nothing is checked: call them"
        )
    return outputs


def _recording(module: nn.Module, keep: Callable[..., None]) -> dict[str, Callable[..., Any]]:
    """Methods of a module that a task may call in its place, where no hook runs, and that show what they give."""

    def recorded(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            output = method(*arguments, **named)
            keep(module, arguments, output)
            return output

        return call

    return {name: recorded(getattr(module, name)) for name in ("forward", "encode_stages") if hasattr(module, name)}


def untested(task: MaskedReconstruction, data: object) -> list[str]:
    """Parts of a user's own classes that `check_leakage` does not run."""
    kind, steps = type(task), ("validation_step", "test_step", "predict_step")
    own = [f"{kind.__name__}.{name}" for name in steps if getattr(kind, name) is not getattr(MaskedReconstruction, name)]
    return own if isinstance(data, ImageData) else [*own, f"the batches of {type(data).__name__}"]


def _batch(images: Tensor) -> Batch:
    """A batch as the data module would give it, with an external map of nothing."""
    index = torch.arange(len(images))
    external = torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.bool)
    return Batch(images, torch.full_like(index, -1), index, external=external)


@contextmanager
def _as_it_was(task: nn.Module) -> Iterator[None]:
    """Modes and buffers, such as running statistics, are afterwards what they are now."""
    modes = {module: module.training for module in task.modules()}
    buffers = {buffer: buffer.clone() for buffer in task.buffers()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for buffer, before in buffers.items():
            buffer.data.copy_(before)  # by .data: a backward pass to come takes no notice


@contextmanager
def _replaced(task: nn.Module | ImageData, **parts: Any) -> Iterator[None]:
    """Other parts within; they shadow those that are modules, which cannot be assigned anything else."""
    before = {name: vars(task)[name] for name in parts if name in vars(task)}
    vars(task).update(parts)
    try:
        yield
    finally:
        for name in parts:
            del vars(task)[name]
        vars(task).update(before)
