"""Maskers: exact, independent of the batch, and of the shape that they are named for."""

import itertools

import pytest
import torch
from torch import Tensor

from semconv.hashing import draw_number, make_keys
from semconv.masking import (
    MASKERS,
    BlockMasker,
    CentreMasker,
    GridMasker,
    HalfMasker,
    Masker,
    RandomMasker,
    RasterMasker,
    spread_mask,
)
from tests.oracles import draw_mask
from tests.pairwise import together

GRIDS = ((8, 8), (7, 7), (8, 12), (14, 14), (12, 3))

every_masker = pytest.mark.parametrize("masker_class", MASKERS)
every_grid = pytest.mark.parametrize("grid", GRIDS)


def keys(count: int, seed: int = 0) -> Tensor:
    return make_keys(seed, "mask", torch.arange(count))


def make_masks(masker: Masker, grid: tuple[int, int], count: int = 20) -> Tensor:
    return masker(keys(count), grid, masker.count(grid[0] * grid[1]))


@every_masker
def test_the_count_is_exact_and_the_same_in_every_image(masker_class):
    for grid, percent in itertools.product(GRIDS, range(25, 100, 5)):
        n, masker = grid[0] * grid[1], masker_class(percent / 100)
        mask = make_masks(masker, grid)
        assert (mask.dtype, mask.shape) == (torch.bool, (20, *grid))
        assert masker.count(n) == round(percent / 100 * n)
        assert (mask.sum((1, 2)) == round(percent / 100 * n)).all()


@every_masker
def test_each_image_has_the_same_mask_alone_and_in_any_batch(masker_class):
    masker, grid = masker_class(0.6), (7, 12)
    together = make_masks(masker, grid)
    alone = torch.cat([masker(key[None], grid, masker.count(84)) for key in keys(20)])
    assert torch.equal(together, alone)
    assert torch.equal(masker(keys(20).flip(0), grid, masker.count(84)), together.flip(0))


@pytest.mark.parametrize("masker_class", [RandomMasker, BlockMasker, GridMasker, HalfMasker])
def test_random_maskers_differ_between_images(masker_class):
    assert make_masks(masker_class(0.75), (8, 8)).unique(dim=0).shape[0] > 3


@every_masker
def test_a_range_of_ratios_is_drawn_by_the_step_alone_and_spanned(masker_class):
    masker = masker_class((0.3, 0.9))
    counts = [masker.count(100, draw_number(0, "step", step)) for step in range(400)]
    assert counts == [masker_class((0.3, 0.9)).count(100, draw_number(0, "step", step)) for step in range(400)]
    assert (min(counts), max(counts)) == (30, 90)
    assert set(range(31, 90)) - set(counts) == set()
    assert abs(sum(counts) / 400 - 60) < 3  # standard error .87
    mask = masker(keys(20), (10, 10), counts[0])
    assert (mask.sum((1, 2)) == counts[0]).all()


@every_masker
def test_evaluation_masks_the_middle_of_a_range(masker_class):
    assert masker_class((0.3, 0.9)).count(100) == 60


@every_masker
def test_a_step_does_not_change_a_fixed_ratio(masker_class):
    assert {masker_class(0.75).count(196, draw_number("step", step)) for step in range(50)} == {147}


@every_masker
def test_shares_outside_the_open_unit_interval_are_refused_in_one_line(masker_class):
    for ratio in (0.0, 1.0, -0.1, 1.5, float("nan"), (0.0, 0.5), (0.5, 1.0), (0.7, 0.3)):
        with pytest.raises(ValueError, match="between 0 and 1") as caught:
            masker_class(ratio)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("ratio", "num_cells"), [(0.1, 4), (0.9, 4), (0.5, 1)])
def test_a_ratio_that_leaves_no_cell_visible_or_none_masked_is_refused_in_one_line(ratio, num_cells):
    with pytest.raises(ValueError, match=f"of {num_cells} cells") as caught:
        RandomMasker(ratio).count(num_cells)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"min_block": 0.0}, {"min_block": 1.1}, {"min_aspect": 0.0}, {"min_aspect": 2.0}])
