"""Indicators against areas and centres counted pixel by pixel."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semconv.controls import Constant
from semconv.corruption import View
from semconv.indicators import Coordinates, Grid, Indicator, Indicators, Mask, masked_fraction
from semconv.indicators.areas import area_mean
from tests.oracles import MODES, coordinate_map, draw_mask, draw_view, mask_map, pad, signals_of
from tests.pairwise import together

CELLS = (4, 6)
# finer, equal, coarser and not dividing, on one side or both
SITES = ((8, 12), (4, 6), (2, 3), (1, 1), (3, 5), (7, 7), (16, 6), (4, 18), (5, 2), (12, 4), (1, 6))


def make_view(mask: Tensor) -> View:
    return View(torch.zeros(len(mask), 3, 32, 48), mask, int(mask[0].sum()))


class Scaled(Indicator):
    """The mask times a factor: an indicator with an argument."""

    channels, per_image, low, high = 1, True, 0.0, 9.0
    conveys = "mask"

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.calls = factor, 0

    def extra_repr(self) -> str:
        return f"{self.factor}"

    def forward(self, view: View, grid: Grid) -> Tensor:
        self.calls += 1
        return self.factor * Mask()(view, grid)


class Radius(Indicator):
    """Distance from the centre: another map of position."""

    channels, per_image, low, high = 1, False, 0.0, 1.5
    conveys = "position"

    def forward(self, view: View, grid: Grid) -> Tensor:
        return Coordinates()(view, grid).square().sum(1, keepdim=True).sqrt()


@together("sites", SITES)
def test_a_site_is_masked_as_far_as_its_area_is(sites):
    mask = draw_mask(5, CELLS, 11)
    ours = masked_fraction(mask, *sites)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), mask_map(mask, *sites), rtol=1e-6, atol=0)


@together("sites", [(8, 12), (4, 6), (16, 6), (4, 18), (12, 12)])
def test_a_site_within_one_cell_is_the_mask_itself(sites):
    mask = draw_mask(5, CELLS, 11)
    assert torch.equal(masked_fraction(mask, *sites), F.interpolate(mask[:, None].float(), sites, mode="nearest"))


def test_all_masked_is_exactly_one_and_none_exactly_zero():
    for cells, sites in itertools.product(range(1, 18), repeat=2):
        mask = torch.ones(1, cells, cells, dtype=torch.bool)
        assert (masked_fraction(mask, sites, 5) == 1).all()
        assert (masked_fraction(~mask, sites, 5) == 0).all()


def test_autocast_does_not_round_a_fraction():
    mask = draw_mask(5, CELLS, 11)
    for sites in SITES:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = masked_fraction(mask, *sites)
        assert ours.dtype == torch.float32
        assert torch.equal(ours, masked_fraction(mask, *sites))


@pytest.mark.parametrize("mode", MODES)
def test_the_mask_is_continued_as_features_are(mode):
    mask = draw_mask(5, CELLS, 11)
    for height, width in ((8, 12), (4, 6), (5, 2)):
        ours = Mask()(make_view(mask), Grid(height, width, (1, 1), mode))
        torch.testing.assert_close(ours.double(), pad(mask_map(mask, height, width), 1, mode), rtol=1e-6, atol=0)


@together("size, stride", [((24, 24), 1), ((24, 24), 8), ((32, 48), 2), ((48, 32), 2), ((32, 48), 4), ((48, 32), 8)])
def test_a_coordinate_is_the_mean_of_the_pixels_of_its_site(size, stride):
    height, width = size[0] // stride, size[1] // stride
    ours = Coordinates()(make_view(draw_mask(1, CELLS, 11)), Grid(height, width))
    pixels = coordinate_map(*size)
    means = torch.stack(
        [
            pixels[:, :, i * stride : (i + 1) * stride, j * stride : (j + 1) * stride].mean((2, 3))
            for i, j in itertools.product(range(height), range(width))
        ],
        -1,
    ).view(1, 2, height, width)
    torch.testing.assert_close(ours.double(), means, rtol=0, atol=1e-7)  # of float32 numbers below 1


@pytest.mark.parametrize("mode", MODES)
def test_coordinates_go_on_beyond_the_border_in_equal_steps_whatever_features_do(mode):
    ours = Coordinates()(make_view(draw_mask(1, CELLS, 11)), Grid(8, 5, (3, 2), mode))
    assert ours.shape == (1, 2, 14, 9)
    x, y = ours[0]
    torch.testing.assert_close(x.diff(dim=1), torch.full((14, 8), 2 / 5))
    torch.testing.assert_close(y.diff(dim=0), torch.full((13, 9), 2 / 8))
    assert (x.diff(dim=0) == 0).all()
    assert (y.diff(dim=1) == 0).all()
    torch.testing.assert_close(ours[:, :, 3:-3, 2:-2], coordinate_map(8, 5).float())


def test_coordinates_span_minus_one_to_one():
    ours = Coordinates()(make_view(draw_mask(1, CELLS, 11)), Grid(4, 10))
    assert ours[0, 0, 0, [0, -1]].tolist() == pytest.approx([-0.9, 0.9])
    assert ours[0, 1, [0, -1], 0].tolist() == [-0.75, 0.75]


@together("mode", MODES)
@together("part", [Mask(), Scaled(3)])
def test_what_is_made_of_the_mask_is_zero_when_nothing_is_masked(part, mode):
    signals = signals_of(make_view(torch.zeros(2, *CELLS, dtype=torch.bool)), part)
    for sites in SITES:
        grid = Grid(*sites, (0, 0) if 1 in sites else (1, 1), mode)
        assert (signals.at(grid).per_image == 0).all()
        assert (signals.masked(grid) == 0).all()


def test_each_grid_is_computed_once_per_view():
    part = Scaled(2)
    signals = Indicators([part])(draw_view())
    first = signals.at(Grid(8, 8))
    assert signals.at(Grid(8, 8)) is first
    assert signals.masked(Grid(8, 8)) is signals.masked(Grid(8, 8))
    assert part.calls == 1
    for other in (Grid(4, 8), Grid(8, 8, (1, 1)), Grid(8, 8, (1, 1), "circular")):
        signals.at(other)
    assert part.calls == 4
    assert Indicators([part])(draw_view()).at(Grid(8, 8)) is not first


def test_the_mask_stands_first_and_what_is_shared_is_kept_apart():
    view, grid = draw_view(), Grid(8, 16)
    parts = [Coordinates(), Scaled(2), Radius(), Mask()]
    indicators = Indicators(parts)
    assert [type(part).__name__ for part in indicators] == ["Mask", "Scaled", "Coordinates", "Radius"]
    assert (indicators.num_per_image, indicators.num_shared, len(indicators)) == (2, 3, 4)
    sites = indicators(view).at(grid)
    assert torch.equal(sites.per_image, torch.cat([Mask()(view, grid), 2 * Mask()(view, grid)], 1))
    assert torch.equal(sites.shared, torch.cat([Coordinates()(view, grid), Radius()(view, grid)], 1))
    others = indicators(view).others(grid)
    assert tuple(each.shape[1] for each in others[:2]) == indicators.num_others == (1, 3)
    assert torch.equal(others.per_image, 2 * Mask()(view, grid))
    assert torch.equal(others.shared, sites.shared)
    alone = Indicators([Scaled(2)])
    assert torch.equal(alone(view).others(grid).per_image, alone(view).at(grid).per_image)


@pytest.mark.parametrize(
    ("parts", "conveys", "include_mask"),
    [
        ([], set(), False),
        ([Mask()], {"mask"}, True),
        ([Scaled(2)], {"mask"}, False),
        ([Radius(), Mask()], {"mask", "position"}, True),
    ],
)
def test_indicators_know_what_they_convey(parts, conveys, include_mask):
    assert (Indicators(parts).conveys, Indicators(parts).include_mask) == (conveys, include_mask)


def test_none_of_a_kind_is_an_empty_map_on_the_padded_grid():
    grid = Grid(8, 16, (1, 2))
    nothing, told, placed = (signals_of(draw_view(), *parts).at(grid)[:2] for parts in ([], [Mask()], [Coordinates()]))
    assert [tuple(one.shape) for one in nothing] == [(3, 0, 10, 20), (1, 0, 10, 20)]
    assert [tuple(one.shape) for one in told] == [(3, 1, 10, 20), (1, 0, 10, 20)]
    assert [tuple(one.shape) for one in placed] == [(3, 0, 10, 20), (1, 2, 10, 20)]
    assert [one.dtype for one in nothing] == [torch.float32] * 2


@pytest.mark.parametrize("parts", [[Mask(), Mask()], [Coordinates(), Mask(), Coordinates()], [Scaled(2), Scaled(2)]])
def test_an_indicator_listed_twice_is_refused_in_one_line(parts):
    with pytest.raises(ValueError, match="list each one once") as caught:
        Indicators(parts)
    assert "\n" not in str(caught.value)


def test_one_indicator_may_be_listed_with_two_arguments():
    assert len(Indicators([Scaled(2), Scaled(3), Mask()])) == 3


@pytest.mark.parametrize("mode", MODES)
def test_a_grid_is_continued_as_conv2d_continues_it(mode):
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    for sides in ((0, 0), (1, 1), (2, 0), (1, 3)):
        ours = Grid(5, 7, sides, mode).extend(x)
        identity = torch.nn.Conv2d(3, 3, 1, padding=sides, padding_mode=mode, bias=False)
        torch.nn.init.dirac_(identity.weight)
        assert torch.equal(ours, identity(x)), sides


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 6), (6, 2)])
def test_a_grid_that_fits_along_one_side_alone_is_averaged_by_area(height, width):
    maps = torch.rand(2, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    fine = maps.repeat_interleave(6, 2).repeat_interleave(4, 3)  # 12 x 12, of which every grid here is a divisor
    expected = fine.unflatten(2, (height, -1)).unflatten(4, (width, -1)).mean((3, 5))
    assert torch.allclose(area_mean(maps, height, width), expected, atol=1e-6)


def test_sites_are_masked_wholly_for_certain_where_cells_hold_whole_numbers_of_them():
    signals = signals_of(draw_view(), Mask())
    rows, columns = draw_view().mask.shape[1:]
    assert signals.masks_whole(Grid(rows, columns))
    assert signals.masks_whole(Grid(2 * rows, 3 * columns))
    assert not signals.masks_whole(Grid(2 * rows + 1, columns))
    assert not signals.masks_whole(Grid(rows, columns // 2))
    indicators = Indicators([Mask()])
    indicators.control = Constant()
    assert not indicators(draw_view()).masks_whole(Grid(rows, columns))


@pytest.mark.parametrize("count", [8, 10])
def test_a_wrong_number_of_masked_cells_is_refused_in_one_line(count):
    with pytest.raises(ValueError, match=f"num_masked is {count}, but images of the batch have 9 to 9 masked cells") as caught:
        Indicators([Mask()])(draw_view()._replace(num_masked=count))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"the mask is torch\.uint8: give mask\.bool"):
        Indicators([Mask()])(draw_view()._replace(mask=draw_view().mask.byte()))
