import itertools
import json
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from semconv import load_run
from semconv.commands.train import SemconvCLI, build, main
from semconv.commands.trainer_options import avoid_mps
from semconv.configuration import bare, flatten
from semconv.data import ImageData
from semconv.evaluation.features import Evaluated
from semconv.evaluation.quick import while_training
from semconv.tracking.identity import identity
from tests.experiments import FOLDER, arguments, every_experiment, parsed
from tests.processes import Forked
from tests.recording import Recorder

SHORT = ["--trainer.limit_train_batches=2", "--trainer.log_every_n_steps=1", "--model.size=micro"]
SHORT += ["--data.batch_size=8", "--data.num_images=40", "--data.num_test_images=10"]
OWN_LENGTH = ["--data.num_images=null", "--data.num_test_images=null"]  # of a folder


TIMES = ("time", "train/images_per_second")  # of rows

pytestmark = pytest.mark.usefixtures("quick_runs")


def short(name: str, folder: Path, *overrides: str) -> list[str]:
    return [*arguments(name, *SHORT, f"--runs={folder}"), *overrides]


def the_run(folder: Path) -> Path:
    (run,) = folder.glob("*/*")
    return run


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


@pytest.fixture
def recorder(monkeypatch):
    """What the steps of runs meet."""
    recorder, callbacks = Recorder(), SemconvCLI._callbacks
    monkeypatch.setattr(SemconvCLI, "_callbacks", lambda self, saved: [*callbacks(self, saved), recorder])
    return recorder


met: list[dict] = []  # by the first experiment that hides pixels


@every_experiment
def test_an_experiment_meets_what_all_do_trains_and_tests(name, recorder, tmp_path):
    main(["run", *short(name, tmp_path), "--evaluation=none"])
    if "denoising" not in name:
        met[:] = met or recorder.steps
        assert recorder.steps == met
        assert len(met) == 2
    run = the_run(tmp_path)
    assert summary(run)["test/masked_mse"] > 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "train/loss" in row] == [0, 1]
    # rows of four pictures of 96 pixels, gaps and captions: two rows in these tests, eight in tests/test_examples.py
    with Image.open(run / "media" / "test.png") as sheet:
        assert sheet.size == (4 * 100 + 4, 2 * 100 + 4 + 36)


# one of each kind: signals beside the features, features of visible sites in a pyramid, tokens
@pytest.mark.parametrize("name", ["cnn_channels", "cnn_spark", "mae_vit"])
def test_a_run_is_evaluated_and_tested_again_from_its_folder_alone(name, tmp_path):
    main(["run", *short(name, tmp_path / "first"), "--evaluation_images=24"])
    run = the_run(tmp_path / "first")
    checkpoint = run / "checkpoints" / "last.ckpt"
    torch.load(checkpoint, weights_only=True)
    again = ["-c", str(run / "config.yaml"), f"--runs={tmp_path / 'second'}", "--evaluation=none"]
    main(["test", *again, f"--ckpt_path={checkpoint}"])
    first, second = summary(run), summary(the_run(tmp_path / "second"))
    metrics = {key: value for key, value in first.items() if key.startswith("test/")}
    assert metrics == {key: second[key] for key in metrics}
    assert 0 <= first["probe/linear_top1"] <= 1


def test_a_run_ends_with_its_results_and_says_in_a_file_how_far_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ImageData, "describe", lambda data: "wds/http://user:hunter2@host: 60 train")
    monkeypatch.setattr("semconv.callbacks.progress.LINE_SECONDS", 0.01)
    main(["run", *short("mae_vit", tmp_path), "--trainer.limit_train_batches=8", "--data.batch_size=4", "--evaluation_images=24"])
    found, printed = summary(the_run(tmp_path)), capsys.readouterr()
    assert "wds/http://<redacted>@host: 60 train" in printed.err
    # endpoints first, with what needs no training beside them
    endpoints = [line.split() for line in printed.out.splitlines()[1:3]]
    assert endpoints[0] == [
        "masked",
        "MSE",
        f"{found['test/masked_mse']:.4f}",
        f"{found['test/mean_fill_mse']:.4f}",
        "mean",
        "fill",
    ]
    keys = ("probe/linear_top1", "untrained/probe/linear_top1", "pixels/linear_top1")
    assert endpoints[1][2:] == [word for key in keys for word in (f"{100 * found[key]:.1f}", "%")] + ["8", "x", "8", "thumbnail"]
    stages = [line.partition(":")[0] for line in printed.err.splitlines()]
    assert all(stages.count(stage) > 1 for stage in ("train", "test", "evaluation"))
    assert any(re.fullmatch(r"train: 8 of 8, loss [0-9.]+, [0-9,]+ images/s, 0:00:\d\d", line) for line in printed.err.splitlines())


