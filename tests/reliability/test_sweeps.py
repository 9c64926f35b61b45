"""Sweeps: what cannot work is refused when the file is read, and a run is recorded as its point only if it is."""

import re

import pytest
import yaml

from semconv.commands.check_sweeps import main as check
from semconv.configuration import flatten
from semconv.sweeping.distributions import quantile
from semconv.sweeping.file import read_sweep, sweep_problem
from semconv.sweeping.hyperband import to_stop
from semconv.sweeping.ledger import Ledger
from semconv.sweeping.points import departure
from semconv.tracking.folder import RunFolder
from semconv.yaml_files import parse_yaml
from tests.experiments import FOLDER, parsed
from tests.pairwise import together

LEAST = {"method": "grid", "parameters": {"seed_everything": {"values": [0, 1]}}}
BANDS = {"method": "random", "metric": {"name": "val/masked_mse"}}
RUN = ["${env}", "semconv", "run", "-c", "base"]
WIDE = {"min": -1000, "max": 1000.5}


def searched(**spec):
    return {"method": "random", "run_cap": 3, "parameters": {"x": spec}}


@together(
    "change, said",
    [
        (
            {"parameters": {name: {"min": 0, "max": 999} for name in "abcd"}},
            "the grid has 1,000,000,000,000 points, more than 100,000",
        ),
        ({"parameters": {"a": {"min": 1, "max": 10**12}}}, "the grid has 1,000,000,000,000 points"),
        (
            {"parameters": {"a": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 1e-12}}},
            "the grid has 1,000,000,000,000 points",
        ),
        (
            searched(distribution="log_uniform", **WIDE),
            "max 1000.5, min -1000 give no number: give the ends themselves, by log_uniform_values",
        ),
        (searched(distribution="q_log_uniform", min=0, max=800), "by q_log_uniform_values"),
        (searched(distribution="inv_log_uniform", **WIDE), "by inv_log_uniform_values"),
        (searched(distribution="log_normal", mu=0, sigma=1e3), "values that are too large or too small"),
        (searched(min=-1e308, max=1e308), "values that are too large or too small"),
        (
            {**BANDS, "early_terminate": {"type": "hyperband", "min_iter": 1, "strict": "yes"}},
            "strict is 'yes': give true or false",
        ),
        ({**BANDS, "early_terminate": {"type": "hyperband", "min_iter": float("nan")}}, "min_iter is nan: give a number"),
        ({"run_cap": True}, "run_cap is True"),
        ({"command": [["semconv"]]}, "command is not a list of words"),
        ({"command": RUN}, "command has no ${args}, so that no parameter reaches a run"),
        (
            {"command": [*RUN, "${args_no_boolean_flags}"], "parameters": {"data.flip": {"values": [True, False]}}},
            "data.flip: ${args_no_boolean_flags} leaves out false",
        ),
    ],
)
def test_what_cannot_work_is_refused_when_the_file_is_read(change, said, tmp_path):
    assert sweep_problem(LEAST) is None
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**LEAST, **change}))
    with pytest.raises(ValueError, match=re.escape(said)):
        read_sweep(tmp_path / "a.yaml")


def test_wide_ends_that_fit_are_drawn():
    for spec in ({"distribution": "log_uniform", "min": -700, "max": 700}, {"min": -1e300, "max": 1e300}):
        assert sweep_problem(searched(**spec)) is None
        assert quantile(spec)(0.5) < quantile(spec)(0.9)
    other = {"command": ["python", "train.py"], **LEAST}  # it may read its parameters from W&B
    assert sweep_problem(other) is None


