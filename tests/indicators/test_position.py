"""What is told of position, against loops over sites."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from semconv.encoders import Geometry, SemanticCNN
from semconv.encoders.encoder import initialise
from semconv.indicators import BorderDistance, CellOffset, Fourier, Grid, LearnedTable, Radius, SemanticMap
from semconv.mechanisms import AppendedValues, Channels
from tests.indicators.views import CELLS, ODD, SIZE, STAGES, assert_close, draw_seen, mean_over_sites
from tests.pairwise import together

# what lies inside of a padded map is the map that is not padded: see test_every.py
GRIDS = [*(Grid(*sites, (3, 2)) for sites in STAGES + ODD), *(Grid(*sites) for sites in (STAGES[2], *ODD[:2]))]

every_grid = together("grid", GRIDS)


def sites_of(grid: Grid) -> list[tuple[int, int, float, float]]:
    """Each site's place in the padded map, and its centre as shares of height and width."""
    rows, columns = (range(-pad, length + pad) for length, pad in zip(grid[:2], grid.pad, strict=True))
    return [(i + grid.pad[0], j + grid.pad[1], (i + 0.5) / grid.height, (j + 0.5) / grid.width) for i in rows for j in columns]


def empty(channels: int, grid: Grid) -> Tensor:
    return torch.zeros(1, channels, grid.height + 2 * grid.pad[0], grid.width + 2 * grid.pad[1], dtype=torch.float64)


@every_grid
def test_radius_and_border_distance_are_measured_in_pixels(grid):
    radius, nearest, each = empty(1, grid), empty(1, grid), empty(4, grid)
    for i, j, y, x in sites_of(grid):
        radius[0, 0, i, j] = math.dist((y * SIZE[0], x * SIZE[1]), (SIZE[0] / 2, SIZE[1] / 2)) / math.dist((0, 0), (16, 24))
        nearest[0, 0, i, j] = min(x * SIZE[1], SIZE[1] - x * SIZE[1], y * SIZE[0], SIZE[0] - y * SIZE[0]) / 16
        each[0, :, i, j] = torch.tensor([x, 1 - x, y, 1 - y], dtype=torch.float64)
    view = draw_seen()
    assert_close(Radius()(view, grid), radius)
    assert_close(BorderDistance()(view, grid), nearest)
    assert_close(BorderDistance(each=True)(view, grid), each)


@every_grid
def test_waves_that_a_grid_cannot_carry_are_silent(grid):
    oracle = empty(20, grid)
    for i, j, y, x in sites_of(grid):
        for number, cycles in enumerate((0.5, 1, 2, 4, 8)):
            for part, (share, length) in enumerate(((x, grid.width), (y, grid.height))):
                turn = 2 * math.pi * cycles * (share - 0.5)
                if cycles < length / 2:
                    oracle[0, 4 * number + part, i, j] = math.sin(turn)
                    oracle[0, 4 * number + 2 + part, i, j] = math.cos(turn)
    assert_close(Fourier(5)(draw_seen(), grid), oracle, atol=1e-5)  # sines of up to 40 radians in float32


def test_no_wave_is_aliased():
    """What a grid is told is what a finer one is told, read at its sites, and never another wave."""
    coarse, fine = (Fourier(6)(draw_seen(), Grid(side, side)) for side in (8, 24))
    carried = coarse.flatten(2).abs().amax(2)[0] > 0
    assert carried.tolist() == [True] * 12 + [False] * 12
    torch.testing.assert_close(coarse[:, carried], fine[:, carried][:, :, 1::3, 1::3], rtol=0, atol=1e-5)


