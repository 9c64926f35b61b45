import argparse
import inspect
import re
import subprocess
import sys
from functools import partial

import lightning
import pytest
import yaml
from omegaconf import OmegaConf

from semconv.__main__ import ANALYSIS, COMMANDS, TRAINING
from semconv.__main__ import main as semconv
from semconv.commands import compare, export, predict, signatures, study, sweep
from semconv.commands.arguments import FOLLOWS, MAY_FOLLOW, follower_problem, prepare, read
from semconv.commands.check import CHECKS
from semconv.commands.list import PARTS, list_classes, list_variants
from semconv.commands.train import SemconvCLI, _resuming, _starting_from, main, parse
from semconv.commands.values import positive, share
from semconv.comparison.runs import _folders
from semconv.configuration import get, resolve_links
from semconv.tracking.folder import RunFolder
from semconv.trained.export import load_exported
from tests.experiments import FOLDER, NAMES, arguments
from tests.pairwise import pairwise, together

pytestmark = pytest.mark.usefixtures("quick_runs")


def printed(capsys, *options):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments("cnn_channels", *options), "--print_config"])
    said = capsys.readouterr()
    assert stop.value.code == 0, said.err
    return yaml.safe_load(said.out)


@pytest.mark.parametrize(
    ("null", "key", "joined"),
    pairwise(
        ["null", "None"],
        ["data.crop_scale", "model.encoder.mlp_ratio", "trainer.gradient_clip_val", "data.init_args.mean"],
        [True, False],
    ),
)
def test_none_is_null_at_every_depth(null, key, joined):
    config = parse(arguments("cnn_channels", *([f"--{key}={null}"] if joined else [f"--{key}", null])))
    full = {
        "data.crop_scale": "data.init_args.crop_scale",
        "model.encoder.mlp_ratio": "model.init_args.encoder.init_args.mlp_ratio",
    }
    assert get(config, full.get(key, key)) is None


def test_a_class_comes_before_its_arguments_whatever_the_order_given(capsys):
    config = printed(
        capsys, "--model.encoder.masked=token", "--model.encoder.drop_path=.1", "--model.encoder=semconv.encoders.MAEViT"
    )
    encoder = config["model"]["init_args"]["encoder"]
    assert encoder["class_path"] == "semconv.encoders.MAEViT"
    assert (encoder["init_args"]["masked"], encoder["init_args"]["drop_path"]) == ("token", 0.1)


def test_order_is_otherwise_kept():
    file = str(FOLDER / "cnn_plain.yaml")
    given = ["--a.x=1", "-c", file, "--b", "2", "--flag", "--a.class_path=K", "--a.y=-3"]
    assert prepare(given) == ["-c", file, "--b", "2", "--flag", "--a.class_path=K", "--a.x=1", "--a.y=-3"]


def test_the_links_are_those_of_the_base_file():
    base = yaml.safe_load((FOLDER / "base.yaml").read_text())
    links = {**FOLLOWS, **MAY_FOLLOW}
    assert {key: get(base, key) for key in links} == links
    assert (FOLDER / "base.yaml").read_text().count("${") == len(links)


