"""Help and checks of keys, which read the source, against the classes and the parser themselves."""

import inspect
import pkgutil
import re

import pytest
from lightning.pytorch import Trainer

from semconv.commands.help import SHOWN, overview
from semconv.commands.keys import MEANINGS, Keys, check_keys
from semconv.commands.list import list_classes
from semconv.commands.signatures import TRAINER, own_options, signature
from semconv.commands.train import SemconvCLI, parse
from semconv.configuration import flatten
from tests.experiments import FOLDER, arguments, keys


@pytest.fixture(scope="module")
def parsed():
    """The configuration of a variant as the real parser has it."""
    return parse(arguments("cnn_channels"))


def test_help_is_one_screen_of_keys_texts_and_defaults_of_the_parser(parsed, capsys):
    lines = overview("run").splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert any("--help-all" in line for line in lines)
    flat = flatten(parse(["-c", str(FOLDER / "base.yaml"), "-c", str(FOLDER / "cnn_plain.yaml")]))
    shown = {line.split()[0].lstrip("-"): line for line in lines if line.startswith("  --")}
    assert shown["model.base_lr"].endswith("[0.008]")
    for key in (key for group in SHOWN.values() for key in group):
        assert key in set(keys(parsed)), key
        default = shown[key].rpartition(" [")[2].removesuffix("]") if shown[key].endswith("]") else None
        if key not in ("experiment", "model.encoder"):  # those of a variant
            assert default in (str(flat.get(key)).removeprefix("["), str(flat.get(key)), None), key
    with pytest.raises(SystemExit):
        SemconvCLI(["run", "--help"])
    whole = " ".join(capsys.readouterr().out.split())
    for name, argument in own_options().items():
        assert f"--{name}" in whole
        assert " ".join(argument.text.rstrip(".").split()[:6]) in whole, name


def test_signatures_are_those_of_the_classes():
    paths = [path for _, classes in list_classes() for path, _ in classes]
    for path in (*paths, "semconv.tasks.MaskedReconstruction", "semconv.data.ImageData", "semconv.finetuning.FineTune", TRAINER):
        found, real = signature(path), inspect.signature(Trainer if path == TRAINER else pkgutil.resolve_name(path))
        if found is None:  # of torch's Module
            assert all(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in real.parameters.values()), path
            continue
        assert list(found.arguments) == [name for name, each in real.parameters.items() if each.kind != each.VAR_KEYWORD], path
        assert all(
            (found.arguments[name].default is None) == (real.parameters[name].default is inspect.Parameter.empty)
            for name in found.arguments
        )


def test_no_file_of_experiments_is_refused():
    several = {"base": [], **{path.relative_to(FOLDER).with_suffix("").as_posix(): ["base"] for path in FOLDER.rglob("*.yaml")}}
    for name, before in several.items():
        models = ["any_cnn/resnet18"] if name.startswith("any_cnn/") else ["cnn_gradual"] if "gradual" in name else ["cnn_channels"]
        check_keys("run", [word for file in (*before, *models, name) for word in ("-c", file)])
    check_keys("fit", arguments("cnn_channels", "--model.encoder=mine.Own", "--model.encoder.anything=3"))
    check_keys("fit", arguments("cnn_channels", "--model.encoder.mechanism", "Gated", "--model.encoder.mechanism.average=false"))
    check_keys(
        "test", arguments("cnn_channels", "--ckpt_path=a", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.patience=3")
    )


def test_every_meaning_is_a_key_that_there_is(parsed):
    there = set(keys(parsed))
    assert [key for key in MEANINGS.values() if key not in there] == []
    given = Keys("run")
    assert {name for name in MEANINGS if name in given.roots} == set()


def test_a_key_that_there_is_not_names_the_one_that_is_meant():
    for option, said in (
        ("--model.lr=1", "there is no option model.lr: did you mean model.base_lr?"),
        ("--epochs=1", "there is no option epochs: did you mean trainer.max_epochs?"),
        ("--batch_size=1", "there is no option batch_size: did you mean data.batch_size?"),
        ("--wandb.mod=offline", "there is no option wandb.mod: did you mean wandb.mode?"),
        ("--data.size=32,32", 'data.size is 32,32: did you mean "[32, 32]"?'),
        ("--data.size=64", 'data.size is 64: did you mean "[64, 64]"?'),
        ("--nothing.like=this", "there is no option nothing.like: --help-all lists the options"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            check_keys("fit", arguments("cnn_channels", option))


def test_a_class_explains_itself_without_files(semconv):
    for words, said in (
        (["--model.encoder.help", "SemanticCNN"], "--model.encoder.mlp_ratio  float | None  (default: None)"),
        (["--model.encoder.help=TimmEncoder"], "--model.encoder.name  str  (required)"),
        (["--model.encoder.mechanism.help"], "  semconv.mechanisms.Gradual  "),
        (["--data.help", "ImageData"], "--data.batch_size  int  (default: 256)"),
        (["--trainer.help"], "--trainer.help: trainer takes no class"),
        (["--model.encoder.help", "SemanticCN"], "there is no such class: did you mean SemanticCNN?"),
    ):
        _, out, err = semconv("run", *words)
        assert said in out + err
        assert "error" not in err or err.count("\n") == 1


def test_all_options_are_those_of_the_parser(semconv):
    code, out, _ = semconv("run", "--help-all")
    assert code == 0
    assert "--trainer.accumulate_grad_batches" in out
    assert "--checkpoint_minutes" in out
