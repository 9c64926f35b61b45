"""What is told of what is seen, against loops over pixels."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from semconv.corruption import View
from semconv.indicators import SelfSimilarity, SemanticMap, VisibleClusters, VisibleColour, VisibleEdges
from tests.indicators.views import CELLS, ODD, SIZE, STAGES, assert_close, draw_seen, mean_over_sites, on, spread


@pytest.mark.parametrize("sites", [(8, 12), (4, 6), (2, 3), (3, 5)])
def test_colours_are_those_of_visible_pixels_in_the_window(sites):
    view = draw_seen()
    windows = (2, 3, 6)
    ours = on(VisibleColour(windows), view, sites)

    oracle = torch.zeros(3, 18, *sites, dtype=torch.float64)
    hidden = spread(view.mask)[:, 0]
    for b, (number, window), i, j in itertools.product(range(3), enumerate(windows), range(sites[0]), range(sites[1])):
        total, first, second = 0.0, torch.zeros(3).double(), torch.zeros(3).double()
        for row, column in itertools.product(range(CELLS[0]), range(CELLS[1])):
            y, x = (i + 0.5) / sites[0] * CELLS[0], (j + 0.5) / sites[1] * CELLS[1]
            tall = max(0.0, min(row + 1, y + window / 2) - max(row, y - window / 2))
            wide = max(0.0, min(column + 1, x + window / 2) - max(column, x - window / 2))
            if not hidden[b, 8 * row, 8 * column]:
                pixels = view.pixels[b, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].double()
                total += tall * wide
                first += tall * wide * pixels.mean((1, 2))
                second += tall * wide * pixels.square().mean((1, 2))
        if total > 0:
            mean = first / total
            oracle[b, 6 * number : 6 * number + 3, i, j] = mean.clamp(-3, 3)
            oracle[b, 6 * number + 3 : 6 * number + 6, i, j] = (second / total - mean**2).clamp(max=3)
    assert_close(ours, oracle)


def test_a_window_as_wide_as_the_image_sees_all_that_is_visible():
    view = draw_seen()
    ours = on(VisibleColour((12,)), view, (8, 12))
    for b in range(3):
        seen = view.pixels[b, :, ~spread(view.mask)[b, 0]].double()
        told = torch.cat([seen.mean(1), seen.var(1, correction=0)])
        assert_close(ours[b], told[:, None, None])


def test_where_nothing_is_visible_there_is_no_colour():
    assert (on(VisibleColour((1, 3)), draw_seen(count=24), (8, 12)) == 0).all()


def test_edges_are_sobels_where_all_of_the_window_is_visible():
    view = draw_seen(count=10)
    hidden, height, width = spread(view.mask)[:, 0], *SIZE
    oracle = torch.zeros(3, 3, *SIZE, dtype=torch.float64)
    kernel = torch.tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]).double() / 8
    for b, i, j in itertools.product(range(3), range(1, height - 1), range(1, width - 1)):
        if not hidden[b, i - 1 : i + 2, j - 1 : j + 2].any():
            window = view.pixels[b, :, i - 1 : i + 2, j - 1 : j + 2].double().mean(0)
            right, down = (window * kernel).sum(), (window * kernel.T).sum()
            oracle[b, :, i, j] = torch.stack([(right**2 + down**2).sqrt(), right, down]).clamp(-1, 1)
    for sites in STAGES + ODD:
        assert_close(on(VisibleEdges(), view, sites), mean_over_sites(oracle, *sites))


def describe(view: View, b: int, row: int, column: int) -> Tensor:
    """Mean colour and mean gradient of a cell: float64 5."""
    pixels = view.pixels[b, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].double()
    bright = pixels.mean(0)
    across = sum(abs(bright[i, j + 1] - bright[i, j]) for i in range(8) for j in range(7)) / 56
    down = sum(abs(bright[i + 1, j] - bright[i, j]) for i in range(7) for j in range(8)) / 56
    return torch.cat([pixels.mean((1, 2)), torch.stack([torch.as_tensor(across), torch.as_tensor(down)])])


def coloured(seed: int = 0) -> View:
    """A view whose cells differ in colour and texture."""
    view = draw_seen(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    colour, contrast = torch.randn(3, 3, *CELLS, generator=generator), torch.rand(3, 1, *CELLS, generator=generator)
    colour, contrast = (each.repeat_interleave(8, 2).repeat_interleave(8, 3) for each in (colour, contrast))
    return view._replace(pixels=colour + contrast * view.pixels)


@pytest.mark.parametrize("window", [3, 5])
def test_similarity_is_that_of_each_cell_to_its_visible_neighbours(window):
    view, reach = coloured(), window // 2
    oracle = torch.zeros(3, window**2 - 1, *CELLS, dtype=torch.float64)
    steps = [(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1) if (i, j) != (0, 0)]
    for b, row, column, (number, (i, j)) in itertools.product(range(3), range(CELLS[0]), range(CELLS[1]), enumerate(steps)):
        there = 0 <= row + i < CELLS[0] and 0 <= column + j < CELLS[1]
        if there and not view.mask[b, row, column] and not view.mask[b, row + i, column + j]:
            apart = describe(view, b, row, column) - describe(view, b, row + i, column + j)
            oracle[b, number, row, column] = math.exp(-apart.square().sum())
    assert (oracle > 0.01).sum() > 20
    ours = on(SelfSimilarity(window), view, CELLS)
    assert_close(ours, oracle)
    assert_close(on(SelfSimilarity(window), view, (2, 3)), mean_over_sites(oracle, 2, 3))


def lloyd(cells: Tensor, clusters: int, steps: int) -> list[int]:
    """k-means of rows `n 5` that are all visible: the number of each row's cluster, dark ones first."""
    order = sorted(range(len(cells)), key=lambda i: cells[i, :3].mean().item())
    centres = [cells[order[len(cells) * (2 * k + 1) // (2 * clusters)]] for k in range(clusters)]

    def assign() -> list[int]:
        distances = [[(cell - centre).square().sum().item() for centre in centres] for cell in cells]
        return [each.index(min(each)) for each in distances]

    for _ in range(steps):
        own = assign()
        for k in range(clusters):
            members = [cells[i] for i in range(len(cells)) if own[i] == k]
            centres[k] = torch.stack(members).mean(0) if members else centres[k]
    centres.sort(key=lambda centre: centre[:3].mean().item())
    return assign()


@pytest.mark.parametrize(("clusters", "steps"), [(2, 5), (4, 0), (4, 5), (6, 3)])
def test_clusters_are_lloyds_of_the_visible_cells_alone(clusters, steps):
    view = coloured(1)
    ours = on(VisibleClusters(clusters, steps), view, CELLS)
    oracle = torch.zeros(3, clusters, *CELLS, dtype=torch.float64)
    for b in range(3):
        places = [(row, column) for row, column in itertools.product(*map(range, CELLS)) if not view.mask[b, row, column]]
        found = lloyd(torch.stack([describe(view, b, *place) for place in places]), clusters, steps)
        for (row, column), own in zip(places, found, strict=True):
            oracle[b, own, row, column] = 1
    assert torch.equal(ours.double(), oracle)
    assert torch.equal(ours.sum(1) == 1, ~view.mask)
    assert_close(on(VisibleClusters(clusters, steps), view, (2, 3)), mean_over_sites(oracle, 2, 3))


def test_clusters_do_not_depend_on_the_order_of_the_batch_and_go_from_dark_to_bright():
    view = coloured(2)
    ours = on(VisibleClusters(), view, CELLS)
    turned = view._replace(pixels=view.pixels.flip(0), mask=view.mask.flip(0))
    assert torch.equal(on(VisibleClusters(), turned, CELLS), ours.flip(0))
    bright = view.pixels.unflatten(2, (4, 8)).unflatten(4, (6, 8)).mean((1, 3, 5))
    for told, cells in zip(ours, bright, strict=True):
        means = [cells[cluster > 0].mean() for cluster in told if cluster.any()]
        assert means == sorted(means)


def test_an_even_image_is_one_cluster():
    view = draw_seen()._replace(pixels=torch.full((3, 3, *SIZE), 0.3))
    told = on(VisibleClusters(), view, CELLS)
    assert torch.equal(told[:, 0] > 0, ~view.mask)
    assert not told[:, 1:].any()


@pytest.mark.parametrize("cells", [(32, 48), (16, 24)])
def test_cells_of_a_pixel_or_two_have_a_description(cells):
    view = draw_seen(cells=cells, count=300)
    for part in (VisibleClusters(), SelfSimilarity()):
        assert on(part, view, cells).isfinite().all()


def slow_semantic_map(part: SemanticMap, view: View) -> Tensor:
    """Cell by cell: a softmax of distances where a cell is visible, elsewhere what the visible ones have, by their distance."""
    pictures, detail = part.prototypes.detach().double(), part.prototypes.shape[2]
    (height, width), cells = (SIZE[0] // CELLS[0], SIZE[1] // CELLS[1]), list(itertools.product(*map(range, CELLS)))
    oracle = torch.zeros(len(view.mask), len(pictures), *CELLS, dtype=torch.float64)
    for b in range(len(view.mask)):
        visible = [(row, column) for row, column in cells if not view.mask[b, row, column]]
        for row, column in visible:
            cell = view.pixels[b, :, row * height : (row + 1) * height, column * width : (column + 1) * width]
            small = mean_over_sites(cell[None], detail, detail)[0]
            likeness = torch.stack([(-(small - each).square().mean() / part.temperature).exp() for each in pictures])
            oracle[b, :, row, column] = likeness / likeness.sum()
        for row, column in set(cells) - set(visible):
            weights = [math.exp(-((row - r) ** 2 + (column - c) ** 2) / (2 * part.reach**2)) for r, c in visible]
            total = sum(weight * oracle[b, :, r, c] for weight, (r, c) in zip(weights, visible, strict=True))
            oracle[b, :, row, column] = total / sum(weights)
    return oracle


@pytest.mark.parametrize("part", [SemanticMap(), SemanticMap(3, temperature=0.7, reach=2.0, detail=3)], ids=repr)
def test_a_semantic_map_is_made_of_visible_cells_alone(part):
    view = coloured(3)
    oracle = slow_semantic_map(part, view)
    assert_close(on(part, view, CELLS), oracle)
    assert_close(on(part, view, (2, 3)), mean_over_sites(oracle, 2, 3))
    assert_close(on(part, view, CELLS).sum(1), torch.ones(3, *CELLS).double())


def test_where_nothing_is_visible_a_semantic_map_says_nothing():
    part = SemanticMap(reach=0.12)
    assert not on(part, draw_seen(count=24), (8, 12)).any()
    mask = torch.ones(3, *CELLS, dtype=torch.bool)
    mask[:, 0, 0] = False
    sums = on(part, draw_seen()._replace(mask=mask, num_masked=23), CELLS).sum(1)
    near = torch.tensor([[i**2 + j**2 < 2.4**2 for j in range(CELLS[1])] for i in range(CELLS[0])])  # 20 times .12 cells
    assert_close(sums, near.double().expand_as(sums))


@pytest.mark.parametrize("detail", [4, 3])  # cells of 8 pixels
def test_a_gradient_reaches_every_prototype_from_masked_cells_alone(detail):
    part, view = SemanticMap(detail=detail), draw_seen()
    view = view._replace(pixels=torch.where(spread(view.mask), math.nan, view.pixels))
    maps = on(part, view, CELLS).masked_fill(~view.mask[:, None], 0)
    (gradient,) = torch.autograd.grad(maps.square().sum(), part.prototypes)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_a_prototype_is_found_where_its_picture_is_seen():
    part, view = SemanticMap(temperature=0.01), draw_seen()
    picture = part.prototypes.detach()[5].repeat_interleave(2, 1).repeat_interleave(2, 2)  # cells of 8 pixels, 4 of detail
    view = view._replace(pixels=picture.repeat(1, *CELLS).expand_as(view.pixels))
    assert (on(part, view, CELLS).argmax(1) == 5).all()


def test_arguments_that_make_no_map_are_refused():
    for make in (
        lambda: SemanticMap(1),
        lambda: SemanticMap(temperature=0.0),
        lambda: SemanticMap(reach=-1.0),
        lambda: VisibleColour((0,)),
        lambda: VisibleClusters(1),
        lambda: VisibleClusters(4, -1),
        lambda: SelfSimilarity(2),
        lambda: SelfSimilarity(1),
    ):
        with pytest.raises(ValueError, match="give"):
            make()
    for part in (VisibleColour(colours=1), SemanticMap(colours=1)):
        with pytest.raises(ValueError, match="set its colours"):
            on(part, draw_seen(), CELLS)