def test_links_of_a_run_are_resolved_as_the_parser_does_and_read_no_environment():
    config = {"a": 1, "b": {"c": "${.d}", "d": [2], "e": {"f": "${...a}", "g": "${..d}"}}}
    assert resolve_links(config) == OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    assert resolve_links({"a": "${oc.env:HOME}", "b": "${...c}"}) == {"a": "${oc.env:HOME}", "b": "${...c}"}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.image_size=[16,16]", "model.image_size is [16, 16], but must equal data.size, which is [32, 32]"),
        (
            "--model.init_args.seed=3",
            "model.seed is 3, but must equal seed_everything, which is 0: leave it out and set seed_everything",
        ),
        ("--data.seed=3", "data.seed is 3, but must equal seed_everything"),
        ("--model.batch_size=5", "model.batch_size is 5, but must equal data.batch_size, which is 64"),
    ],
)
def test_what_follows_another_value_is_not_set_apart_from_it(option, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments("cnn_plain", option, f"--runs={tmp_path / 'runs'}")])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_of_a_repeated_folder_the_last_counts_and_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.yaml").write_text("seed_everything: 3\n")
    assert _resuming(["run", "--resume", "a", "--resume=~/b"])[:3] == ["run", "-c", f"{tmp_path}/b/config.yaml"]
    words = _starting_from(["fit", "--pretrained=a", "--pretrained", "~/b"])
    assert words == ["fit", "-c", "seed_everything: 3\n", f"--model.init_args.pretrained_run={tmp_path}/b"]
    assert RunFolder.new("~/c", "d").path.is_relative_to(tmp_path / "c")
    given = predict.make_parser().parse_args(["~/a", "--images=~/b", "--output=~/c"])
    assert [given.run, given.images, given.output] == [tmp_path / name for name in "abc"]
    for command in (compare, export, study, sweep):
        assert command.make_parser().parse_args(["a", "--output=~/c"]).output == tmp_path / "c"
    assert [option.value for option in read(["-c", "~/b/config", "-c=~/b/config.yaml"])] == [f"{tmp_path}/b/config.yaml"] * 2
    assert [place.name for place in _folders("~/*")] == ["b"]
    with pytest.raises(ValueError, match=f"^{tmp_path}/b holds no wrapper"):
        load_exported("~/b")


def test_a_number_that_is_refused_is_named_with_what_to_give():
    for read_number, refused in ((positive, ["0", "-1", "a", "1.5", ""]), (share, ["-0.5", "1.5", "inf", "nan", "a", ""])):
        for text in refused:
            with pytest.raises(argparse.ArgumentTypeError, match=f"^{re.escape(repr(text))}: give a whole number, "):
                read_number(text)
    assert [positive("1"), positive("12"), share("0"), share("0.25"), share("4")] == [1, 12, 0, 0.25, 4]


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "~nobody0/x"],
        ["compare", "runs", "--output=~nobody0/x"],
        ["predict", "~nobody0/x", "--images=a", "--output=b"],
        *(["run", "cnn_plain", f"--{key}=~nobody0/x"] for key in ("runs", "data.source", "data.cache_folder", "pretrained")),
        ["run", "--resume=~nobody0/x"],
        ["test", "-c", "base", "-c", "cnn_plain", "--ckpt_path=~nobody0/x"],
    ],
)
def test_the_home_of_no_user_is_one_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["semconv", *words])
    with pytest.raises(SystemExit) as stop:
        semconv()
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("~nobody0/x: there is no home folder ~nobody0: correct it, or give ./~nobody0/x")
    assert list(tmp_path.iterdir()) == []


def test_steps_given_alone_are_the_whole_budget(tmp_path):
    def budget(*options):
        trainer = parse(arguments("cnn_plain", *options))["trainer"]
        return trainer["max_epochs"], trainer["max_steps"]

    both, steps = tmp_path / "both.yaml", tmp_path / "steps.yaml"
    both.write_text("trainer: {max_steps: 5, max_epochs: 2}")
    steps.write_text("trainer: {max_steps: 7}")
    assert budget() == (1, -1)  # base.yaml's
    assert budget("--trainer.max_steps=9") == (-1, 9)
    assert budget("-c", str(steps)) == (-1, 7)
    assert budget("-c", str(both)) == (2, 5)
    assert budget("-c", str(both), "--trainer.max_steps=9") == (-1, 9)
    assert budget("--trainer.max_epochs=3", "-c", str(steps), "--trainer.max_steps", "9") == (3, 9)
    assert budget("--trainer.max_steps=-1") == (1, -1)


