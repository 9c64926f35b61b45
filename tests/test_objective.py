"""The objective against loops over patches and pixels."""

import itertools
import math
import statistics
from typing import Literal, get_args

import pytest
import torch
from torch import Tensor

from semconv.masking import spread_mask
from semconv.objective import Objective
from tests.oracles import draw, draw_mask
from tests.pairwise import pairwise, together

Loss = Literal["mse", "l1"]
SIZE, GRID, CELL = (16, 24), (2, 3), 8

FACTORS = ((True, False), get_args(Loss), (2, 4, 8))

every_objective = together("normalise, loss, patch", pairwise(*FACTORS))


def make_batch(batch: int = 3, channels: int = 3, count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    prediction = draw(batch, channels, *SIZE, seed=1).float()
    images = draw(batch, channels, *SIZE, seed=2).float() * 2 + 1
    return prediction, images, draw_mask(batch, GRID, count)


def patch_of(image: Tensor, i: int, j: int, p: int) -> list[float]:
    return image[:, i * p : (i + 1) * p, j * p : (j + 1) * p].double().flatten().tolist()


def normalised(values: list[float], eps: float = 1e-6) -> list[float]:
    deviation = math.sqrt(statistics.variance(values) + eps)  # unbiased
    return [(value - statistics.fmean(values)) / deviation for value in values]


def masked_errors(prediction: Tensor, image: Tensor, mask: Tensor, normalise: bool, loss: Loss, p: int) -> list[float]:
    """The mean error of every masked patch of one image."""
    errors = []
    for i, j in itertools.product(range(SIZE[0] // p), range(SIZE[1] // p)):
        if mask[i * p // CELL, j * p // CELL]:
            target = patch_of(image, i, j, p)
            target = normalised(target) if normalise else target
            difference = [a - b for a, b in zip(patch_of(prediction, i, j, p), target, strict=True)]
            errors.append(statistics.fmean([d * d if loss == "mse" else abs(d) for d in difference]))
    return errors


@every_objective
def test_the_loss_is_the_mean_over_all_masked_patches(normalise, loss, patch):
    prediction, images, mask = make_batch()
    errors = [masked_errors(*image, normalise, loss, patch) for image in zip(prediction, images, mask, strict=True)]
    objective = Objective(patch, normalise, loss)
    ours = objective(prediction, images, mask)
    assert (ours.dtype, ours.shape) == (torch.float32, ())
    # float32 sums of at most 1,000 terms
    assert ours.item() == pytest.approx(statistics.fmean(itertools.chain(*errors)), rel=1e-5)
    assert objective.per_image(prediction, images, mask).tolist() == pytest.approx([*map(statistics.fmean, errors)], rel=1e-5)


@every_objective
def test_the_mean_over_images_is_the_loss(normalise, loss, patch):
    prediction, images, mask = make_batch()
    objective = Objective(patch, normalise, loss)
    mean = objective.per_image(prediction, images, mask).mean()
    torch.testing.assert_close(mean, objective(prediction, images, mask), rtol=1e-6, atol=0)


def test_images_with_uneven_masks_count_by_their_masked_patches():
    prediction, images, mask = make_batch(count=5)
    mask[0] = False
    mask[0, 1, 2] = True
    errors = [masked_errors(*image, True, "mse", 4) for image in zip(prediction, images, mask, strict=True)]
    assert [len(one) for one in errors] == [4, 20, 20]
    ours = Objective(4)(prediction, images, mask).item()
    assert ours == pytest.approx(sum(map(sum, errors)) / 44, rel=1e-5)
    assert ours != pytest.approx(statistics.fmean(map(statistics.fmean, errors)), rel=1e-3)


@pytest.mark.parametrize(("patch", "channels"), [(2, 1), (2, 3), (4, 3), (8, 3)])
def test_a_zero_prediction_scores_the_documented_floor(patch, channels):
    prediction, images, mask = make_batch(channels=channels)
    floor = (patch**2 * channels - 1) / (patch**2 * channels)
    # eps takes 1e-6 / variance off the floor
    assert Objective(patch)(0 * prediction, images, mask).item() == pytest.approx(floor, rel=1e-5)


@every_objective
def test_the_gradient_at_visible_patches_is_exactly_zero(normalise, loss, patch):
    prediction, images, mask = make_batch()
    Objective(patch, normalise, loss)(prediction.requires_grad_(), images, mask).backward()
    hidden = spread_mask(mask, SIZE).expand_as(prediction)
    assert prediction.grad is not None
    assert (prediction.grad[~hidden] == 0).all()
    assert (prediction.grad[hidden] != 0).all()


def test_a_visible_patch_may_hold_anything():
    prediction, images, mask = make_batch()
    broken = prediction.masked_fill(~spread_mask(mask, SIZE), math.nan)
    assert Objective(4)(broken, images, mask) == Objective(4)(prediction, images, mask)


@pytest.mark.parametrize("colour", [0.0, 1.0, -3.5])
def test_the_target_of_a_flat_patch_is_zero(colour):
    images = torch.full((1, 3, *SIZE), colour)
    objective, mask = Objective(4), torch.ones(1, *GRID, dtype=torch.bool)
    assert (objective.target(images) == 0).all()
    prediction = torch.ones_like(images, requires_grad=True)
    loss = objective(prediction, images, mask)
    loss.backward()
    assert loss == 1
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


@together("normalise, loss, patch, dtype", pairwise(*FACTORS, (torch.bfloat16, torch.float16)))
def test_a_prediction_of_half_precision_is_compared_in_full(dtype, normalise, loss, patch):
    prediction, images, mask = make_batch()
    rounded = prediction.to(dtype)
    objective = Objective(patch, normalise, loss)
    assert torch.equal(objective(rounded, images, mask), objective(rounded.float(), images, mask))
    assert objective.per_image(rounded, images, mask).dtype == torch.float32


def test_an_image_of_half_precision_is_a_target_in_full():
    prediction, images, mask = make_batch()
    images = images.bfloat16()
    assert torch.equal(Objective(4)(prediction, images, mask), Objective(4)(prediction, images.float(), mask))


def test_autocast_does_not_change_a_bit():
    prediction, images, mask = make_batch()
    expected = Objective(4)(prediction, images, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(Objective(4)(prediction, images, mask), expected)


@every_objective
def test_the_target_as_pixels_is_the_image(normalise, loss, patch):
    _, images, _ = make_batch()
    objective = Objective(patch, normalise, loss)
    torch.testing.assert_close(objective.to_pixels(objective.target(images), images), images, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("patch", [2, 4, 8])
def test_moments_are_those_of_each_pixels_patch(patch):
    _, images, _ = make_batch()
    mean, deviation = Objective(patch).moments(images)
    assert mean.shape == deviation.shape == (3, 1, *SIZE)
    for b, y, x in itertools.product(range(3), range(0, 16, 3), range(0, 24, 5)):
        values = patch_of(images[b], y // patch, x // patch, patch)
        assert mean[b, 0, y, x].item() == pytest.approx(statistics.fmean(values), abs=1e-6)
        assert deviation[b, 0, y, x].item() == pytest.approx(math.sqrt(statistics.variance(values) + 1e-6), rel=1e-5)


@every_objective
def test_the_target_itself_scores_zero(normalise, loss, patch):
    _, images, mask = make_batch()
    objective = Objective(patch, normalise, loss)
    assert objective(objective.target(images), images, mask) == 0


@pytest.mark.parametrize(("patch", "normalise"), [(0, False), (-2, True), (1, True)])
def test_an_impossible_patch_is_refused_in_one_line(patch, normalise):
    with pytest.raises(ValueError, match=f"target patch is {patch} pixels") as caught:
        Objective(patch, normalise)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="loss is 'MSE': choose among mse, l1"):
        Objective(4, loss="MSE")  # type: ignore[arg-type]


@together(
    "patch, size, grid",
    [
        (3, (16, 24), (2, 3)),  # cells of 8 by patches of 3
        (16, (16, 24), (2, 3)),  # a patch larger than a cell
        (4, (18, 24), (2, 3)),  # cells of 9 x 8
        (4, (17, 24), (2, 3)),  # no whole cells
        (4, (16, 26), (2, 3)),
        (4, (16, 20), (2, 3)),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_in_one_line(patch, size, grid):
    images, mask = torch.zeros(1, 3, *size), torch.ones(1, *grid, dtype=torch.bool)
    with pytest.raises(ValueError, match=f"target patches of {patch}") as caught:
        Objective(patch).masked_patches(mask, images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("size", "grid"), [((16, 24), (2, 2)), ((24, 16), (2, 2)), ((4, 16), (1, 1)), ((12, 4), (3, 1))])
def test_cells_may_be_oblong(size, grid):
    images, mask = draw(2, 3, *size), draw_mask(2, grid, 1)
    patches = Objective(4).masked_patches(mask, images)
    assert patches.shape == (2, size[0] // 4, size[1] // 4)
    assert torch.equal(spread_mask(patches, size), spread_mask(mask, size))
