"""Corruptions: what is visible stays to the bit, what is hidden leaves no trace."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from semconv.corruption import Bert, CamouflageFill, Corruption, Fill, Hide, MeanFill, Noise, NoiseFill, ZeroFill
from semconv.hashing import make_keys
from semconv.masking import spread_mask
from tests.oracles import draw, draw_mask
from tests.pairwise import pairwise, together

FILLS = (ZeroFill, CamouflageFill, MeanFill, NoiseFill)
SIZE, GRID = (12, 20), (3, 5)  # cells of 4 x 4
COUNT = 9

every_fill = pytest.mark.parametrize("fill_class", FILLS)


def keys(count: int, seed: int = 0) -> Tensor:
    return make_keys(seed, "corruption", torch.arange(count))


def make_images(count: int = 4, channels: int = 3, size: tuple[int, int] = SIZE, dtype: torch.dtype = torch.float32) -> Tensor:
    return draw(count, channels, *size).to(dtype)


def numbered(count: int, grid: tuple[int, int], cell: int = 2) -> Tensor:
    """Images whose every pixel holds the number of its cell."""
    number = torch.arange(grid[0] * grid[1], dtype=torch.float32).view(1, 1, *grid)
    return number.repeat_interleave(cell, 2).repeat_interleave(cell, 3).repeat(count, 1, 1, 1)


def hide(fill: Fill, images: Tensor, mask: Tensor) -> Tensor:
    return Hide(fill)(images, mask, int(mask[0].sum()), keys(len(images))).pixels


@together("fill_class, channels, dtype", pairwise(FILLS, [1, 3], [torch.float32, torch.bfloat16, torch.float64]))
def test_visible_pixels_stay_to_the_bit(fill_class, channels, dtype):
    images, mask = make_images(channels=channels, dtype=dtype), draw_mask(4, GRID, COUNT)
    filled = hide(fill_class(), images, mask)
    visible = ~spread_mask(mask, SIZE).expand_as(images)
    assert (filled.dtype, filled.shape) == (dtype, images.shape)
    assert torch.equal(filled[visible], images[visible])
    assert (filled[~visible] != images[~visible]).double().mean() > 0.95  # a bfloat16 may meet its equal


@every_fill
def test_hidden_content_leaves_no_trace(fill_class):
    images, mask = make_images(), draw_mask(4, GRID, COUNT)
    for content in (0.0, 7.0, math.nan, math.inf, -math.inf):
        other = images.masked_fill(spread_mask(mask, SIZE), content)
        filled = hide(fill_class(), other, mask)
        assert filled.isfinite().all(), content
        assert torch.equal(filled, hide(fill_class(), images, mask)), content


@every_fill
def test_no_gradient_reaches_hidden_pixels(fill_class):
    mask = draw_mask(4, GRID, COUNT)
    hidden = spread_mask(mask, SIZE)
    for content in (1.0, math.nan):
        images = make_images().masked_fill(hidden, content).requires_grad_()
        hide(fill_class(), images, mask).square().sum().backward()
        assert images.grad is not None
        assert (images.grad[hidden.expand_as(images)] == 0).all(), content
        assert (images.grad[~hidden.expand_as(images)] != 0).all(), content


@together("fill_class", [*FILLS, None])
def test_a_fill_is_the_same_alone_and_in_any_batch(fill_class):
    corruption: Corruption = Hide(fill_class()) if fill_class else Noise()
    images, mask = make_images(6), draw_mask(6, GRID, COUNT)
    together = corruption(images, mask, COUNT, keys(6)).pixels
    alone = [corruption(images[i : i + 1], mask[i : i + 1], COUNT, keys(6)[i : i + 1]).pixels for i in range(6)]
    assert torch.equal(together, torch.cat(alone))


def test_hide_tells_the_mask_and_its_count():
    mask = draw_mask(4, GRID, COUNT)
    view = Hide()(make_images(), mask, COUNT, keys(4))
    assert torch.equal(view.mask, mask)
    assert view.num_masked == COUNT


def test_hidden_pixels_are_zero_unless_told_otherwise():
    images, mask = make_images(), draw_mask(4, GRID, COUNT)
    view = Hide()(images, mask, COUNT, keys(4))
    for b, y, x in itertools.product(range(4), range(12), range(20)):
        assert torch.equal(view.pixels[b, :, y, x], torch.zeros(3) if mask[b, y // 4, x // 4] else images[b, :, y, x])


def test_the_mean_is_that_of_the_visible_pixels_of_each_channel():
    images, mask = make_images(), draw_mask(4, GRID, COUNT)
    filled = hide(MeanFill(), images, mask)
    for b, c in itertools.product(range(4), range(3)):
        visible = [images[b, c, y, x].item() for y in range(12) for x in range(20) if not mask[b, y // 4, x // 4]]
        hidden = filled[b, c][spread_mask(mask, SIZE)[b, 0]]
        torch.testing.assert_close(hidden, torch.full_like(hidden, sum(visible) / len(visible)))


def test_a_noise_fill_is_standard_and_independent_of_pixels_and_images():
    images, mask = make_images(60), draw_mask(60, GRID, COUNT)
    filled, hidden = hide(NoiseFill(), images, mask), spread_mask(mask, SIZE).expand_as(images)
    noise, content = filled[hidden], images[hidden]
    # 25,920 numbers: standard errors .006 of the mean and a correlation, .009 of the variance
    assert noise.mean().abs() < 0.025
    assert abs(noise.var() - 1) < 0.035
    assert torch.corrcoef(torch.stack([noise, content]))[0, 1].abs() < 0.025
    assert noise.unique().numel() > 0.9 * noise.numel()


@together("count", [1, 4, 7, 9, 11, 14])
def test_camouflage_deals_visible_cells_of_the_same_image_evenly(count):
    offset = 100 * torch.arange(30.0).view(-1, 1, 1, 1)
    mask = draw_mask(30, GRID, count)
    filled = hide(CamouflageFill(), numbered(30, GRID) + offset, mask) - offset
    for image, hidden in zip(filled, mask, strict=True):
        shown = image[0, ::2, ::2].flatten().int().tolist()
        flat = hidden.flatten().tolist()
        visible = [cell for cell in range(15) if not flat[cell]]
        times = [sum(shown[cell] == one for cell in range(15) if flat[cell]) for one in visible]
        assert sum(times) == count  # nothing but visible cells
        assert max(times) - min(times) <= 1


def test_camouflage_shows_whole_cells_upright():
    images, mask = make_images(), draw_mask(4, GRID, COUNT)
    filled = hide(CamouflageFill(), images, mask)

    def cell(pixels: Tensor, b: int, i: int, j: int) -> Tensor:
        return pixels[b, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]

    places = list(itertools.product(range(3), range(5)))
    for b in range(4):
        visible = [cell(images, b, i, j) for i, j in places if not mask[b, i, j]]
        for i, j in places:
            assert any(torch.equal(cell(filled, b, i, j), one) for one in visible)


def test_every_visible_cell_is_dealt_to_every_hidden_place_equally_often():
    mask = torch.tensor([[[True, False, True], [True, False, False]]]).expand(6000, 2, 3)
    shown = hide(CamouflageFill(), numbered(6000, (2, 3)), mask)[:, 0, ::2, ::2].flatten(1)
    for place, one in itertools.product((0, 2, 3), (1, 4, 5)):
        assert abs((shown[:, place] == one).double().mean() - 1 / 3) < 0.025  # standard error .006
    assert abs(((shown[:, 0] == 1) & (shown[:, 2] == 4)).double().mean() - 1 / 6) < 0.02


def test_what_is_hidden_cannot_be_told_from_how_often_a_cell_is_seen():
    # 4 of 16 cells are visible, so that each content stands four times
    mask = draw_mask(50, (4, 4), 12)
    shown = hide(CamouflageFill(), numbered(50, (4, 4)), mask)[:, 0, ::2, ::2].flatten(1)
    assert ((shown[:, :, None] == shown[:, None, :]).sum(-1) == 4).all()


@pytest.mark.parametrize("std", [0.0, 0.5, 2.0])
def test_noise_is_added_to_the_chosen_cells_alone(std):
    images, mask = make_images(60), draw_mask(60, GRID, COUNT)
    view = Noise(std)(images, mask, COUNT, keys(60))
    hidden = spread_mask(mask, SIZE).expand_as(images)
    assert torch.equal(view.pixels[~hidden], images[~hidden])
    noise = (view.pixels - images)[hidden]
    assert noise.mean().abs() <= 0.025 * std
    assert abs(noise.std() - std) <= 0.02 * std
    assert torch.equal(view.mask, mask)
    assert view.num_masked == COUNT


@pytest.mark.parametrize("fill_class", [*FILLS])
def test_of_a_hundred_chosen_cells_eighty_are_hidden_ten_show_another_and_ten_are_left(fill_class):
    images, mask = numbered(8, (12, 12)) + 1000, draw_mask(8, (12, 12), 100)
    view = Bert(fill_class())(images, mask, 100, keys(8))
    shown, own = view.pixels[:, 0, ::2, ::2], images[:, 0, ::2, ::2]
    assert view.num_masked == 80
    assert (view.mask.sum((1, 2)) == 80).all()
    assert not (view.mask & ~mask).any()
    seen = mask & ~view.mask
    assert ((shown == own) & seen).sum((1, 2)).tolist() == [10] * 8
    assert torch.equal(shown[~mask], own[~mask])
    for image in range(8):
        others = shown[image][seen[image] & (shown[image] != own[image])]
        visible = own[image][~mask[image]]
        assert len(others) == 10
        assert torch.isin(others, visible).all()


@every_fill
def test_cells_that_bert_hides_or_swaps_leave_no_trace(fill_class):
    images, mask = make_images(), draw_mask(4, GRID, COUNT)
    view = Bert(fill_class())(images, mask, COUNT, keys(4))
    left = mask & ~view.mask & (view.pixels == images)[:, 0, ::4, ::4]
    hidden = spread_mask(mask & ~left, SIZE)
    for content in (math.nan, math.inf):
        again = Bert(fill_class())(images.masked_fill(hidden, content), mask, COUNT, keys(4))
        assert torch.equal(again.pixels, view.pixels)


@pytest.mark.parametrize(("hidden", "other"), [(0.8, 0.1), (0.01, 0.99), (0.5, 0.5), (1.0, 0.0), (0.3, 0.35)])
def test_berts_count_is_that_of_its_mask_for_any_number_of_cells(hidden, other):
    for num_masked in range(1, 15):
        images, mask = numbered(5, GRID), draw_mask(5, GRID, num_masked)
        view = Bert(hidden=hidden, other=other)(images, mask, num_masked, keys(5))
        assert (view.mask.sum((1, 2)) == view.num_masked).all()
        assert view.num_masked == max(1, round(hidden * num_masked))
        changed = (view.pixels != images)[:, 0, ::2, ::2] & mask & ~view.mask
        assert (changed.sum((1, 2)) == min(round(other * num_masked), num_masked - view.num_masked)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Noise(-1.0), "of 0 or more"),
        (lambda: Bert(hidden=0.0), "hidden above 0"),
        (lambda: Bert(hidden=0.8, other=0.3), "at most 1"),
        (lambda: Bert(other=-0.1), "at most 1"),
    ],
)
def test_impossible_shares_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@together(
    "corruption",
    [*(Hide(fill()) for fill in FILLS), Noise(), Bert(), Bert(CamouflageFill())],
)
def test_cells_may_be_oblong_and_images_of_any_shape(corruption):
    images, mask = make_images(2, 1, (6, 30), torch.bfloat16), draw_mask(2, (3, 5), 7)
    view = corruption(images, mask, 7, keys(2))
    assert (view.pixels.shape, view.pixels.dtype) == (images.shape, torch.bfloat16)