def saved_config(folder, *options):
    """The config.yaml of a run of one step."""
    short = [
        "--trainer.max_steps=1",
        "--trainer.log_every_n_steps=1",
        "--trainer.limit_val_batches=0",
        "--data.num_images=20",
        "--data.batch_size=4",
        "--model.size=micro",
        "--trainer.enable_checkpointing=false",
    ]
    main(["fit", *arguments("cnn_plain", *short, f"--runs={folder}", *options)])
    (path,) = folder.glob("*/*/config.yaml")
    return path


@pytest.mark.parametrize(
    ("option", "patch"),
    [
        ("--model.objective.patch=4", 4),
        ("--model.objective={class_path: semconv.objective.Objective, init_args: {patch: 4}}", 4),
        ("--model.objective.loss=l1", 8),
    ],
)
def test_an_override_of_a_saved_configuration_propagates_but_to_a_patch_that_was_set(option, patch, capsys, tmp_path):
    first = saved_config(tmp_path / "first", option)
    assert RunFolder(first.parent).config["model"]["init_args"]["objective"]["init_args"]["patch"] == 4
    again = tmp_path / "again"
    main(["fit", "-c", str(first), f"--runs={again}"])  # a run from a saved configuration keeps the distinction
    (second,) = again.glob("*/*/config.yaml")
    for saved in (first, second):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(["fit", "-c", str(saved), "--seed_everything=7", "--data.size=[16,32]", "--model.cell=8", "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)
        assert config["model"]["init_args"]["objective"]["init_args"]["patch"] == patch
        assert (config["model"]["init_args"]["seed"], config["data"]["init_args"]["seed"]) == (7, 7)
        assert config["model"]["init_args"]["image_size"] == [16, 32]
        assert follower_problem(config) is None


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.maskr.ratio=.5", "there is no option model.maskr.ratio: did you mean model.masker.ratio?"),
        ("--trainer.max_epoch=3", "there is no option trainer.max_epoch: did you mean trainer.max_epochs?"),
        ("--data.sizes=[3,3]", "there is no option data.sizes: did you mean data.size?"),
        ("--model.encoder.depht=all", "there is no option model.encoder.depht: did you mean model.encoder.depth?"),
        ("--model.encoder.mechanism=semconv.mechanisms.AppendedValue", "did you mean semconv.mechanisms.AppendedValues?"),
        ("--model.size=teny", "model.size is teny: give one of micro, test, mini, tiny, small, base, large, huge"),
        ("--data.mean=${oc.env:WANDB_API_KEY}", "--data.mean reads WANDB_API_KEY from the environment"),
    ],
)
def test_errors_are_one_line_with_the_nearest_valid_key(option, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments("cnn_channels", option)])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in said
    assert said.count("\n") == 1
    assert "Traceback" not in said


def test_a_key_in_a_file_is_corrected_too_and_a_file_that_is_no_yaml_is_named(tmp_path, capsys):
    (tmp_path / "typo.yaml").write_text("model: {init_args: {masker: {init_args: {ration: 0.5}}}}")
    (tmp_path / "broken.yaml").write_text("trainer: [max_epochs: 3")
    for name, message in (
        ("typo", "no option model.masker.ration: did you mean model.masker.ratio?"),
        ("broken", "is not valid YAML"),
    ):
        with pytest.raises(SystemExit):
            main(["fit", *arguments("cnn_channels"), "-c", str(tmp_path / f"{name}.yaml")])
        assert message in capsys.readouterr().err


@together(
    "words, said",
    [
        (["-c", "trainer: {callbacks: [{class_path: a.B, init_args: 5}]}"], "trainer.callbacks: there is no module a"),
        (["-c", "seed_everything: !!bool maybe"], "-c is not valid YAML: line 1: maybe is no bool: correct it"),
        (["-c", "a: 1\nseed_everything: !!int x"], "-c is not valid YAML: line 2: x is no int: correct it"),
        (["-c", "seed_everything: " + "1" * 5000], "-c is not valid YAML: line 1: " + "1" * 60 + " is no int"),
        (["--model.encoder", "{class_path: x"], "model.encoder is {class_path: x, which is not valid YAML: line 2: did not find"),
    ],
)
def test_a_value_of_a_wrong_kind_is_one_line(words, said, semconv):
    code, _, err = semconv("fit", *arguments("cnn_plain", *words))
    assert (code, err.count("\n")) == (2, 1), err
    assert said in err