def test_raw_targets_have_pixel_errors(tmp_path):
    options = ["--model.objective.normalise=false", "--model.objective.loss=l1", "--evaluation=none"]
    main(["run", *short("cnn_plain", tmp_path), *options])
    found = summary(the_run(tmp_path))
    assert 0 < found["test/pixel_mse"] < 1
    assert 0 < found["test/psnr"] < 60
    assert "test/psnr/reason" not in found


def test_fit_validate_and_predict(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    main(["fit", *short("cnn_appended", tmp_path / "fit")])
    checkpoint = the_run(tmp_path / "fit") / "checkpoints" / "last.ckpt"
    main(["validate", *short("cnn_appended", tmp_path / "val"), f"--ckpt_path={checkpoint}"])
    main(["predict", *short("cnn_appended", tmp_path / "predict"), f"--ckpt_path={checkpoint}"])
    fitted, validated = summary(the_run(tmp_path / "fit")), summary(the_run(tmp_path / "val"))
    assert fitted["val/masked_mse"] == validated["val/masked_mse"]
    assert len(list((the_run(tmp_path / "predict") / "media" / "predict").glob("*.png"))) == 10
    bars = capsys.readouterr().err
    assert all(f"{stage} \x1b" in bars for stage in ("train", "validation", "predict"))


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_validates_its_final_weights_once_wherever_it_ends(steps, tmp_path):
    main(["run", *short("cnn_plain", tmp_path), f"--trainer.max_steps={steps}", "--evaluation=none"])
    rows = [json.loads(line) for line in (the_run(tmp_path) / "metrics.jsonl").read_text().splitlines()]
    assert len([row for row in rows if "val/masked_mse" in row]) == 1
    assert summary(the_run(tmp_path))["val/masked_mse"] > 0


@pytest.mark.parametrize(
    "path", sorted([*FOLDER.glob("fills/*.yaml"), *FOLDER.glob("ablations/*.yaml")]), ids=lambda path: path.stem
)
def test_a_fill_or_an_ablation_changes_what_its_file_says_alone(path):
    before, after = (flatten(parsed("cnn_channels", *more)) for more in ((), ("-c", str(path))))
    changed = {bare(key): value for key, value in after.items() if before.get(key) != value}
    assert changed.items() <= {bare(key): value for key, value in flatten(yaml.safe_load(path.read_text())).items()}.items()
    assert changed or path.stem == "zero"  # which is base.yaml's


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_untrained_weights_are_not_evaluated(subcommand, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([subcommand, *short("cnn_plain", tmp_path)])
    assert stop.value.code == 2
    assert f"{subcommand} needs trained weights: give --ckpt_path" in capsys.readouterr().err


def test_a_missing_test_split_is_refused_before_training(tmp_path, capsys):
    for i in range(40):
        (tmp_path / "images" / "train").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (i, i, i)).save(tmp_path / "images" / "train" / f"{i}.png")
    options = [f"--data.source={tmp_path / 'images'}", "--data.batch_size=8", *OWN_LENGTH]
    with pytest.raises(SystemExit):
        main(["run", *short("cnn_plain", tmp_path / "runs"), *options])
    assert "no split 'test'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_broken_image_is_named_in_one_line(num_workers, tmp_path, capsys):
    folder = tmp_path / "images" / "train"
    folder.mkdir(parents=True)
    for i in range(40):
        (folder / f"{i}.png").write_text("no image")
    options = [f"--data.source={tmp_path / 'images'}", "--data.batch_size=8", f"--data.num_workers={num_workers}", *OWN_LENGTH]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *short("cnn_plain", tmp_path / "runs"), *options])
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("semconv: error:")]
    assert ".png" in line


