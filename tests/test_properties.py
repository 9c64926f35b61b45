"""What holds of every experiment on inputs of every kind, drawn by hypothesis."""

from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from semconv.corruption import Bert, CamouflageFill, Corruption, Hide, MeanFill, Noise, NoiseFill, View, ZeroFill
from semconv.encoders import Geometry
from semconv.hashing import make_keys
from semconv.masking import MASKERS, Masker, RandomMasker, spread_mask
from semconv.objective import Objective
from semconv.tasks import MaskedReconstruction
from tests.experiments import every_experiment, make_sized, stir

# the networks are built once for each
SHAPES = [
    Geometry(channels, size, cell)
    for size, channels, cell in [((16, 16), 3, 4), ((8, 24), 1, 4), ((32, 16), 4, 8), ((8, 8), 13, 2), ((4, 32), 2, 4)]
]
CORRUPTIONS = [Hide(ZeroFill()), Hide(CamouflageFill()), Hide(MeanFill()), Hide(NoiseFill()), Noise(), Bert()]
FLAT, FAINT, LOUD = "flat", "faint", "loud"


@dataclass(frozen=True)
class Case:
    """An input of a network."""

    shape: Geometry
    batch: int
    masker: type[Masker]
    corruption: Corruption
    hidden: float  # place between one hidden cell and one visible cell
    contents: str
    seed: int


cases = st.builds(
    Case,
    shape=st.sampled_from(SHAPES),
    batch=st.integers(1, 5),
    masker=st.sampled_from(MASKERS),
    corruption=st.sampled_from(CORRUPTIONS),
    hidden=st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
    contents=st.sampled_from([FLAT, FAINT, LOUD]),
    seed=st.integers(0, 2**40),
)
some = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a failure is said as it is: making it smaller takes minutes
)
many = settings(some, max_examples=200)


@cache
def make(name: str, shape: Geometry) -> MaskedReconstruction:
    """A task for all cases of one shape."""
    task = make_sized(name, shape)
    stir(task)
    return task


def images_of(case: Case) -> Tensor:
    """Normalised images, half of whose cells are flat; or all that differ by the least there is, or by much."""
    channels, size, grid = case.shape.channels, case.shape.size, case.shape.grid
    generator = torch.Generator().manual_seed(case.seed)
    images = torch.randn(case.batch, channels, *size, generator=generator)
    if case.contents == FLAT:
        flat = torch.rand(case.batch, *grid, generator=generator) < 0.5
        return torch.where(spread_mask(flat, size), 0.7, images)
    return images * (1e-3 if case.contents == FAINT else 4.0)


def look(task: MaskedReconstruction, case: Case, images: Tensor, rows: slice = slice(None)) -> tuple[View, Tensor]:
    count = round(1 + case.hidden * (task.num_cells - 2))
    keys = make_keys(case.seed, torch.arange(case.batch)[rows])
    mask = case.masker(0.5)(make_keys(keys, "mask"), task.geometry.grid, count)
    return case.corruption(images[rows], mask, count, make_keys(keys, "corruption")), mask


