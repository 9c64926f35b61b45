import re

import pytest

from semconv.__main__ import main
from semconv.checks.leakage import Circumstances, Leak, check_leakage, find_leak, find_mixing, untested
from semconv.corruption import Hide, Noise
from semconv.masking import RandomMasker
from tests.checks.leaking import CHEATS, Bypassing, CentredHide, Idle, LateFill, MultipliedFill, Noisy, ResizedHide
from tests.experiments import FOLDER, arguments, built, make_task, random_images

STEM = "encoder.stem.convolution.convolution"
OWN_ENCODER = ["--model.corruption=tests.checks.leaking.Shown", "--model.encoder=tests.checks.leaking.MaskedFeatures"]


def check(monkeypatch, *options):
    monkeypatch.setattr("sys.argv", ["semconv", "check", "leakage", *options])
    main()


@pytest.mark.parametrize(
    ("corruption", "by"),
    [(Hide(MultipliedFill()), "NaN"), (Hide(LateFill()), "content"), (ResizedHide(), "content"), (CentredHide(), "content")],
    ids=["product", "late fill", "resized", "mean of the whole image"],
)
def test_a_leak_of_the_corruption_is_found_at_the_first_layer(corruption, by):
    task = make_task("cnn_plain")
    leak = find_leak(task, random_images(task), RandomMasker(), corruption)
    assert leak == Leak("features", by, STEM, view=True)


def test_a_leak_by_gradient_alone_is_found():
    class Straight(Hide):
        def __call__(self, images, mask, num_masked, keys):
            view = super().__call__(images, mask, num_masked, keys)
            through = images.nan_to_num(0) - images.nan_to_num(0).detach()
            return view._replace(pixels=view.pixels + through)

    task = make_task("cnn_plain")
    leak = find_leak(task, random_images(task), RandomMasker(), Straight())
    assert leak == Leak("features", "gradient", STEM, view=False)


def test_masking_after_an_overlapping_stem_is_a_leak_of_the_stem(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        check(monkeypatch, *arguments("cnn_plain", *OWN_ENCODER))
    assert stop.value.code == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "leak: hidden pixels reach the features by their content, first at encoder.stem (RandomMasker, tests.checks.leaking.Shown, "
    )


def test_masking_after_a_stem_of_separate_patches_is_none():
    task = built("cnn_plain", *OWN_ENCODER, "--model.encoder.kernel_size=4").model
    assert find_leak(task, random_images(task), task.masker, task.corruption) is None


@pytest.mark.parametrize(("name", "layer"), [("NormalisedFirst", "input_norm"), ("Remembering", STEM), ("Bypassing", STEM)])
def test_a_leak_of_a_training_step_is_found_in_training_alone(name, layer, tmp_path, monkeypatch, capsys):
    text = (FOLDER / "base.yaml").read_text().replace("semconv.tasks.MaskedReconstruction", f"tests.checks.leaking.{name}")
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        check(monkeypatch, "-c", str(tmp_path / "own.yaml"), "-c", str(FOLDER / "cnn_plain.yaml"), "--model.size=micro")
    assert stop.value.code == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"first at {layer} (RandomMasker, ZeroFill, train of epoch 0, 2 images, fp32)" in last


def test_what_the_check_does_not_run_is_named():
    task, data = built("cnn_plain").model, built("cnn_plain").datamodule
    assert untested(task, data) == []
    for kind in (Bypassing, Idle):
        other = make_task("cnn_plain", "--data.size=[16,16]", "--model.size=micro")
        other.__class__ = kind
        if kind is Bypassing:
            assert untested(other, object()) == ["Bypassing.test_step", "the batches of object"]
        else:
            with pytest.raises(ValueError, match=r"Idle\.training_step runs neither its encoder nor its decoder"):
                list(check_leakage(other))


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_a_leak_under_rare_circumstances_is_found(cheat):
    task, data = cheat(make_task("cnn_plain", "--data.size=[16,16]", "--model.size=micro")), None
    if isinstance(task, tuple):
        task, data = task
    assert any(case.leak for case in check_leakage(task, data))


def test_a_data_module_may_draw_noise_and_flip():
    data = Noisy("scenes", size=(16, 16))
    assert find_mixing(make_task("cnn_plain", "--data.size=[16,16]", "--model.size=micro"), data) is None
    assert data.trainer is None


def test_a_clean_experiment_passes_and_is_as_before(monkeypatch, capsys):
    check(monkeypatch, *arguments("cnn_overlay_replace", "--model.encoder.norm=batch", "--data.size=[8,16]", "--model.size=micro"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("no hidden pixel reaches the prediction or the features: 55 ways of hiding")
    assert sum(len(re.findall(r"\bok\b", line)) for line in lines) == 28  # evaluation and training in one cell


def test_what_shows_its_cells_is_checked_under_hiding():
    task = built("cnn_denoising", "--data.size=[16,16]", "--model.size=micro").model
    assert isinstance(task.corruption, Noise)
    assert "Noise" not in {case.corruption for _, case in zip(range(10), check_leakage(task), strict=False)}


def test_looking_for_leaks_leaves_no_trace():
    task = make_task("cnn_plain", "--model.encoder.norm=batch")
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    masker, corruption = task.masker, task.corruption
    find_leak(task, random_images(task), RandomMasker(0.5), Hide(LateFill()), Circumstances("train", trainer=True))
    assert all(tensor.equal(before[name]) for name, tensor in task.state_dict().items())
    assert (task.masker, task.corruption, task.training) == (masker, corruption, False)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "check leakage needs an experiment"),
        (arguments("cnn_plain", "--model.cell=5"), "not divisible by the mask cell of 5"),
        (arguments("cnn_plain", "--model.masker.ratioo=1"), "did you mean model.masker.ratio?"),
    ],
    ids=["nothing", "bad cell", "unknown option"],
)
def test_bad_input_is_one_line(options, expected, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        check(monkeypatch, *options)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("semconv: error:")
    assert expected in line
