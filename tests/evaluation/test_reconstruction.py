import pytest
import torch
from einops import rearrange
from scipy.ndimage import distance_transform_cdt
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from torchmetrics.functional.image import structural_similarity_index_measure

from semconv.corruption import Bert, CamouflageFill, Hide, Noise, View, ZeroFill
from semconv.encoders import Geometry
from semconv.evaluation.classical import Harmonic, NearestVisible, VisibleMean
from semconv.evaluation.reconstruction import REGIONS, ReconstructionMetrics, distance_to_visible, regions, seam, ssim
from semconv.hashing import make_keys
from semconv.masking import CentreMasker, RandomMasker, spread_mask
from semconv.objective import Objective
from tests.experiments import built, make_task
from tests.recording import train

pytestmark = pytest.mark.usefixtures("quick_runs")

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
    mean = torch.where(hidden, objective.pixel_errors(prediction, objective.target(images)), 0).sum() / hidden.sum()
    assert mean == pytest.approx(objective(prediction, images, mask).item(), rel=1e-5)


NORMALISATION = ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def random_test(count=7):
    """Predictions, images, masks and predictions under hide."""
    generator = torch.Generator().manual_seed(2)
    images, noise, other = torch.randn(3, count, 3, *SIZE, generator=generator)
    return images + 0.3 * noise, images, masks(count, masker=CentreMasker), images + 0.5 * other


def measured_in(objective, batches, prediction, images, mask, under_hide):
    """The metrics of a test of batches of the given sizes."""
    metrics = ReconstructionMetrics(objective, images.shape[1], (images.shape[2], images.shape[3]))
    parts = zip(*(each.split(batches) for each in (prediction, images, mask, under_hide)), strict=True)
    for made, pixels, cells, hide in parts:
        metrics.update(metrics.measure(made, pixels, cells, NORMALISATION, hide))
    return metrics


@pytest.mark.parametrize("normalise", [True, False])
def test_each_metric_is_the_mean_that_it_says(normalise):
    """Image by image, in float64, from the definitions."""
    objective, (prediction, images, mask, under_hide) = Objective(4, normalise), random_test()
    centre, spread = (torch.tensor(part).double()[:, None, None] for part in NORMALISATION)

    def unit(pixels):
        return (pixels * spread + centre).clamp(0, 1)

    def patches(pixels):
        return rearrange(pixels, "c (gh p) (gw q) -> gh gw (c p q)", p=4, q=4)

    def whole(pixels):
        return rearrange(pixels, "gh gw (c p q) -> c (gh p) (gw q)", p=4, q=4)

    def standardised(pixels):
        cut = patches(pixels)
        return whole((cut - cut.mean(2, keepdim=True)) / (cut.var(2, keepdim=True) + 1e-6).sqrt())

    def restored(made, pixels):
        cut = patches(pixels)
        return whole(patches(made) * (cut.var(2, keepdim=True) + 1e-6).sqrt() + cut.mean(2, keepdim=True))

    found: dict[str, list[torch.Tensor]] = {}
    pixels: dict[str, list[torch.Tensor]] = {}
    for made, image, cells, hide in zip(prediction.double(), images.double(), mask, under_hide.double(), strict=True):
        hidden = spread_mask(cells[None], SIZE)[0, 0]
        target = standardised(image) if normalise else image
        fill = torch.zeros_like(image) if normalise else image[:, ~hidden].mean(1)[:, None, None].expand_as(image)
        borrowed = unit(restored(standardised(made), image)) - unit(image)
        predicted = restored(made, image) if normalise else made
        pasted = torch.where(hidden, predicted, image)
        _, maps = structural_similarity_index_measure(
            unit(pasted)[None], unit(image)[None], data_range=1.0, reduction="none", return_full_image=True
        )
        each = {
            "masked_mse": (made - target)[:, hidden].square().mean(),
            "masked_mse_under_hide": (hide - target)[:, hidden].square().mean(),
            "mean_fill_mse": (fill - target)[:, hidden].square().mean(),
            "psnr_given_moments": -10 * borrowed[:, hidden].square().mean().log10(),
            "ssim": maps[0][:, hidden].mean(),
        }
        if not normalise:
            error = (unit(made) - unit(image))[:, hidden].square().mean()
            each |= {"pixel_mse": error, "psnr": -10 * error.log10()}
        for name, value in each.items():
            found.setdefault(f"test/{name}", []).append(value)
        for name, region in regions(cells[None], SIZE).items():
            pixels.setdefault(f"test/masked_mse/{name}", []).append((made - target)[:, region[0, 0]].square().mean(0))
    oracle = {name: torch.stack(values).mean().item() for name, values in found.items()}
    oracle |= {name: torch.cat(values).mean().item() for name, values in pixels.items()}
    metrics = measured_in(objective, 7, prediction, images, mask, under_hide)
    assert values(metrics) == pytest.approx(oracle, rel=1e-5)
    assert metrics.absent.keys() == ({"test/pixel_mse", "test/psnr"} if normalise else set())
    # the mean fill predicts the mean of each normalised patch
    assert not normalise or oracle["test/mean_fill_mse"] == pytest.approx(47 / 48, rel=1e-3)