def test_impossible_blocks_are_refused(arguments):
    with pytest.raises(ValueError, match="must lie in"):
        BlockMasker(**arguments)


def test_every_cell_and_every_pair_of_cells_is_masked_equally_often():
    count, n, m = 40_000, 12, 5
    flat = RandomMasker()(keys(count), (3, 4), m).flatten(1).double()
    pairs = flat.T @ flat / count
    single, both = m / n, m * (m - 1) / (n * (n - 1))
    # standard errors .0025 and .0018; the largest of 12 and of 66 of them, 4 deviations away
    assert (pairs.diagonal() - single).abs().max() < 0.010
    off_diagonal = pairs[~torch.eye(n, dtype=torch.bool)]
    assert (off_diagonal - both).abs().max() < 0.0072


def grow(mask: Tensor, rectangles: Tensor) -> Tensor | None:
    """Add rectangles in turn, the last in reading order up to the count of `mask`; None: they do not suffice."""
    count, covered = int(mask.sum()), torch.zeros_like(mask)
    for rectangle in rectangles:
        for cell in rectangle.nonzero():
            if covered.sum() == count:
                return covered
            covered[tuple(cell)] = True
    return covered if covered.sum() == count else None


def is_rectangle(cells: Tensor) -> bool:
    rows, columns = cells.any(1).nonzero(), cells.any(0).nonzero()
    return bool(cells[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all())


@together("grid", [(8, 8), (14, 14), (8, 12), (12, 3)])
@pytest.mark.parametrize("ratio", [0.25, 0.4, 0.75])
def test_blocks_are_a_union_of_rectangles_laid_one_after_the_other(grid, ratio):
    masker = BlockMasker(ratio)
    rectangles = masker._rectangles(keys(15), grid)
    masks = make_masks(masker, grid, 15)
    assert all(is_rectangle(rectangle) for image in rectangles for rectangle in image)
    for mask, image in zip(masks, rectangles, strict=True):
        grown = grow(mask, image)
        assert grown is not None
        assert torch.equal(grown, mask)


def test_rectangles_have_the_documented_areas_and_aspects_and_reach_every_cell():
    rectangles = BlockMasker(0.4)._rectangles(keys(200), (40, 40))
    rows, columns = rectangles.any(3).sum(2), rectangles.any(2).sum(2)
    area, aspect = rows * columns / 1600, rows / columns
    # a side is rounded to a whole cell, which moves an area by at most half a cell's row and column
    assert area.min() > 16 / 196 * 0.85
    assert area.max() < 0.4 * 1.1
    assert aspect.min() > 0.3 * 0.9
    assert aspect.max() < 1 / 0.3 * 1.1
    assert rectangles.flatten(0, 1).any(0).all()


def test_blocks_hang_together_where_random_cells_do_not():
    def count_borders(masker: Masker) -> float:
        mask = make_masks(masker, (14, 14), 200)
        return ((mask[:, 1:] ^ mask[:, :-1]).sum() + (mask[:, :, 1:] ^ mask[:, :, :-1]).sum()).item() / 200

    assert count_borders(BlockMasker(0.4)) < 0.4 * count_borders(RandomMasker(0.4))


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (8, 12)])
def test_the_grid_keeps_one_of_every_two_by_two_at_three_quarters(grid):
    for mask in make_masks(GridMasker(0.75), grid):
        for i, j in itertools.product(range(grid[0] - 1), range(grid[1] - 1)):
            assert (~mask[i : i + 2, j : j + 2]).sum() == 1


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (8, 12), (12, 4)])
def test_the_grid_is_a_checkerboard_at_one_half(grid):
    for mask in make_masks(GridMasker(0.5), grid):
        assert (mask[1:] ^ mask[:-1]).all()
        assert (mask[:, 1:] ^ mask[:, :-1]).all()


def test_the_grid_is_shifted_to_every_phase_equally_often():
    visible = ~make_masks(GridMasker(0.75), (8, 8), 4000)[:, :2, :2].flatten(1)
    assert (visible.double().mean(0) - 0.25).abs().max() < 0.03  # standard error .007


