"""The run that an export of many takes."""

import json

import pytest

from semconv.comparison.best import best_run
from tests.comparison.test_command import write_run


def test_the_best_seed_of_the_network_with_the_best_mean_is_taken(tmp_path):
    errors = {"cnn_plain": [0.5, 0.9], "told": [0.6, 0.7], "other": [0.65, 0.68]}
    for name, values in errors.items():
        for seed, value in enumerate(values):
            more = {"val/masked_mse": value, "probe/linear_top1": value}
            mechanism = "Plain" if name == "cnn_plain" else "Channels"
            write_run(tmp_path / "confirm-2" / name / f"{seed}", name, value, seed, more, mechanism=mechanism, depth=name)
            # neither a control nor the runs of another stage
            write_run(tmp_path / "confirm-2" / f"{name}-zero" / f"{seed}", name, 0.1, seed, {"val/masked_mse": 0.1}, control="Zero")
            write_run(tmp_path / "tune-1" / name / f"{seed}", name, 0.1, seed, {"val/masked_mse": 0.1}, depth=name)
    (tmp_path / "study.yaml").touch()
    best = best_run(tmp_path, "val/masked_mse")
    assert (best.run, best.variant) == (tmp_path / "confirm-2" / "told" / "0", "told")
    assert (best.num_variants, best.num_seeds, best.mean, best.value) == (3, 2, pytest.approx(0.65), 0.6)
    assert best.verdicts[0].startswith("inconclusive for reconstruction: a verdict takes at least 3 seeds")
    plain = best_run(tmp_path, "probe/linear_top1")
    assert (plain.run, plain.verdicts) == (tmp_path / "confirm-2" / "cnn_plain" / "1", ())


def test_runs_of_which_none_is_the_best_are_refused_in_a_line(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        best_run(tmp_path / "none", "val/masked_mse")
    with pytest.raises(ValueError, match=r"no run in .* has ended with a test: give the folder of a run"):
        best_run(tmp_path, "val/masked_mse")
    with pytest.raises(ValueError, match=r"val/masked_msi is no metric .* did you mean val/masked_mse"):
        best_run(tmp_path, "val/masked_msi")
    (tmp_path / "study.yaml").touch()
    with pytest.raises(ValueError, match="has confirmed nothing yet"):
        best_run(tmp_path, "val/masked_mse")
    write_run(tmp_path / "a" / "1", "told", 0.5)
    with pytest.raises(ValueError, match=r"no run in .* has val/masked_mse"):
        best_run(tmp_path / "a", "val/masked_mse")
    write_run(tmp_path / "a" / "2", "other", 0.5, source="photos")
    with pytest.raises(ValueError, match=r"as they differ in data.source: scenes, photos: give the folder of one run"):
        best_run(tmp_path / "a", "test/masked_mse")
    (tmp_path / "a" / "sweep.yaml").write_text(json.dumps({"description": "factors: data.source"}))
    with pytest.raises(ValueError, match=r"has runs of several data.source"):
        best_run(tmp_path / "a", "test/masked_mse")
