"""The short form of a command line against the long one."""

import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from semconv.commands.short import several, write_out
from semconv.commands.train import parse
from semconv.sweeping.file import sweep_problem
from semconv.sweeping.macros import expand, own_command
from tests.experiments import FOLDER
from tests.pairwise import together

CLASSES = ["--data", "mine.Data", "--data.size", "[8,8]", "--data={class_path: ImageData}", "--data", "ImageData"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder that is no checkout, with files of a user."""
    monkeypatch.chdir(tmp_path)
    Path("photos.yaml").write_text("data: {init_args: {source: photos, size: [64, 64]}}\nmodel: {init_args: {cell: 8}}\n")
    Path("images").mkdir(exist_ok=True)
    Path("images.yaml").write_text("protocol: [experiments/base.yaml]\nfamily: {}\n")  # a study
    Path("lr=1.yaml").write_text("model: {init_args: {base_lr: 1}}\n")
    Path("protocol.yaml").write_text((FOLDER / "base.yaml").read_text().replace("batch_size: 64", "batch_size: 32"))


def files(*names: str) -> list[str]:
    return [word for name in names for word in ("-c", name)]


@together(
    "short, long",
    [
        (["cnn_channels"], files("base", "cnn_channels")),
        (
            ["cnn_channels", "--data", "cifar10", "--seeds", "7"],
            [*files("base", "cnn_channels", "data/cifar10"), "--seed_everything", "7"],
        ),
        (["--data=photos", "cnn_channels,controls/zero"], files("base", "data/photos", "cnn_channels,controls/zero")),
        (["cnn_plain", "-c", "photos.yaml", "--x.y=3"], [*files("base", "cnn_plain", "photos.yaml"), "--x.y=3"]),
        (["lr=1.yaml"], files("base", "lr=1.yaml")),
        (["cnn_plain,lr=1"], files("base", "cnn_plain,lr=1")),
        (["cnn_plain", "-c", "protocol"], files("protocol", "cnn_plain")),
        (["evaluation/finetune", "--pretrained", "R"], [*files("evaluation/finetune"), "--pretrained", "R"]),
        (["--print_config", "cnn_plain"], [*files("base"), "--print_config", *files("cnn_plain")]),
        # the long form stays as it is, and so do classes
        (files("base", "cnn_plain"), files("base", "cnn_plain")),
        (
            ["--model=mine.Task", "--data", "semconv.data.ImageData", "--data.size", "[8,8]"],
            ["--model=mine.Task", "--data", "semconv.data.ImageData", "--data.size", "[8,8]"],
        ),
        (
            [*files("base"), "--data={class_path: ImageData}", "--data", "ImageData"],
            [*files("base"), "--data={class_path: ImageData}", "--data", "ImageData"],
        ),
    ],
)
def test_names_are_short_for_files(short, long):
    Path("data").mkdir(exist_ok=True)
    Path("data/photos.yaml").touch()
    assert write_out(short) == long


def test_the_configuration_is_that_of_the_long_form_wherever_the_files_are():
    paths = [str(FOLDER / f"{name}.yaml") for name in ("base", "data/cifar10", "cnn_channels", "controls/zero")]
    options = ["--model.base_lr=.01", "--data.size=[32,32]"]
    short = parse(write_out(["--data", "cifar10", "cnn_channels,controls/zero", "--seeds=3", *options]))
    long = parse([*files(*paths), *options, "--seed_everything=3"])
    assert short == long


def test_a_trial_that_wandbs_agent_starts_again_resumes_its_run(monkeypatch):
    words = ["cnn_plain", "--runs=a", "--runs", "mine"]
    checkpoints = Path("mine/cnn_plain/x1/checkpoints")
    checkpoints.mkdir(parents=True)
    monkeypatch.setenv("WANDB_RUN_ID", "x1")
    zipfile.ZipFile(checkpoints / "last.ckpt", "w").close()
    anew = [*files("base", "cnn_plain"), *words[1:]]
    assert write_out(words) == anew
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    assert write_out(words) == ["--resume", "mine/cnn_plain/x1"]
    (checkpoints / "last.ckpt").unlink()
    assert write_out(words) == anew


def test_several_experiments_and_seeds_are_trials_with_the_words_of_single_runs(tmp_path):
    words = ["--data", "photos", "cnn_plain", "cnn_channels,controls/zero", "--trainer.max_epochs", "3", "-c", "indicators/mask"]
    asked = several([*words, "--seeds", "0,2", "--jobs", "2", "--runs", "mine", "--data.seed", "${...seed_everything}"])
    assert asked is not None
    assert (asked.folder, asked.jobs) == (Path("mine/sweeps/cnn_plain+cnn_channels-zero"), 2)
    assert sweep_problem(asked.sweep.content) is None
    trials = [own_command(expand(asked.sweep.command, "semconv", point, tmp_path / "json")) for point in asked.sweep.grid]
    assert trials == [
        [
            *("run", *files("base", "photos"), f"--config={name}", f"--seed_everything={seed}"),
            *("--trainer.max_epochs=3", *files("indicators/mask"), "--data.seed=${...seed_everything}"),
        ]
        for name in ("cnn_plain", "cnn_channels,controls/zero")
        for seed in (0, 2)
    ]


def test_the_same_command_finds_its_folder_again_and_another_gets_its_own():
    folders = []
    for words in (["--seeds", "0,1"], ["--seeds", "0,1"], ["--seeds", "0,1,2"], ["--seeds", "0,1"]):
        asked = several(["cnn_plain", *words])
        assert asked is not None
        asked.folder.mkdir(parents=True, exist_ok=True)
        (asked.folder / "sweep.yaml").write_text(yaml.safe_dump(asked.sweep.content))
        folders.append(asked.folder.name)
    assert folders == ["cnn_plain", "cnn_plain", "cnn_plain-2", "cnn_plain"]


def test_one_experiment_and_one_seed_are_one_run():
    assert several(["cnn_plain", "--seeds", "3", "-c", "photos"]) is None
    assert several(files("base", "cnn_plain")) is None


@together(
    "command, message",
    [
        ("run cnn_chanels", "there is no configuration file cnn_chanels: did you mean cnn_channels?"),
        ("run -c base -c cnn_chanels.yaml", "there is no configuration file cnn_chanels.yaml: did you mean cnn_channels?"),
        ("run cnn_plain cnn_channels,zeros", "there is no configuration file zeros: did you mean controls/zero?"),
        ("fit cnn_plain --data cifar100", "there is no file data/cifar100.yaml: did you mean cifar10?"),
        ("fit cnn_plain --data images", "there is no file data/images.yaml: for images of your own, give --data.source images"),
        ("run cnn_plain --data photographs/mine", "give --data.source photographs/mine"),
        ("run cnn_plain --seeds 0,a", "--seeds is 0,a: give whole numbers"),
        ("run cnn_plain --seeds=1%2,3", "--seeds is 1 2,3: give whole numbers"),
        ("run cnn_plain --seeds 0 --seeds=5", "--seeds is given 2 times, as 0 and 5: give it once, as --seeds 0,5"),
        (
            "run cnn_plain cnn_channels --seeds 3,5000000000",
            "--seeds is 5000000000: give a number of 0 or more and at most 4294967295",
        ),
        ("run cnn_plain --seeds 0,1 --seed_everything 3", "--seeds and --seed_everything contradict each other"),
        ("run -c base -c cnn_plain --seeds 0,1", "--seeds needs the name of an experiment"),
        ("run cnn_plain cnn_channels --experiment a", "--experiment a gives all experiments one name"),
        ("run cnn_plain cnn_channels --jobs 0", "--jobs is 0"),
        ("run cnn_plain base_lr=3", "base_lr=3 is neither an experiment nor an option: write --base_lr 3"),
        ("run cnn_plain --resume runs/a/b", "--resume takes the configuration of its run: leave out cnn_plain"),
        ("fit cnn_plain cnn_channels", "give one experiment and one seed: only semconv run takes several"),
        ("check leakage cnn_chanels", "did you mean cnn_channels?"),
        ("check leakage", "check leakage needs an experiment: semconv check leakage cnn_channels"),
        ("run -c cnn_plain", "-c cnn_plain sets no protocol: give -c base before it, or write semconv run cnn_plain"),
        ("fit -c cnn_plain -c base", "-c cnn_plain stands before -c base, which sets the protocol: give -c base first"),
        ("run", "give an experiment, such as cnn_channels"),
        ("predict -c cnn_chanels", "did you mean cnn_channels?"),
        ("sweep quikstart", "there is no sweep file quikstart: did you mean quickstart?"),
        ("study demmo", "there is no study file demmo: did you mean demo?"),
    ],
)
def test_a_mistake_in_a_name_is_one_line(command, message, semconv):
    code, out, err = semconv(*(word.replace("%", " ") for word in command.split()))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("command", "added"),
    [
        ("run nothing", True),
        ("check leakage nothing", True),
        ("predict -c nothing", True),
        ("export nothing --output a --trust=mine", True),
        ("export nothing --output a", False),
        ("predict nothing --images a --output a", False),
        ("compare nothing", False),
        ("list nothing", False),
    ],
)
def test_the_current_folder_ends_the_python_path_where_a_users_own_classes_are_named(
    command, added, semconv, monkeypatch, tmp_path
):
    before = [path for path in sys.path if path not in ("", str(tmp_path))]
    monkeypatch.setattr(sys, "path", list(before))
    assert semconv(*command.split())[0] == 2
    assert sys.path == [*before, *([str(tmp_path)] if added else [])]
