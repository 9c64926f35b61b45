"""Check that no hidden pixel reaches the prediction or the features."""

import math
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from semconv.checks.zeros import draw_zeros
from semconv.corruption import CamouflageFill, Corruption, Fill, Hide, MeanFill, NoiseFill, View, ZeroFill
from semconv.data import Batch
from semconv.indicators import masked_fraction
from semconv.masking import MASKERS, Masker, spread_mask
from semconv.objective import Objective
from semconv.tasks import MaskedReconstruction

FILLS: tuple[Fill, ...] = (ZeroFill(), CamouflageFill(), MeanFill(), NoiseFill())

Outputs = list[tuple[str, list[Tensor]]]  # what modules gave, in the order in which they were done, by path


class Leak(NamedTuple):
    """A way in which hidden pixels get out."""

    what: str  # prediction or features
    by: str  # content, NaN or gradient
    layer: str  # path of the first module that lets them out
    view: bool  # whether the view differs already: then the corruption, or what comes before it, shows them


class Case(NamedTuple):
    """One way of hiding, and what was found under it."""

    masker: str
    corruption: str
    training: bool
    leak: Leak | None


def check_leakage(task: MaskedReconstruction) -> Iterator[Case]:
    """Look for leaks under all maskers and fills and the task's own, in evaluation and in training.

    Images are drawn at random. What starts at zero is drawn too, in a copy: a leak through it would else show after training only.

    Args:
        task: the experiment's.
    """
    task = deepcopy(task).float().cpu()
    draw_zeros(task)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, task.geometry.channels, *task.geometry.size, generator=generator)
    for masker in maskers(task):
        for corruption in corruptions(task):
            for training in (False, True):
                leak = find_leak(task, images, masker, corruption, training)
                yield Case(type(masker).__name__, name_of(corruption), training, leak)


def find_leak(
    task: MaskedReconstruction, images: Tensor, masker: Masker, corruption: Corruption, training: bool = False
) -> Leak | None:
    """Find the way in which a hidden pixel of some images gets to the features or the prediction, if any does.

    Their content is replaced, by other numbers and by NaN: nothing may change by a bit. And the gradient of what comes out with
    respect to them must be exactly 0. Hidden is what the view calls masked. The task is as before afterwards.

    Args:
        task: what predicts. In evaluation it looks and predicts, in training it makes a training step.
        images: `b c h w`, without NaN.
        masker: draws the masks.
        corruption: hides the cells; one that lets them be seen (`hides` is false) cannot be checked.
        training: check what training does in place of what evaluation does.
    """
    with _as_it_was(task), _replaced(task, masker=masker, corruption=corruption):
        task.train(training)
        run = partial(_run, task, training=training)
        view = _look(task, images, training)
        hidden = spread_mask(view.mask, task.geometry.size)
        others = {"content": torch.where(hidden, 5 * torch.ones(()), images), "NaN": torch.where(hidden, math.nan, images)}
        watched = {"encoder": task.encoder, "decoder": task.decoder, "": task}
        found = _find_change(images, hidden, others, partial(run, watched=watched))
        if found is None:
            return None
        path, by = found
        modules = dict(_layers(task))
        layer = _first_layer(view, images, hidden, others.get(by), partial(run, watched=modules)) or path or "forward"
        differs = any(not _same([view.pixels], [_look(task, other, training).pixels]) for other in others.values())
        return Leak("features" if path == "encoder" else "prediction", by, layer, differs)


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
    return hiding if not own.hides or name_of(own) in map(name_of, hiding) else [own, *hiding]


def name_of(corruption: Corruption) -> str:
    """The class of a corruption, or of the fill by which it hides."""
    return type(corruption.fill if type(corruption) is Hide else corruption).__name__


def _find_change(images: Tensor, hidden: Tensor, others: dict[str, Tensor], run: Any) -> tuple[str, str] | None:
    """Find the watched module that changes with what is hidden, and by what; None: none does."""
    leaf = images.clone().requires_grad_()
    reference: Outputs = run(leaf)
    for by, content in others.items():
        for (path, before), (_, after) in zip(reference, run(content), strict=True):
            if not _same(before, after):
                return path, by
    for path, outputs in reference:
        if _reached_by_gradient(outputs, leaf, hidden):
            return path, "gradient"
    return None


def _first_layer(view: View, images: Tensor, hidden: Tensor, other: Tensor | None, run: Any) -> str | None:
    """The first layer that differs where something is visible.

    What differs at masked sites alone may still be masked away, as after a stem of separate patches; it counts if nothing else
    differs.
    """
    leaf = images.clone().requires_grad_()
    before: Outputs = run(leaf)
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


def _run(task: MaskedReconstruction, images: Tensor, training: bool, watched: dict[str, nn.Module]) -> Outputs:
    """Outputs of modules in one step of evaluation or training, from the same state and with the same draws every time."""
    outputs: Outputs = []

    def keep(path: str, module: nn.Module, _: Any, output: Any) -> None:
        outputs.append((path, [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]))

    with ExitStack() as stack:
        stack.enter_context(_as_it_was(task))
        stack.enter_context(torch.set_grad_enabled(images.requires_grad))
        for path, module in watched.items():
            stack.callback(module.register_forward_hook(partial(keep, path)).remove)
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # Lightning's, of a step without a trainer
        torch.manual_seed(0)
        if training:
            task.training_step(_batch(images), 0)
        else:
            task(_look(task, images, training))
    return outputs


def _look(task: MaskedReconstruction, images: Tensor, training: bool) -> View:
    return task.look(_batch(images), "train" if training else "test")[0]


def _batch(images: Tensor) -> Batch:
    """A batch as the data module would give it, with an external map of nothing."""
    index = torch.arange(len(images))
    return Batch(images, torch.full_like(index, -1), index, external=torch.zeros_like(images[:, :1].detach()))


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
def _replaced(task: nn.Module, **parts: Any) -> Iterator[None]:
    """Other parts within; they shadow those that are modules, which cannot be assigned anything else."""
    before = {name: vars(task)[name] for name in parts if name in vars(task)}
    vars(task).update(parts)
    try:
        yield
    finally:
        for name in parts:
            del vars(task)[name]
        vars(task).update(before)