@every_grid
def test_a_site_lies_in_its_cell_where_its_pixels_do(grid):
    # offsets of points, many to a cell and a whole number to a site; on a map that repeats with the cells
    points, sites, pad = 840, grid[:2], grid.pad
    y, x = (((torch.arange(points * cells).double() + 0.5) / points) % 1 * 2 - 1 for cells in CELLS)
    rows, columns = (
        mean_over_sites(y.view(1, 1, -1, 1), sites[0], 1)[0, 0, :, 0],
        mean_over_sites(x.view(1, 1, 1, -1), 1, sites[1])[0, 0, 0],
    )
    ours = CellOffset()(draw_seen(), grid)[0]
    inside = ours[:, pad[0] : pad[0] + sites[0], pad[1] : pad[1] + sites[1]]
    assert_close(inside[0], columns[None, :])
    assert_close(inside[1], rows[:, None])
    steps = [sites[dim] // math.gcd(sites[dim], CELLS[dim]) for dim in (0, 1)]  # sites after which it repeats
    assert torch.equal(ours[:, steps[0] :], ours[:, : -steps[0]]) or steps[0] >= ours.shape[1]
    assert torch.equal(ours[:, :, steps[1] :], ours[:, :, : -steps[1]]) or steps[1] >= ours.shape[2]


def triangle(table: Tensor, sites: int) -> Tensor:
    """Bilinear, antialiased resizing of a table's first axis, value by value: float64."""
    scale = len(table) / sites
    spread = max(scale, 1.0)
    out = []
    for i in range(sites):
        weights = [max(0.0, 1 - abs((k + 0.5 - (i + 0.5) * scale) / spread)) for k in range(len(table))]
        out.append(torch.tensor(weights, dtype=torch.float64) @ table / sum(weights))
    return torch.stack(out)


@every_grid
def test_a_table_is_interpolated_and_goes_on_beyond_the_border(grid):
    indicator = LearnedTable(2, (4, 6))
    table = indicator.table.detach().double()
    resized = torch.stack([triangle(triangle(each, grid.height).T, grid.width).T for each in table])
    rows, columns = (torch.arange(-p, n + p).clamp(0, n - 1) for n, p in zip(grid[:2], grid.pad, strict=True))
    assert_close(indicator(draw_seen(), grid)[0].detach(), resized[:, rows][:, :, columns])


def test_a_table_is_drawn_small_of_the_seed_and_trained():
    encoder = SemanticCNN(Geometry(3, (32, 48), 8), "test", [LearnedTable(64, (8, 8))], Channels, mlp_ratio=2)
    tables = []
    for seed in (0, 0, 1):
        initialise(encoder, seed)
        tables.append(encoder.get_parameter("indicators.parts.0.table").detach().clone())
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    assert tables[0].std().item() == pytest.approx(0.02, rel=0.05)  # of 4096: 1.1 %
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    encoder(draw_seen()).features.square().sum().backward()
    gradient = encoder.get_parameter("indicators.parts.0.table").grad
    assert gradient is not None
    assert gradient.any()


@pytest.mark.parametrize("part", [LearnedTable(), SemanticMap()])
def test_what_is_learned_cannot_be_sorted_into_ranges(part):
    geometry = Geometry(3, (32, 48), 8)

    def build(encoding):
        return SemanticCNN(geometry, "test", [part], partial(AppendedValues, encoding=encoding), mlp_ratio=2)

    with pytest.raises(ValueError, match="use 'scalar'"):
        build("one-hot")
    build("scalar")


def test_arguments_that_make_no_map_are_refused():
    for make in (lambda: Fourier(0), lambda: LearnedTable(0), lambda: LearnedTable(4, (0, 8))):
        with pytest.raises(ValueError, match="give at least 1"):
            make()


def test_offsets_within_cells_are_exact_on_large_grids():
    offsets = CellOffset()(draw_seen(cells=(4, 6)), Grid(224, 96))
    # 56 rows and 16 columns a cell
    rows, columns = (
        (torch.arange(length) % length_of_cell + 0.5) / length_of_cell * 2 - 1 for length, length_of_cell in ((224, 56), (96, 16))
    )
    torch.testing.assert_close(offsets[0, 0], columns.expand(224, -1), rtol=0, atol=6e-8)
    torch.testing.assert_close(offsets[0, 1], rows[:, None].expand(-1, 96), rtol=0, atol=6e-8)