def dither_matrix(bits: int) -> Tensor:
    """Bayer's recursion: the matrix of half the side, four times, each quarter raised by its place in the smallest one."""
    matrix = torch.zeros(1, 1, dtype=torch.long)
    for _ in range(bits):
        matrix = torch.cat([torch.cat([4 * matrix, 4 * matrix + 2], 1), torch.cat([4 * matrix + 3, 4 * matrix + 1], 1)])
    return matrix


def test_the_grid_orders_cells_by_a_shifted_dither_matrix():
    matrix = -dither_matrix(3)
    shifted = [matrix.roll(shift, (0, 1)) for shift in itertools.product(range(8), range(8))]
    for order in GridMasker().order(keys(20), (8, 8)):
        assert any(torch.equal(order.view(8, 8), each) for each in shifted)


@pytest.mark.parametrize("grid", [(8, 12), (200, 4)])
def test_the_centre_grows_ring_by_ring(grid):
    row, column = (abs((torch.arange(length).double() + 0.5) / length - 0.5) for length in grid)
    ring = torch.maximum(row[:, None], column).flatten()
    (ranks,) = CentreMasker().order(keys(1), grid)
    assert not ring[ranks.argsort()].diff().lt(-1e-9).any()


@every_grid
def test_the_raster_hides_the_end_in_reading_order(grid):
    n, masker = grid[0] * grid[1], RasterMasker(0.4)
    for mask in make_masks(masker, grid, 3):
        assert mask.flatten().tolist() == [cell >= n - masker.count(n) for cell in range(n)]


@pytest.mark.parametrize(
    ("grid", "ratio", "rows", "columns"),
    [
        ((8, 8), 0.25, (2, 6), (2, 6)),
        ((14, 14), 16 / 196, (5, 9), (5, 9)),
        ((7, 7), 9 / 49, (2, 5), (2, 5)),
        ((8, 12), 0.25, (2, 6), (3, 9)),
    ],
)
def test_the_centre_is_the_middle_of_the_images_own_aspect(grid, ratio, rows, columns):
    middle = torch.zeros(grid, dtype=torch.bool)
    middle[slice(*rows), slice(*columns)] = True
    assert all(torch.equal(mask, middle) for mask in make_masks(CentreMasker(ratio), grid, 3))


@pytest.mark.parametrize("grid", [(8, 8), (8, 12), (12, 4)])
def test_a_half_is_the_side_that_it_is_named_for(grid):
    for side in ("left", "right", "top", "bottom"):
        for mask in make_masks(HalfMasker(0.5, side), grid, 3):
            for i, j in itertools.product(range(grid[0]), range(grid[1])):
                where = {"left": j < grid[1] / 2, "right": j >= grid[1] / 2, "top": i < grid[0] / 2, "bottom": i >= grid[0] / 2}
                assert mask[i, j] == where[side]
    with pytest.raises(ValueError, match="side is 'lft': choose among left, "):
        HalfMasker(0.5, "lft")  # type: ignore[arg-type]
    assert RandomMasker([0.5, 0.75]).high == 0.75  # type: ignore[arg-type]


def test_a_random_half_is_each_side_equally_often():
    masks = make_masks(HalfMasker(0.5), (4, 6), 4000)
    for side in ("left", "right", "top", "bottom"):
        half = make_masks(HalfMasker(0.5, side), (4, 6), 1)
        assert abs((masks == half).all((1, 2)).double().mean() - 0.25) < 0.03  # standard error .007


def test_a_spread_mask_gives_each_pixel_its_cell():
    mask = draw_mask(2, (3, 4), 5)
    spread = spread_mask(mask, (6, 20))
    assert spread.shape == (2, 1, 6, 20)
    for image, y, x in itertools.product(range(2), range(6), range(20)):
        assert spread[image, 0, y, x] == mask[image, y // 2, x // 5]


@pytest.mark.parametrize("size", [(7, 8), (8, 7), (2, 8)])
def test_an_image_that_cells_do_not_divide_is_refused_in_one_line(size):
    with pytest.raises(ValueError, match=r"cannot carry 4 x 4 equal cells") as caught:
        spread_mask(draw_mask(1, (4, 4), 3), size)
    assert "\n" not in str(caught.value)