def test_a_number_with_an_exponent_is_a_number_wherever_it_stands(tmp_path):
    text = "{method: random, run_cap: 2, parameters: {a: {min: 1e-3, max: 1.5E2}, b: {values: [1e-4, -2.0e3, '1e-3', 1e, e1]}}}"
    (tmp_path / "a.yaml").write_text(text)
    sweep = read_sweep(tmp_path / "a.yaml")
    assert sweep.parameters == {"a": {"min": 0.001, "max": 150.0}, "b": {"values": [1e-4, -2000.0, "1e-3", "1e", "e1"]}}
    Ledger(tmp_path / "sweep", sweep, join=False)
    assert Ledger(tmp_path / "sweep", sweep, join=True).sweep is sweep  # it is written and read alike
    folder = RunFolder(tmp_path / "run")
    folder.create({"a": "1e-3", "b": 1e-3})
    assert folder.config == {"a": "1e-3", "b": 0.001}


def test_strict_bands_judge_by_the_value_at_the_bracket():
    histories = {"a": [1.0, 1.0, 1.0], "b": [0.5, 3.0, 3.0], "c": [1.0, 2.0, 2.0]}
    bands = {"type": "hyperband", "min_iter": 1, "eta": 3}
    assert to_stop(histories, ["a", "b", "c"], bands, maximise=False) == []
    assert to_stop(histories, ["a", "b", "c"], {**bands, "strict": True}, maximise=False) == ["b"]


def test_a_point_is_compared_with_the_configuration_of_its_run():
    config = parsed("cnn_channels")
    flat = {key: value for key, value in flatten(config).items() if key.partition(".")[0] in ("model", "data", "trainer")}
    assert departure(config, flat) == ""  # every value as it is
    same = {
        "model.base_lr": "8e-3",
        "data.size": "[32, 32]",
        "data.crop_scale": [0.2, 1],
        "model.control": "None",
        "data": "cifar10",
    }
    assert departure(config, {**same, "model.masker": "semconv.masking.RandomMasker", "none.such": 3, "runs": "elsewhere"}) == ""
    for name, value in {"data.flip": False, "model.base_lr": 1, "data.size": [32, 64], "model.masker": "BlockMasker"}.items():
        assert departure(config, {name: value}).startswith(f"{name} has no effect: the configuration has ")


@pytest.mark.filterwarnings("ignore")
def test_check_sweeps_refuses_what_a_run_would(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(FOLDER.parent)
    command = ["semconv", "run", "-c", "experiments/base.yaml", "-c", "experiments/cnn_channels.yaml", "${args}"]
    refused = {
        "model.masker.ratio": 1.5,
        "data.crop_scale": [0, 1],
        "model.encoder.kernel_size": 4,
        "trainer.limit_val_batches": -3,
    }
    short = ["semconv", "run", "cnn_channels", "${args}"]
    for number, (name, value) in enumerate(refused.items()):
        path, words = tmp_path / f"{name}.yaml", (command, short)[number % 2]
        path.write_text(yaml.safe_dump({"method": "grid", "command": words, "parameters": {name: {"values": [value]}}}))
        with pytest.raises(SystemExit):
            check([str(path)])
        assert capsys.readouterr().out.startswith(f"refused  {path}: --{name}={value}: ")


@together(
    "text, said",
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: a stands twice"),
        ("a: " + "[" * 100_000, "depth|levels"),
        ("a: &a [*a]", "refers to itself"),
        (
            "a: &a [1, 2, 3, 4, 5, 6, 7, 8]\n"
            + "".join(f"{y}: &{y} [{', '.join([f'*{x}'] * 8)}]\n" for x, y in zip("abcdefg", "bcdefgh", strict=True)),
            "100,000 values",
        ),
        ("a:\t1\n\tb: 2", "line 2: "),
        ("a: !!binary abcd", "tag"),
        ("a: !!python/object:os.system 1", "tag"),
        ("a: \x00", "control characters"),
        ("a: b: c", "line 1: "),
        ("a: *b", "undefined alias"),
    ],
)
def test_yaml_that_is_no_configuration_is_one_line(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        parse_yaml(text)
    assert len(str(caught.value).splitlines()) == 1