@together(
    "content, said",
    [
        (b"\nclass Own(:\n    pass\n", "invalid syntax (own_broken.py, line 2)"),
        (b"# caf\xe9\nclass Own:\n    pass\n", "invalid or missing encoding declaration"),
        (b"class Own:\n    pass\n\n\n# caf\xe9\n", "'utf-8' codec can't decode byte 0xe9"),
    ],
)
def test_a_users_module_that_is_no_python_is_named(content, said, semconv, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_broken.py").write_bytes(content)
    signatures._tree.cache_clear()
    for more in ([], ["--model.encoder.x", "1"]):
        code, _, err = semconv("fit", *arguments("cnn_plain", "--model.encoder", "own_broken.Own", *more))
        assert (code, err.count("\n")) == (2, 1), err
        assert f"{tmp_path / 'own_broken.py'} is not valid Python: {said}" in err


def test_a_class_may_have_the_name_of_the_one_that_it_extends(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = "from semconv.masking import GridMasker, RandomMasker\nclass RandomMasker(RandomMasker): pass\n"
    (tmp_path / "own_names.py").write_text(source + "class Other(GridMasker): pass\nclass GridMasker(Other): pass\n")
    for name in ("RandomMasker", "Other", "GridMasker"):
        assert signatures.signature(f"own_names.{name}") is None  # the parser checks its arguments
    parse(arguments("cnn_plain", "--model.masker=own_names.RandomMasker", "--model.masker.ratio=0.5"))


def test_debug_shows_the_traceback_without_secrets(capsys, monkeypatch, tmp_path):
    for option in ("--trainer.max_epoch=3", "--model.cell=5"):
        with pytest.raises(SystemExit):
            main(["fit", "--debug", *arguments("cnn_channels", option)])
        assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("MY_TOKEN", "s3cr3tvalue")
    for option in ("--trainer.max_steps=s3cr3tvalue", "--data.source=/nowhere/s3cr3tvalue"):
        with pytest.raises(SystemExit):
            main(["fit", "--debug", *arguments("cnn_plain", option, f"--runs={tmp_path}")])
        assert "Traceback" in (said := capsys.readouterr().err)
        assert "s3cr3t" not in said


HELP = [[command, "--help"] for command in ("compare", "check", "export", "fit", "init", "predict", "sweep", "workspace")]
WITHOUT_TORCH = [
    ["--help"],
    *HELP,
    ["check", "leakage", "--help"],
    ["check", "sweeps", "--help"],
    ["list"],
    ["--version"],
    ["fitt"],
    ["run", "cnn_chanels"],
    ["run", "cnn_plain", "--model.lr=1"],
]


# each takes a tenth of a second or more to import
HEAVY = {"jsonargparse", "lightning", "numpy", "omegaconf", "pandas", "PIL", "scipy", "statsmodels", "timm", "torch", "wandb"}


def test_what_needs_no_network_answers_without_a_heavy_import():
    code = (
        "import sys, runpy\n"
        f"for words in {WITHOUT_TORCH}:\n"
        "    sys.argv[1:] = words\n"
        "    try: runpy.run_module('semconv', run_name='__main__')\n"
        "    except SystemExit: pass\n"
        f"    assert not (found := {HEAVY} & sys.modules.keys()), (words, found)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=FOLDER.parent)
    assert done.returncode == 0, done.stderr


@together("words", [["list"], ["run", "--help"], ["run", "--model.encoder.help"]])
def test_whoever_reads_may_stop_reading(words):
    words = [sys.executable, "-m", "semconv", *words]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=FOLDER.parent) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 1


def test_a_training_whose_output_closes_is_no_quiet_end(semconv, monkeypatch):
    def close(arguments):
        raise BrokenPipeError

    monkeypatch.setattr("semconv.commands.training.main", close)
    with pytest.raises(BrokenPipeError):
        semconv("run", "cnn_plain")


def test_ctrl_c_before_a_training_ends_with_the_code_of_a_shell(semconv, monkeypatch):
    def interrupt(arguments):
        raise KeyboardInterrupt

    for module, words in (("list", ["list"]), ("check", ["check", "visibility"]), ("training", ["fit", "cnn_plain"])):
        monkeypatch.setattr(f"semconv.commands.{module}.main", interrupt)
        assert semconv(*words) == (130, "", "")


def test_the_commands_with_debug_are_named(semconv):
    (line,) = (line for line in semconv("--help")[1].splitlines() if "--debug" in line)
    named = set(re.split(", | and ", line.partition(" of an error of ")[2].rstrip(".")))
    for name, (module, _) in (COMMANDS[TRAINING] | COMMANDS[ANALYSIS]).items():
        if module == "check":
            for check in CHECKS:
                assert ("--debug" in semconv("check", check, "--help")[1]) == (f"check {check}" in named), check
        elif module == "training":
            assert name in named
        else:
            assert ("--debug" in semconv(name, "--help")[1]) == (name in named), name


def test_list_names_every_variant_and_every_part(semconv):
    code, listing, _ = semconv("list")
    assert code == 0
    for name in [*NAMES, "semconv.mechanisms.AppendedValues", "semconv.indicators.Coordinates", "semconv.masking.BlockMasker"]:
        (line,) = [line for line in listing.splitlines() if line.split()[:1] == [name]]
        assert len(line.split()) > 4
    for kind, name in (("data", "cifar10"), ("sweeps", "quickstart"), ("studies", "demo")):
        listed = listing.partition(f"\n{kind}:\n")[2].partition(":\n")[0]  # up to the next kind
        (line,) = [line for line in listed.splitlines() if line.split()[:1] == [name]]
        assert len(line.split()) > 4
    assert semconv("list", "mechanisms")[1].startswith("mechanisms:")
    assert "there is no kind mechanism: choose among variants, data, sweeps" in semconv("list", "mechanism")[2]
    assert semconv("list", "--experiments", "/nowhere")[0] == 2


def test_list_misses_no_class():
    import semconv.convolution
    import semconv.indicators
    import semconv.masking
    import semconv.mechanisms

    listed = dict(list_classes())
    for kind, parent in (("Mechanism", semconv.convolution.Mechanism), ("Indicator", semconv.indicators.Indicator)):
        ours = {child.__name__ for child in parent.__subclasses__() if child.__module__.startswith("semconv.")}
        assert {path.rpartition(".")[2] for path, _ in listed[kind]} == ours
    assert listed.keys() == set(PARTS.values())
    assert len(list_variants(FOLDER)) == len(NAMES)


def test_a_mistyped_command_is_corrected(semconv):
    assert semconv("fti") == (2, "", "semconv: error: there is no command fti: did you mean fit?\n")


def test_one_batch_is_not_all_batches_whatever_order_the_types_have(monkeypatch, tmp_path):
    annotations = inspect.unwrap(lightning.pytorch.Trainer.__init__).__annotations__
    for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches"):
        monkeypatch.setitem(annotations, name, float | int | None)
    options = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1.0", "--trainer.limit_test_batches=2"]
    cli = SemconvCLI(
        arguments("cnn_plain", *options, f"--runs={tmp_path}", "--data.num_images=8", "--data.batch_size=4"), run=False
    )
    for limit in (cli.config["trainer"].get, partial(getattr, cli.trainer)):
        given = [limit(f"limit_{name}_batches") for name in ("train", "val", "test")]
        assert [(type(value), value) for value in given] == [(int, 1), (float, 1.0), (int, 2)]