def slow_loss(prediction: Tensor, images: Tensor, mask: Tensor, objective: Objective) -> float:
    """MAE's loss, patch by patch, in float64."""
    errors = []
    p = objective.patch
    cell = images.shape[2] // mask.shape[1]
    for b in range(len(images)):
        for top in range(0, images.shape[2], p):
            for left in range(0, images.shape[3], p):
                if mask[b, top // cell, left // cell]:
                    target = images[b, :, top : top + p, left : left + p].double()
                    if objective.normalise:
                        mean = target.mean()
                        variance = ((target - mean) ** 2).sum() / (target.numel() - 1)
                        target = (target - mean) / (variance + objective.eps) ** 0.5
                    difference = prediction[b, :, top : top + p, left : left + p].double() - target
                    errors.append((difference**2 if objective.loss == "mse" else difference.abs()).mean())
    return torch.stack(errors).mean().item()


def check(name: str, case: Case) -> None:
    task, images = make(name, case.shape), images_of(case)
    view, mask = look(task, case, images)
    prediction = task(view)
    assert prediction.shape == images.shape
    for objective in (task.objective, Objective(task.objective.patch, normalise=False, loss="l1")):
        loss = objective(prediction, images, mask)
        assert loss.dtype == torch.float32
        # flat patches are divided by the root of eps: what float32 rounds there, it multiplies by a thousand
        assert loss.item() == pytest.approx(slow_loss(prediction, images, mask, objective), rel=1e-3)
    task.zero_grad()
    task.objective(prediction, images, mask).backward()
    gradients = [parameter.grad for parameter in task.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    check_rows(task, case, images, prediction)
    if isinstance(case.corruption, Hide):
        hidden = spread_mask(mask, task.geometry.size)
        other = look(task, case, torch.where(hidden, 7.0, images))[0]
        with torch.no_grad():
            assert torch.equal(task(other), prediction)


def check_rows(task: MaskedReconstruction, case: Case, images: Tensor, prediction: Tensor) -> None:
    """An image alone is told, and predicted, as it is in a batch."""
    last = slice(case.batch - 1, case.batch)
    with torch.no_grad():
        alone = task(look(task, case, images, last)[0])
    # kernels for other batch sizes add up in another order
    torch.testing.assert_close(alone, prediction[last].detach(), rtol=1e-3, atol=1e-3 * prediction.abs().max().item())


@every_experiment
@some
@given(case=cases)
def test_every_input_is_predicted_scored_and_learned_from(name: str, case: Case) -> None:
    check(name, case)


@every_experiment
@pytest.mark.slow
@many
@given(case=cases)
def test_a_great_many_inputs_are(name: str, case: Case) -> None:
    check(name, case)


@every_experiment
@settings(some, max_examples=4)
@given(case=cases, dtype=st.sampled_from([torch.bfloat16, torch.float16]))
def test_half_precision_scores_in_full_precision(name: str, case: Case, dtype: torch.dtype) -> None:
    task, images = make(name, case.shape), images_of(case)
    view, mask = look(task, case, images)
    with torch.no_grad():
        full = task(view)
        with torch.autocast("cpu", dtype):
            prediction = task(view)
            loss = task.objective(prediction, images, mask)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_loss(prediction.float(), images, mask, task.objective), rel=1e-3)
    # bfloat16 has 8 bits, and a handful of layers; measured: 0.06 at most
    assert (prediction - full).abs().max() <= 0.2 * full.abs().max()


@every_experiment
def test_bfloat16_weights_learn_too(name: str) -> None:
    case = Case(SHAPES[0], 2, RandomMasker, CORRUPTIONS[0], 0.7, FLAT, 0)
    task, images = deepcopy(make(name, case.shape)).to(torch.bfloat16), images_of(case)
    view, mask = look(task, case, images)
    loss = task.objective(task(view), images, mask)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in task.parameters() if parameter.grad is not None)


@every_experiment
def test_memory_layout_changes_nothing(name: str) -> None:
    case = Case(SHAPES[0], 3, RandomMasker, CORRUPTIONS[0], 0.7, LOUD, 1)
    task, images = make(name, case.shape), images_of(case)
    view, _ = look(task, case, images)
    with torch.inference_mode():
        expected = task(view)
        strided = torch.cat([view.pixels, view.pixels], 3)[..., : view.pixels.shape[3]]
        assert not strided.is_contiguous()
        for pixels in (strided, view.pixels.to(memory_format=torch.channels_last)):
            torch.testing.assert_close(task(view._replace(pixels=pixels)), expected, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_scored_is_refused() -> None:
    objective, images = Objective(4), torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"the mask is torch.float32: give bool, True = masked"):
        objective(images, images, torch.ones(2, 2, 2))
    with pytest.raises(ValueError, match=r"the prediction is \(2, 1, 8, 8\) for images of \(2, 3, 8, 8\): predict every channel"):
        objective(images[:, :1], images, torch.ones(2, 2, 2, dtype=torch.bool))


@pytest.mark.parametrize("num_cells", [2, 3, 16, 64])
def test_a_masker_takes_every_count_that_hides_and_shows_something(num_cells: int) -> None:
    for count in range(1, num_cells):
        assert RandomMasker(count / num_cells).count(num_cells) == count
    for ratio in (0.4 / num_cells, 1 - 0.4 / num_cells):
        with pytest.raises(ValueError, match="at least one must be hidden and one visible"):
            RandomMasker(ratio).count(num_cells)
