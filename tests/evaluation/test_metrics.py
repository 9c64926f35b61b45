import pytest
import torch
from scipy.ndimage import distance_transform_cdt
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from torchmetrics.functional.image import structural_similarity_index_measure

from semconv.corruption import View
from semconv.encoders import Geometry
from semconv.evaluation.classical import Harmonic, NearestVisible, VisibleMean
from semconv.evaluation.metrics import REGIONS, distance_to_visible, regions, seam, squared_errors, ssim
from semconv.hashing import make_keys
from semconv.masking import CentreMasker, RandomMasker, spread_mask
from semconv.objective import Objective
from tests.experiments import built, make_task
from tests.recording import train

GRID, SIZE = (6, 8), (24, 32)


def masks(count=4, ratio=0.75, masker=RandomMasker):
    return masker(ratio)(make_keys(0, torch.arange(count)), GRID, round(ratio * 48))


@pytest.mark.parametrize("masker", [RandomMasker, CentreMasker])
def test_distance_is_the_chessboards(masker):
    found = distance_to_visible(masks(masker=masker))
    for mask, distance in zip(masks(masker=masker), found, strict=True):
        oracle = distance_transform_cdt(mask.numpy(), "chessboard")
        assert torch.equal(distance, torch.from_numpy(oracle).long().clamp(max=3))
    assert found.max() == (3 if masker is CentreMasker else found.max())


def test_regions_by_distance_make_up_what_is_hidden():
    mask = masks()
    found, hidden = regions(mask, SIZE), spread_mask(mask, SIZE)
    assert tuple(found) == REGIONS
    by_distance = torch.stack([found[name] for name in REGIONS[:3]]).sum(0)
    assert torch.equal(by_distance, hidden.long())


@pytest.mark.parametrize(("size", "depth"), [((24, 32), 1), ((96, 128), 2)])
def test_the_seam_is_what_is_hidden_and_near_something_visible(size, depth):
    mask = masks()
    hidden = spread_mask(mask, size)[:, 0]
    for number in range(len(mask)):
        oracle = distance_transform_cdt(hidden[number].numpy(), "chessboard")
        assert torch.equal(seam(mask, size)[number, 0], torch.from_numpy((oracle > 0) & (oracle <= depth)))


def test_similarity_is_averaged_over_hidden_pixels():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 4, 3, *SIZE, generator=generator)
    everywhere = torch.ones(4, 1, *SIZE, dtype=torch.bool)
    oracle = torch.as_tensor(structural_similarity_index_measure(first, second, data_range=1.0, reduction="none"))
    assert torch.allclose(ssim(first, second, everywhere), oracle, atol=1e-5)
    hidden = spread_mask(masks(), SIZE)
    assert torch.allclose(ssim(first, first, hidden), torch.ones(4), atol=1e-5)
    assert not torch.allclose(ssim(first, second, hidden), oracle, atol=1e-5)


def test_errors_by_pixel_add_up_to_the_objective():
    generator = torch.Generator().manual_seed(0)
    prediction, images = torch.randn(2, 4, 3, *SIZE, generator=generator)
    objective, mask = Objective(4), masks()
    hidden = spread_mask(mask, SIZE)
    mean = torch.where(hidden, squared_errors(prediction, images, objective), 0).sum() / hidden.sum()
    assert mean == pytest.approx(objective(prediction, images, mask).item(), rel=1e-5)


def view(fill=0.0):
    generator = torch.Generator().manual_seed(1)
    images, mask = torch.randn(4, 3, *SIZE, generator=generator), masks()
    return images, View(images.masked_fill(spread_mask(mask, SIZE), fill), mask, 36)


def geometry():
    return Geometry(3, SIZE, 4)


def test_the_nearest_visible_pixel_by_trying_all():
    images, seen = view()
    filled = NearestVisible(geometry(), "test")(seen).features
    visible = (~spread_mask(seen.mask, SIZE))[0, 0].nonzero().double()
    for row, column in ((0, 0), (5, 9), (23, 31), (12, 16)):
        distances = torch.cdist(torch.tensor([[row, column]]).double(), visible)[0]
        nearest = visible[(distances - distances.min()).abs() < 1e-9].long()
        candidates = images[0][:, nearest[:, 0], nearest[:, 1]].T
        assert (candidates == filled[0, :, row, column]).all(1).any()