def test_probes_during_training_make_a_curve_and_change_no_bit(tmp_path, capsys):
    options = ["--trainer.max_epochs=4", "--trainer.limit_train_batches=1", "--data.batch_size=32", "--model.encoder.drop_path=0.3"]
    options += ["--data.size=[16,16]"]
    for name, more in (("with", ["--evaluation_every=2"]), ("without", [])):
        main(["fit", *short("cnn_channels", tmp_path / name), *options, *more])
    runs = [the_run(tmp_path / name) for name in ("with", "without")]
    ours, theirs = (load_run(run) for run in runs)
    assert all(torch.equal(ours.task.state_dict()[key], value) for key, value in theirs.task.state_dict().items())
    (probed, plain) = ([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs)
    curve = [(row["step"], row["samples_seen"]) for row in probed if "val/linear_top1" in row]
    assert curve == [(1, 64), (3, 128)]
    kept = [{key: row[key] for key in ("step", *row) if key not in TIMES} for row in probed if "val/linear_top1" not in row]
    assert kept == [{key: row[key] for key in ("step", *row) if key not in TIMES} for row in plain]
    expected = while_training(Evaluated(ours.task, ours.data, nullcontext), 2000, recalibrate=False)
    assert {key: summary(runs[0])[key] for key in expected} == expected
    capsys.readouterr()
    for unprobed, reason in (
        ("--data.num_images=16", "1[0-6] images for 20 neighbours"),
        ("--data.validation_fraction=0", "there is no validation, in which they are made"),
    ):
        main(["fit", *short("cnn_plain", tmp_path / "few"), "--data.batch_size=8", "--evaluation_every=1", unprobed])
        assert re.search(f"semconv: no probes during training: {reason}", capsys.readouterr().err)


def test_lightnings_loggers_summaries_profilers_and_bars_work(tmp_path, capsys, caplog):
    options = ["--trainer.enable_checkpointing=false", "--trainer.enable_model_summary=true", "--trainer.profiler=simple"]
    options += ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / 'csv'}"]
    stops = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/masked_mse"]
    main(["fit", *short("cnn_plain", tmp_path / "runs"), *options, "--trainer.callbacks+=TQDMProgressBar", *stops])
    assert not (the_run(tmp_path / "runs") / "checkpoints").exists()
    (metrics,) = tmp_path.glob("csv/**/metrics.csv")
    assert "train/loss" in metrics.read_text()
    assert "Total params" in capsys.readouterr().out
    assert "FIT Profiler Report" in caplog.text


@pytest.mark.parametrize("subcommand", ["run", "test"])
def test_an_override_reaches_every_value_that_is_derived_from_it(subcommand, capsys):
    options = ["--data.size=[64,32]", "--model.cell=8", "--seed_everything=5", "--data.batch_size=16", "--print_config"]
    with pytest.raises(SystemExit) as stop:
        main([subcommand, *arguments("cnn_channels"), *options])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert model["image_size"] == [64, 32]
    assert model["objective"]["init_args"]["patch"] == 8
    assert (model["seed"], data["seed"], model["batch_size"]) == (5, 5, 16)


