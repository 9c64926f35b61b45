"""What is told of the mask, against loops over cells."""

import math

import pytest
import torch
from torch import Tensor

from semconv.indicators import Grid, MaskRatio, VisibleDirection, VisibleDistance, WindowFraction
from tests.indicators.views import CELLS, ODD, STAGES, assert_close, draw_seen, mean_over_sites, on
from tests.oracles import draw_mask
from tests.pairwise import together


@pytest.mark.parametrize("sites", STAGES + ODD)
def test_a_window_is_masked_as_far_as_its_area_inside_the_image_is(sites):
    view = draw_seen()
    ours = on(WindowFraction((1, 3, 8)), view, sites)
    oracle = torch.zeros(3, 3, *sites, dtype=torch.float64)
    for number, window in enumerate((1, 3, 8)):
        for i in range(sites[0]):
            for j in range(sites[1]):
                y, x = (i + 0.5) / sites[0] * CELLS[0], (j + 0.5) / sites[1] * CELLS[1]
                tall = [max(0.0, min(row + 1, y + window / 2) - max(row, y - window / 2)) for row in range(CELLS[0])]
                wide = [max(0.0, min(column + 1, x + window / 2) - max(column, x - window / 2)) for column in range(CELLS[1])]
                area = torch.tensor([[high * across for across in wide] for high in tall], dtype=torch.float64)
                oracle[:, number, i, j] = (area * view.mask).sum((1, 2)) / area.sum()
    assert_close(ours, oracle)


def nearest(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the nearest visible cell, and the direction to it, of one mask: float64 `gh gw` and `2 gh gw`."""
    rows, columns = mask.shape
    distance, direction = torch.full((rows, columns), math.inf, dtype=torch.float64), torch.zeros(2, rows, columns).double()
    for i in range(rows):
        for j in range(columns):
            others = [(k, m) for k in range(rows) for m in range(columns) if not mask[k, m]]
            squares = [(k - i) ** 2 + (m - j) ** 2 for k, m in others]
            if squares:
                distance[i, j] = math.sqrt(min(squares))
                if squares.count(min(squares)) == 1 and min(squares) > 0:
                    k, m = others[squares.index(min(squares))]
                    direction[:, i, j] = torch.tensor([m - j, k - i]).double() / math.sqrt(min(squares))
    return distance, direction


@pytest.mark.parametrize("cells", [(4, 6), (7, 5), (1, 9)])
def test_the_nearest_visible_cell_is_found_and_ties_are_known(cells):
    for visible in (1, 2, 3, 6):
        count = cells[0] * cells[1] - visible
        view = draw_seen()._replace(mask=draw_mask(8, cells, count, seed=visible), num_masked=count)
        distance, direction = map(torch.stack, zip(*(nearest(mask) for mask in view.mask), strict=True))
        assert_close(on(VisibleDistance(2.5), view, cells)[:, 0], (distance / 2.5).clamp(max=1))
        assert_close(on(VisibleDirection(), view, cells), direction)


@together("sites", STAGES + ODD)
def test_a_site_says_the_mean_of_its_cells(sites):
    view = draw_seen(count=20)
    distance, direction = map(torch.stack, zip(*(nearest(mask) for mask in view.mask), strict=True))
    assert_close(on(VisibleDistance(), view, sites), mean_over_sites((distance / 4).clamp(max=1)[:, None], *sites))
    assert_close(on(VisibleDirection(), view, sites), mean_over_sites(direction, *sites))


def test_between_two_equally_near_cells_there_is_no_direction():
    mask = torch.tensor([[[False, True, False], [True, True, True]]])
    direction = on(VisibleDirection(), draw_seen(1)._replace(mask=mask, num_masked=4), (2, 3))[0]
    assert direction[:, 0].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert direction[:, 1].tolist() == [[0, 0, 0], [-1, 0, -1]]  # the one in the middle has one on either side


def test_where_nothing_is_visible_it_is_far_and_nowhere():
    view = draw_seen(2, count=24)
    assert (on(VisibleDistance(), view, (4, 6)) == 1).all()
    assert (on(VisibleDirection(), view, (8, 12)) == 0).all()


def test_distance_does_not_depend_on_the_size_of_the_image():
    small, large = (torch.ones(1, side, side, dtype=torch.bool) for side in (6, 12))
    small[0, 0, 0] = large[0, 0, 0] = False
    told = [on(VisibleDistance(), draw_seen(1)._replace(mask=mask), (len(mask[0]),) * 2) for mask in (small, large)]
    assert torch.equal(told[0], told[1][:, :, :6, :6])


def test_the_ratio_is_the_same_at_every_site():
    view = draw_seen()
    view = view._replace(mask=torch.cat([view.mask[:2], draw_mask(1, CELLS, 6)]))
    told = on(MaskRatio(), view, (8, 12))
    assert told.shape == (3, 1, 8, 12)
    assert torch.equal(told, torch.tensor([15 / 24, 15 / 24, 6 / 24]).view(3, 1, 1, 1).expand(3, 1, 8, 12))
    assert torch.equal(MaskRatio()(view, Grid(8, 12, (1, 1), "replicate"))[:, :, 1:-1, 1:-1], told)


@pytest.mark.parametrize("windows", [(), (0,), (3, 3), (-1, 3)])
def test_windows_that_are_none_are_refused(windows):
    with pytest.raises(ValueError, match="give different sides"):
        WindowFraction(windows)


def test_a_reach_of_nothing_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        VisibleDistance(0)