def test_diffusion_solves_laplaces_equation():
    images, seen = view()
    filled = Harmonic(geometry(), "test", tolerance=1e-7)(seen).features
    hidden = spread_mask(seen.mask, SIZE)[0, 0]
    number = -torch.ones(SIZE, dtype=torch.int64)
    number[hidden] = torch.arange(int(hidden.sum()))
    matrix, right = lil_matrix((int(hidden.sum()),) * 2), torch.zeros(int(hidden.sum()), dtype=torch.float64)
    for row, column in hidden.nonzero().tolist():
        own = int(number[row, column])
        for down, along in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            r, c = row + down, column + along
            if 0 <= r < SIZE[0] and 0 <= c < SIZE[1]:
                matrix[own, own] += 1
                if hidden[r, c]:
                    matrix[own, int(number[r, c])] -= 1
                else:
                    right[own] += images[0, 1, r, c].double()
    oracle = torch.from_numpy(spsolve(matrix.tocsr(), right.numpy()))
    assert torch.allclose(filled[0, 1][hidden].double(), oracle, atol=1e-4)


@pytest.mark.parametrize("floor", [VisibleMean, NearestVisible, Harmonic])
def test_a_floor_keeps_what_is_visible_and_reads_nothing_else(floor):
    images, seen = view(fill=float("nan"))
    filled = floor(geometry(), "test")(seen).features
    visible = ~spread_mask(seen.mask, SIZE).expand_as(images)
    assert torch.equal(filled[visible], images[visible])
    assert torch.equal(filled, floor(geometry(), "test")(view()[1]).features)


@pytest.mark.parametrize("name", ["mean_fill", "nearest_fill", "harmonic_fill"])
def test_floors_are_experiments_without_parameters(name):
    task = built(f"classical/{name}").model
    assert not any(True for _ in task.parameters())
    assert built(f"classical/{name}").config["experiment"] == name


def test_a_test_measures_every_region(tmp_path):
    cli = train("cnn_plain", tmp_path)
    (results,) = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    assert {f"test/masked_mse/{name}" for name in REGIONS} - set(results) == set(cli.model.absent_metrics) - {
        "test/pixel_mse",
        "test/psnr",
    }
    found, number = dict.fromkeys(REGIONS, 0.0), dict.fromkeys(REGIONS, 0)
    for batch in cli.datamodule.test_dataloader():
        batch = cli.datamodule.on_after_batch_transfer(batch)
        seen, mask = cli.model.look(batch, "test")
        with torch.no_grad():
            errors = squared_errors(cli.model.eval()(seen), batch.images, cli.model.squared)
        for name, region in regions(mask, (32, 32)).items():
            found[name] += errors[region].double().sum().item()
            number[name] += int(region.sum())
    for name in REGIONS:
        assert number[name] == 0 or results[f"test/masked_mse/{name}"] == pytest.approx(found[name] / number[name], rel=1e-4)
    whole = sum(found[name] for name in REGIONS[:3]) / sum(number[name] for name in REGIONS[:3])
    assert results["test/masked_mse"] == pytest.approx(whole, rel=1e-4)
    assert results["test/masked_mse_under_hide"] == results["test/masked_mse"]


def test_a_denoising_network_is_tested_under_hide_too(tmp_path):
    cli = train("cnn_denoising", tmp_path)
    (results,) = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    assert results["test/masked_mse_under_hide"] > results["test/masked_mse"] + 0.01


def test_where_no_pixel_is_hidden_there_is_a_reason(tmp_path):
    cli = train("cnn_plain", tmp_path, "--model.masker=semconv.masking.GridMasker", "--model.masker.ratio=0.5")
    (results,) = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    assert "test/masked_mse/distance_3" not in results
    assert cli.model.absent_metrics["test/masked_mse/distance_3"] == "no hidden pixel lies there"
    assert make_task("cnn_plain").absent_metrics.keys() == {"test/pixel_mse", "test/psnr"}