def test_the_saved_configuration_stands_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_PASSWORD", "micro")  # as the size
    monkeypatch.setenv("X_AUTH", "disabled")
    options = ["--seed_everything=3", "--data.size=[16,32]", "--evaluation=none"]
    main(["run", *short("cnn_overlay_add", tmp_path / "a"), *options])
    run = the_run(tmp_path / "a")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (run / "config.yaml").read_text().count("${") == 1  # the patch, which follows the cell unless it is set
    assert config["model"]["init_args"]["image_size"] == [16, 32]
    main(["run", "-c", str(run / "config.yaml"), f"--runs={tmp_path / 'b'}"])
    first, again = summary(run), summary(the_run(tmp_path / "b"))
    assert first["test/masked_mse"] == again["test/masked_mse"]
    assert first["seed"] == 3
    with pytest.raises(SystemExit):
        main(["run", "-c", str(run / "config.yaml"), f"--runs={tmp_path / 'c'}", "--wandb.mode=disabled"])
    assert "error: wandb.mode is the value of X_AUTH in the environment, and no run records a secret" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("path", sorted((FOLDER / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_tier_fits_every_network(path, monkeypatch):
    monkeypatch.delenv("SEMCONV_DATA", raising=False)
    for name in ("mae_vit", "cnn_channels"):
        cli = build([*arguments(name), "-c", str(path)])
        assert cli.model.geometry.size == cli.datamodule.size
        assert cli.model.batch_size == cli.datamodule.batch_size
        assert cli.model.objective.patch == cli.model.geometry.cell
        assert all(source.name.startswith((".", "hfds/.", "torch/")) for source in cli.datamodule.candidates)


@pytest.mark.parametrize("path", sorted((FOLDER / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_is_the_same_for_every_network(path):
    command, files = path.read_text(), []
    (line,) = [line for line in command.splitlines() if line.startswith("# semconv run ")]
    words = line.split()
    files = [FOLDER.parent / word for before, word in itertools.pairwise(words) if before == "-c"]
    assert path in files
    recipes = []
    for name in ("mae_vit", "cnn_channels"):
        chosen = [word for file in (*files[:-1], FOLDER / f"{name}.yaml") for word in ("-c", str(file))]
        here = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto", "--model.size=test"]
        cli = build([*chosen, *here])
        assert cli.model.objective.patch == cli.model.geometry.cell
        recipes.append(identity(cli.config.as_dict())["protocol"])
    assert recipes[0] == recipes[1]


def saved_checkpoint(folder: Path) -> str:
    main(["fit", *short("cnn_plain", folder)])
    return str(the_run(folder) / "checkpoints" / "last.ckpt")


BAD_INPUT = {
    "missing source": (["--data.source=/nowhere/at/all"], "no folder /nowhere/at/all"),
    "empty source": (["--data.source={empty}"], "{empty}"),
    "size not divisible by cell": (["--data.size=[30,32]"], "30 x 32 is not divisible by the mask cell of 4"),
    "no visible cell": (["--model.masker.ratio=0.999"], "hides 64 of 64 cells"),
    "no visible cell at an end of a range": (["--model.masker.ratio=[0.25,0.999]"], "hides 64 of 64 cells"),
    "no masked cell": (["--model.masker.ratio=0.001"], "hides 0 of 64 cells"),
    "ratio out of range": (["--model.masker.ratio=1.5"], "mask ratio is 1.5"),
    "unknown class": (["--model.masker=semconv.masking.NoMasker"], "NoMasker"),
    "unknown key": (["--model.masker.ratioo=0.5"], "ratioo"),
    "unknown trainer key": (["--trainer.max_epoch=3"], "max_epoch"),
    "wrong type": (["--model.base_lr=much"], "base_lr"),
    "missing file": (["-c", "nowhere.yaml"], "nowhere.yaml"),
    "missing checkpoint": (["--ckpt_path=nowhere.ckpt"], "nowhere.ckpt does not exist"),
    "broken checkpoint": (["--ckpt_path={broken}"], "is not a complete checkpoint"),
    "checkpoint of another shape": (["--ckpt_path={checkpoint}", "--model.size=test"], "model.size was micro and is now test"),
    "empty batch": (["--data.batch_size=0"], "batch_size is 0"),
    "batch larger than the data": (["--data.batch_size=1000"], "batch_size is 1000"),
    "no indicators": (["--model.encoder.mechanism=semconv.mechanisms.Channels"], "Channels has no indicators"),
    "odd cell": (["--model.cell=1", "--model.objective.normalise=false"], "1 must be 2, 4, 8, 16 or 32"),
    "a finder": (["--trainer.callbacks+=LearningRateFinder"], "LearningRateFinder changes the protocol in training: search by"),
    "no steps": (["--trainer.max_epochs=-1"], "the schedule needs a number of steps"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    (folder / "empty").mkdir()
    (folder / "broken.ckpt").write_text("not a checkpoint")
    return {"empty": folder / "empty", "broken": folder / "broken.ckpt", "checkpoint": saved_checkpoint(folder / "runs")}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_told_in_one_line_and_leaves_nothing(case, places, tmp_path, capsys):
    options, expected = BAD_INPUT[case]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *short("cnn_plain", tmp_path / "runs"), *(option.format(**places) for option in options)])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("semconv: error:")]
    assert stop.value.code == 2
    assert len(lines) == 1
    assert expected.format(**places) in lines[0]
    if "checkpoint" not in case and case != "no steps" and case != "batch larger than the data":
        assert not (tmp_path / "runs").exists()


def test_apples_gpu_is_left_out(tmp_path, monkeypatch, capsys):
    assert avoid_mps("auto") == "auto"
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert [avoid_mps(accelerator) for accelerator in ("auto", "cpu")] == ["cpu"] * 2
    with pytest.raises(SystemExit) as stop:
        main(["fit", *short("cnn_plain", tmp_path / "runs"), "--trainer.accelerator=mps"])
    assert stop.value.code == 2
    assert "semconv: error: trainer.accelerator is mps, and Apple's GPU has no float64" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_errors_of_the_process_are_one_line_with_exit_code_two(tmp_path):
    done = Forked(["fit", *short("cnn_plain", tmp_path), "--model.cell=5"], tmp_path).wait()
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("semconv: error: image size 32 x 32")
    assert "Traceback" not in done.stderr


def test_an_error_of_ours_keeps_its_traceback(monkeypatch, tmp_path):
    monkeypatch.setattr("semconv.tasks.initialise", lambda *_: int("a bug"))
    with pytest.raises(ValueError, match="invalid literal"):
        main(["fit", *short("cnn_plain", tmp_path)])