def test_what_patches_of_one_number_and_small_images_do_not_have_is_left_out():
    generator = torch.Generator().manual_seed(3)
    images, prediction = torch.randn(2, 4, 1, 4, 4, generator=generator)
    mask = torch.rand(4, 4, 4, generator=generator) < 0.5
    metrics = ReconstructionMetrics(Objective(1, normalise=False), 1, (4, 4))
    metrics.update(metrics.measure(prediction, images, mask, ((0.5,), (0.25,))))
    found = metrics.compute()
    assert all(value.isfinite() for value in found.values())
    left_out = {"test/psnr_given_moments": "a patch is one number", "test/ssim": "its window takes images of more than 5 pixels"}
    assert not left_out.keys() & found.keys()
    assert all(metrics.absent[key].startswith(reason) for key, reason in left_out.items())
    assert {"test/psnr_given_moments", "test/ssim"} <= set(measured_in(Objective(1, normalise=False), 7, *random_test()).compute())


def values(metrics):
    return {name: value.item() for name, value in metrics.compute().items()}


def test_metrics_are_the_same_in_any_batches_and_processes():
    objective, given = Objective(4, normalise=False), random_test()
    whole = values(measured_in(objective, 7, *given))
    assert values(measured_in(objective, [3, 3, 1], *given)) == pytest.approx(whole, rel=1e-6)
    first, second = (measured_in(objective, 2, *(each[part] for each in given)) for part in (slice(4), slice(4, 7)))
    for state, reduction in first._reductions.items():  # as torchmetrics joins the states of processes
        assert callable(reduction)
        setattr(first, state, reduction(torch.stack([getattr(first, state), getattr(second, state)])))
    assert values(first) == pytest.approx(whole, rel=1e-6)


def test_a_nan_stays_visible_in_a_metric():
    prediction, images, mask, under_hide = random_test()
    hidden = spread_mask(mask, SIZE)
    beside = prediction.masked_fill(~hidden, torch.nan)
    clean, unread = (measured_in(Objective(4), 7, each, images, mask, under_hide).compute() for each in (prediction, beside))
    assert unread["test/masked_mse"] == clean["test/masked_mse"]
    prediction[3][hidden[3].expand(3, -1, -1)] = torch.nan
    broken = measured_in(Objective(4), [3, 3, 1], prediction, images, mask, under_hide).compute()
    seen_apart = {"test/masked_mse_under_hide", "test/mean_fill_mse"}
    assert {name for name, value in broken.items() if not value.isnan()} == seen_apart


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
            errors = (cli.model.eval()(seen) - cli.model.squared.target(batch.images)).square().mean(1, keepdim=True)
        for name, region in regions(mask, (32, 32)).items():
            found[name] += errors[region].double().sum().item()
            number[name] += int(region.sum())
    for name in REGIONS:
        assert number[name] == 0 or results[f"test/masked_mse/{name}"] == pytest.approx(found[name] / number[name], rel=1e-4)
    whole = sum(found[name] for name in REGIONS[:3]) / sum(number[name] for name in REGIONS[:3])
    assert results["test/masked_mse"] == pytest.approx(whole, rel=1e-4)
    assert results["test/masked_mse_under_hide"] == results["test/masked_mse"]


def test_metrics_are_not_rounded_as_the_network_is(tmp_path):
    found = {}
    for precision in ("32-true", "bf16-true"):
        few = ["--trainer.max_steps=1", "--data.num_images=16", "--data.batch_size=8", "--data.num_test_images=8"]
        cli = train("cnn_plain", tmp_path / precision, f"--trainer.precision={precision}", *few)
        (found[precision],) = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    # no network has a part in this one
    assert found["bf16-true"]["test/mean_fill_mse"] == found["32-true"]["test/mean_fill_mse"]


def test_a_denoising_network_is_tested_under_hide_too(tmp_path):
    cli = train("cnn_denoising", tmp_path)
    (results,) = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    assert results["test/masked_mse_under_hide"] > results["test/masked_mse"] + 0.01
    for fill, corruption in ((ZeroFill(), Noise()), (CamouflageFill(), Bert(CamouflageFill()))):
        under_hide = []
        for cli.model.corruption in (corruption, Hide(fill)):
            (results,) = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
            under_hide.append(results["test/masked_mse_under_hide"])
        assert under_hide[0] == under_hide[1] == results["test/masked_mse"]


def test_where_no_pixel_is_hidden_there_is_a_reason(tmp_path):
    cli = train("cnn_plain", tmp_path, "--model.masker=semconv.masking.GridMasker", "--model.masker.ratio=0.5")
    (results,) = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    assert "test/masked_mse/distance_3" not in results
    assert cli.model.absent_metrics["test/masked_mse/distance_3"] == "no hidden pixel lies there"
    assert make_task("cnn_plain").absent_metrics.keys() == {"test/pixel_mse", "test/psnr"}
