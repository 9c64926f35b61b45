import json
import math
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from semconv.commands.train import main
from semconv.controls import Zero, set_control
from semconv.data import ImageData
from semconv.encoders import Encoding
from semconv.evaluation.features import (
    Evaluated,
    Features,
    everything,
    extract,
    frozen,
    pool,
    pool_visible,
    recalibrated,
)
from semconv.evaluation.full import equivariance_error, rankme
from semconv.evaluation.importance import importance
from semconv.evaluation.pixels import remembered, thumbnails
from semconv.evaluation.probes import check_labels, choose_linear, fit_linear, knn_scores, top1
from semconv.evaluation.quick import _calibrated, _extract, _probe, _untrained, evaluate
from semconv.evaluation.sites import LeastSquares, dense_miou, mask_auc, probe_sites, r2
from tests.experiments import arguments, make_task, stir
from tests.recording import SHORT

CLASSES = 4


def features(count: int = 300, width: int = 6, noise: float = 1.5, seed: int = 0) -> Features:
    """Classes as clouds of points, of features whose units differ."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    centres = np.random.default_rng(99).normal(0, 1, (CLASSES, width))
    vectors = (centres[labels] + generator.normal(0, noise, (count, width))) * np.arange(1, width + 1) + 3
    return Features(torch.from_numpy(vectors).float(), torch.from_numpy(labels), torch.zeros(count, width))


@pytest.mark.parametrize("penalty", [0.1, 1e-3])
def test_the_linear_probe_is_scikit_learns(penalty):
    train, test = features(), features(seed=1)
    own = fit_linear(train.vectors, train.labels, CLASSES, penalty)
    scaler = StandardScaler().fit(train.vectors.numpy().astype(float))
    oracle = LogisticRegression(C=1 / (penalty * 300), tol=1e-10, max_iter=10000)
    oracle.fit(scaler.transform(train.vectors.numpy().astype(float)), train.labels.numpy())
    expected = oracle.predict_proba(scaler.transform(test.vectors.numpy().astype(float)))
    # both stop at a gradient of about 1e-6
    assert np.abs(softmax(own.scores(test.vectors).numpy(), axis=1) - expected).max() < 1e-4


def test_neighbours_are_scikit_learns():
    train, test = features(), features(seed=1)
    oracle = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07))
    oracle.fit(train.vectors.numpy(), train.labels.numpy())
    own = knn_scores(train, test.vectors, CLASSES)
    assert np.abs((own / own.sum(1, keepdim=True)).numpy() - oracle.predict_proba(test.vectors.numpy())).max() < 1e-4


def test_the_penalty_is_the_best_on_what_was_held_out():
    train = features(60, width=40, noise=4)
    held = torch.arange(60) % 10 == 9
    accuracies = [
        top1(
            fit_linear(train.vectors[~held], train.labels[~held], CLASSES, penalty).scores(train.vectors[held]), train.labels[held]
        )
        for penalty in (1.0, 1e-1, 1e-6)
    ]
    chosen = choose_linear(train, CLASSES, (1.0, 1e-1, 1e-6)).penalty
    assert chosen == (1.0, 1e-1, 1e-6)[accuracies.index(max(accuracies))]


def test_a_feature_that_never_changes_does_no_harm():
    train = features()
    vectors = torch.cat([train.vectors, torch.ones(300, 1)], dim=1)
    assert fit_linear(vectors, train.labels, CLASSES, 1e-3).scores(vectors).isfinite().all()


@pytest.mark.parametrize(
    ("labels", "neighbours", "message"),
    [([-1, 0, 1], 1, "1 of 6 images have no label"), ([2, 2, 2], 1, "of one class"), ([0, 1, 0], 20, "3 images for 20 neighbours")],
)
def test_labels_that_cannot_be_probed_are_refused(labels, neighbours, message):
    train = Features(torch.zeros(3, 2), torch.tensor(labels), torch.zeros(3, 2))
    test = train._replace(labels=train.labels.clamp(min=0))
    with pytest.raises(ValueError, match=message):
        check_labels(train, test, neighbours)


def test_fewer_images_than_neighbours_are_refused():
    with pytest.raises(ValueError, match="10 images for 20 neighbours"):
        knn_scores(features(10), features(5).vectors, CLASSES)


def test_least_squares_are_scikit_learns():
    generator = np.random.default_rng(0)
    rows, targets = generator.normal(2, 3, (500, 5)), generator.normal(0, 1, (500, 3))
    own = LeastSquares()
    for part in np.array_split(np.arange(500), 7):
        own.add(torch.from_numpy(rows[part]), torch.from_numpy(targets[part]))
    oracle = LinearRegression().fit(rows, targets)
    assert np.abs(own.solve()[:-1].numpy().T - oracle.coef_).max() < 1e-5
    assert np.abs(own.solve()[-1].numpy() - oracle.intercept_).max() < 1e-5


def test_the_area_under_the_curve_is_scikit_learns_with_ties():
    generator = np.random.default_rng(0)
    scores, masked = generator.integers(0, 6, 200).astype(float), generator.random(200) < 0.4
    assert mask_auc(torch.from_numpy(scores), torch.from_numpy(masked).float()) == pytest.approx(roc_auc_score(masked, scores))
    assert mask_auc(torch.zeros(3), torch.ones(3)) is None


def test_explained_variance_is_scikit_learns():
    generator = np.random.default_rng(0)
    targets = generator.normal(0, [1, 5, 0.1], (200, 3))
    answers = targets + generator.normal(0, 0.5, (200, 3))
    assert r2(torch.from_numpy(answers), torch.from_numpy(targets)) == pytest.approx(r2_score(targets, answers))
    places = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    assert r2(places, places) == 1
    assert r2(torch.zeros(2, 2), places) == 0
    assert r2(places, torch.zeros(2, 2)) is None
    assert r2(torch.zeros(0, 3), torch.zeros(0, 3)) is None


def test_pooling_counts_the_sites_that_stand():
    encoding = Encoding(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[True, False]]]))
    assert pool(encoding).item() == 1
    assert pool(encoding._replace(valid=None)).item() == 2


def test_effective_rank_by_hand():
    assert rankme(torch.eye(5).repeat(3, 1)) == pytest.approx(5, rel=1e-4)
    assert rankme(torch.ones(9, 4)) == pytest.approx(1, rel=1e-4)


def evaluated(name: str = "cnn_channels", *overrides: str) -> Evaluated:
    data = ImageData("scenes", num_images=100, num_test_images=40, batch_size=20)
    data.setup("fit")
    data.setup("test")
    task = make_task(name, *overrides)
    task.trainer = None
    return Evaluated(task, data, nullcontext)


def state(module: torch.nn.Module) -> list[Any]:
    return [tensor.clone() for tensor in module.state_dict().values()] + [part.training for part in module.modules()]


@pytest.mark.usefixtures("quick_probes")
@pytest.mark.parametrize("name", ["cnn_channels", "mae_vit"])
def test_an_evaluation_leaves_no_trace(name):
    those = evaluated(name, "--model.size=micro", *(["--model.encoder.norm=batch"] if name.startswith("cnn") else []))
    stir(those.task.encoder)
    those.task.train()
    before = state(those.task)
    torch.manual_seed(0)
    drawn = torch.random.get_rng_state()
    results, _ = evaluate(those, 60, True)
    after = state(those.task)
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(before, after, strict=True))
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert results["probe/num_train_images"] == 60
    assert results["probe/num_features"] == those.task.encoder.num_features
    wanted = {"probe/linear_top1", "probe/knn_top1", "probe/dense_miou", "probe/position_r2", "probe/mask_auc"}
    wanted |= {"probe/rgb_r2", "probe/rgb_r2/stage_4"}
    wanted |= {
        "probe/knn_top1_masked_visible",
        "probe/linear_top1_masked",
        "probe/linear_top1_gap",
        "probe/position_r2/stage_4",
        "probe/mask_auc/stage_0",
    }
    assert wanted <= set(results)
    assert all(f"{key}/reason" in results for key, value in results.items() if value is None)
    whole, masked = (_calibrated(those, kind) for kind in ("whole", "masked"))
    assert _probe(*_extract(whole, "whole", 60)).linear == results["probe/linear_top1"]
    assert dense_miou(whole) == results["probe/dense_miou"]
    assert probe_sites(masked).items() <= results.items()


@pytest.mark.usefixtures("quick_probes")
@pytest.mark.parametrize(("norm", "recalibrate"), [("layer", False), ("batch", False), ("batch", True)])
def test_the_untrained_network_is_probed_as_the_same_weights_are_as_trained_ones(norm, recalibrate):
    those = evaluated("cnn_channels", f"--model.encoder.norm={norm}", "--model.size=micro")
    statistics = _calibrated(those, "masked").encoder.state_dict()  # as training on masked views leaves them
    those.task.encoder.load_state_dict(statistics)
    before, _ = evaluate(those, 40, recalibrate)
    stir(those.task.encoder)
    found = _untrained(those, 40, recalibrate)
    untrained = {key.removeprefix("untrained/"): value for key, value in found.items()}
    assert {"probe/linear_top1", "probe/knn_top1", "probe/position_r2/stage_3"} <= set(untrained)
    assert untrained == {key: before[key] for key in untrained}
    assert evaluate(those, 40, recalibrate)[0]["probe/position_r2"] != before["probe/position_r2"]


def test_a_thumbnail_is_the_means_of_its_areas():
    those = evaluated("cnn_plain")
    found = thumbnails(those, "test", 20)
    (batch,) = those.batches("test", 20)
    expected = batch.images.unflatten(3, (8, 4)).unflatten(2, (8, 4)).mean((3, 5))
    assert torch.allclose(found.vectors, expected.flatten(1), atol=1e-6)
    assert torch.equal(found.labels, batch.labels)


def test_pixels_are_probed_once_for_the_same_images(tmp_path):
    data = ImageData("scenes", cache_folder=str(tmp_path))
    train = features(30)
    for expected, given in enumerate([train, train, features(30, seed=1), train, features(30, seed=1)], start=1):
        made = remembered(data, [given], partial(dict, made=expected))
        assert made == {"made": {1: 1, 2: 1, 3: 3, 4: 1, 5: 3}[expected]}
    data.cache_limit = 0
    assert remembered(data, [train], lambda: {"made": 9}) == {"made": 9}


def test_features_are_pooled_over_all_sites_and_over_visible_ones():
    mask = torch.tensor([[[True, False], [False, False]]])
    features = torch.tensor([[[[float("nan"), 1.0], [2.0, 6.0]]]])
    assert pool_visible(Encoding(features), mask).item() == 3
    # a site of two cells counts by its visible share
    assert pool_visible(Encoding(torch.tensor([[[[1.0, 4.0]]]])), mask).item() == pytest.approx((0.5 * 1 + 4) / 1.5)
    assert pool_visible(Encoding(torch.ones(1, 1, 2, 2)), torch.ones_like(mask)).item() == 0
    for name in ("mae_vit", "cnn_plain"):
        those = evaluated(name)
        for kind in ("whole", "masked"):
            found, _ = _extract(those, kind, 40)
            same = torch.allclose(found.vectors, found.visible, atol=1e-5)
            assert same == (kind == "whole" or name == "mae_vit")


@pytest.mark.usefixtures("quick_runs")
def test_an_evaluation_writes_no_features_beside_the_checkpoint(tmp_path):
    few = ["--data.num_images=64", "--trainer.max_steps=1", "--evaluation=quick"]
    main(["run", *arguments("cnn_plain", *SHORT, *few, f"--runs={tmp_path}")])
    (checkpoints,) = tmp_path.glob("*/*/checkpoints")
    assert [path.name for path in checkpoints.iterdir()] == ["last.ckpt"]
    assert "probe/linear_top1" in json.loads((checkpoints.parent / "summary.json").read_text())


def test_batch_norms_are_recalibrated_in_a_copy():
    those = evaluated("cnn_plain", "--model.encoder.norm=batch")

    def look(batch):
        return everything(batch.images, 4)

    copy: Any = recalibrated(those, look)
    first, second = those.task.encoder.stem.after, copy.stem.after
    assert not first.running_mean.any()
    batches = list(those.batches("train", 1024))
    with frozen(copy), torch.no_grad():
        maps = [copy.stem.convolution(batch.images, None) for batch in batches]
    means = torch.stack([each.mean((0, 2, 3)) for each in maps]).mean(0)
    assert torch.allclose(second.running_mean, means, atol=1e-5)


def test_batch_norms_are_recalibrated_alike_in_all_processes():
    those = evaluated("cnn_plain", "--model.encoder.norm=batch", "--model.size=micro")
    batches = list(those.batches("train", 1024))
    told: list[Any] = []

    def process(share, gathered):
        each = SimpleNamespace(
            encoder=those.encoder, task=those.task, precision=nullcontext, batches=lambda *_: batches[share], gathered=gathered
        )
        norms = (part for part in recalibrated(cast(Any, each), lambda batch: everything(batch.images, 4)).modules())
        return [norm.running_mean for norm in norms if isinstance(norm, torch.nn.BatchNorm2d)]

    def alone(own):
        told.append(own)
        return [own]

    for share in (slice(0, 3), slice(3, 5)):
        process(share, alone)
    first, second = (process(share, lambda _: told) for share in (slice(0, 3), slice(3, 5)))
    whole = process(slice(0, 5), lambda own: [own])
    assert len(batches) == 5
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert torch.allclose(first[0], whole[0], atol=1e-6)  # those of later layers follow the norms before them


def test_features_that_are_not_finite_are_told():
    train = features(30)
    train.vectors[3, 2] = torch.nan
    with pytest.raises(ValueError, match="features are not finite"):
        choose_linear(train, CLASSES)


def test_images_are_probed_in_their_own_order():
    those = evaluated("cnn_plain")
    found = extract(those, those.task.encoder, "test", 40, lambda batch: everything(batch.images, 4))
    batch = next(iter(those.batches("test", 40)))
    assert torch.equal(found.labels[:20], batch.labels)  # 40 are two batches of 20
    with torch.no_grad():
        expected = those.task.encoder(everything(batch.images, 4)).features.mean((2, 3))
    assert torch.allclose(found.vectors[:20], expected, atol=1e-6)


def test_importance_is_what_the_error_grows_by():
    those = evaluated()
    stir(those.task.encoder)
    found = importance(those, 40)
    assert set(found) == {f"importance/Mask/{how}" for how in ("zeroed", "shuffled", "another_mask")} | {
        f"importance/Coordinates/{how}" for how in ("zeroed", "shuffled")
    }
    assert all(abs(value) > 1e-5 for value in found.values())
    errors = []
    for zeroed in (False, True):
        total = 0.0
        for batch in those.batches("test", 40):
            view, mask = those.task.look(batch, "test")
            part = those.task.encoder.indicators.parts[0]
            original = part.forward
            if zeroed:
                part.forward = lambda *given, original=original: original(*given) * 0
            with torch.no_grad():
                total += those.task.squared.per_image(those.task(view), batch.images, mask).sum().item()
            part.forward = original
        errors.append(total / 40)
    assert found["importance/Mask/zeroed"] == pytest.approx(errors[1] - errors[0], rel=1e-3)


def test_the_importance_of_a_control_leaves_its_other_signals():
    those = evaluated()
    stir(those.task.encoder)
    set_control(those.task.encoder, Zero())
    found = importance(those, 40)
    assert found["importance/Mask/zeroed"] == found["importance/Coordinates/zeroed"] == 0  # they are zeros already
    assert abs(found["importance/Mask/shuffled"]) > 1e-5


def test_an_indicator_without_weights_is_of_no_importance():
    found = importance(evaluated(), 32)  # indicator weights start at zero
    assert all(value == 0 for value in found.values())
    assert importance(evaluated("cnn_plain"), 32)["importance/reason"] == "the network has no indicators"


def test_a_network_that_is_told_knows_where_and_what():
    """Channels that carry mask and place to the features are read off them exactly."""
    told = evaluated(
        "cnn_channels", "--model.encoder.mechanism.average=false"
    )  # so that the stirred weights weigh as much as features
    plain = evaluated("cnn_plain", "--model.padding_mode=circular")
    stir(told.task.encoder)
    known, unknown = probe_sites(told, 40), probe_sites(plain, 40)
    assert known["probe/position_r2"] > unknown["probe/position_r2"] + 0.3
    assert known["probe/position_r2/stage_0"] > 0.8
    assert unknown["probe/position_r2"] < 0.2
    assert known["probe/position_r2"] == known["probe/position_r2/stage_4"]


@pytest.mark.parametrize("name", ["cnn_plain", "mae_vit"])
def test_the_colour_that_is_kept_is_what_scikit_learn_reads_off_visible_sites(name):
    those = evaluated(name)
    rows: dict[str, list[np.ndarray]] = {}
    for part in ("train", "test"):
        features, colours = [], []
        for batch in those.batches(part, 40):
            view, mask = those.task.look(batch, "probe")
            with torch.no_grad():
                encoding = those.task.encoder.encode_stages(view)[-1]
            # one site for each cell: the mean over its pixels, of which the corruption has left no other
            cells = batch.images.unflatten(2, (8, 4)).unflatten(4, (8, 4)).mean((3, 5))
            features.append(encoding.features.movedim(1, 3)[~mask].double())
            colours.append(cells.movedim(1, 3)[~mask].double())
        rows[part] = [torch.cat(found).numpy() for found in (features, colours)]
    oracle = LinearRegression().fit(*rows["train"])
    expected = r2_score(rows["test"][1], oracle.predict(rows["test"][0]))
    found = probe_sites(those, 40)
    assert found["probe/rgb_r2"] == found["probe/rgb_r2/stage_4"]
    assert found["probe/rgb_r2"] == pytest.approx(expected, abs=1e-3)  # the ridge


def test_colours_that_nobody_sees_are_unknown():
    """A single site covers the whole image, and so masked cells."""
    those = evaluated("cnn_plain")
    original = those.task.encoder.encode_stages

    def coarse(view):
        return [each._replace(features=each.features[:, :, :1, :1]) for each in original(view)]

    those.task.encoder.encode_stages = coarse
    found = probe_sites(those, 32)
    assert found["probe/rgb_r2"] is None
    assert "wholly visible" in found["probe/rgb_r2/reason"]


def test_dense_labels_are_those_of_the_scenes():
    those = evaluated("cnn_plain")
    batch = next(iter(those.batches("test", 40)))
    maps = those.data.label_maps("test", batch.index)
    assert maps.shape == (20, 32, 32)
    # the subject, drawn last, is seen wherever it is
    assert all((each == label + 1).any() for each, label in zip(maps, batch.labels, strict=True))
    assert 0 < dense_miou(those, 40) < 1


def test_circular_networks_shift_as_images_do_by_whole_strides():
    exact = evaluated("cnn_plain", "--model.padding_mode=circular")
    assert equivariance_error(exact, 4) < 1e-5
    assert equivariance_error(exact, 1) > 1e-3
    assert equivariance_error(evaluated("cnn_plain"), 4) > 1e-3
    assert math.isfinite(equivariance_error(evaluated("mae_vit"), 2))


def test_data_without_labels_leave_nulls_with_reasons():
    those = evaluated("cnn_plain")
    for images in those.data.opened.values():
        images.labels.fill_(-1)
    results, classifier = evaluate(those, 60, False)
    assert classifier is None
    for key in ("probe/linear_top1", "probe/knn_top1_masked_visible", "untrained/probe/linear_top1", "pixels/linear_top1"):
        assert results[key] is None
        assert "have no label" in results[f"{key}/reason"]
    assert results["probe/position_r2"] is not None
    assert results["untrained/probe/position_r2"] is not None


def test_features_that_were_trained_on_classes_score_clearly_above_random_ones():
    """An encoder trained on the labels for a few steps: what a probe has to find if it finds anything."""
    those = evaluated("cnn_plain", "--data.size=[16, 16]", "--model.size=micro")
    data = ImageData("scenes/dark", size=(16, 16), num_images=1280, num_test_images=256, batch_size=64, crop_scale=None)
    data.setup("fit")
    data.setup("test")
    those = those._replace(data=data)

    def look(batch):
        return everything(batch.images, 4)

    def accuracies() -> tuple[float, float]:
        train, test = (extract(those, those.task.encoder, part, None, look) for part in ("train", "test"))
        scores = choose_linear(train, 10, (1e-2,)).scores(test.vectors), knn_scores(train, test.vectors, 10)
        return top1(scores[0], test.labels), top1(scores[1], test.labels)

    random = accuracies()
    torch.manual_seed(0)
    encoder, head = those.task.encoder.train(), torch.nn.Linear(those.task.encoder.num_features, 10)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=2e-3)
    for _ in range(5):
        for batch in those.batches("train", None):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(pool(encoder(look(batch)))), batch.labels).backward()
            optimizer.step()
    trained = accuracies()
    assert trained[0] > random[0] + 0.1
    assert trained[1] > random[1] + 0.1
