"""Sweep files: what is refused, and what each of ours says."""

import json
from pathlib import Path

import pytest
import yaml

from semconv.commands.check_sweeps import main, points
from semconv.commands.train import parse
from semconv.comparison.declared import declared_by
from semconv.comparison.grouping import differences
from semconv.configuration import flatten
from semconv.study.file import CONTROL_FILES, read_study
from semconv.sweeping.file import KEYS, OF_SERVER, Sweep, own_folder, read_sweep, sweep_problem
from semconv.sweeping.macros import expand, own_command
from semconv.tracking.facts import variant_name
from semconv.tracking.identity import identity
from tests.experiments import FOLDER, NAMES
from tests.pairwise import together
from tests.sweeping.oracle import sweeps

FILES = sorted((FOLDER.parent / "sweeps").glob("*.yaml"))
all_files = together("path", FILES)
LEAST = {"method": "grid", "parameters": {"seed_everything": {"values": [0, 1]}}}
BAYES = {"method": "bayes", "metric": {"name": "val/masked_mse"}}


@together(
    "change, said",
    [
        ({"paramters": {}}, "W&B has no key paramters: did you mean parameters?"),
        ({"method": "best"}, "method is best: give one of grid, random, bayes"),
        ({"parameters": {}}, "it has no parameters"),
        (
            {"parameters": {"model": {"parameters": {"lr": {"value": 1}}}}},
            "model: nested parameters .* the dotted key, model.lr",
        ),
        ({"parameters": {"model": {"parameters": 3}}}, "model: parameters is 3: give value, or values"),
        ({"parameters": {"a": {"values": [1, None]}}}, "a: W&B passes null as the text None"),
        ({"parameters": {"a": {"value": None}}}, "a: W&B passes null"),
        ({"parameters": {"a": {"values": [{"b": 1}]}}}, "a: {'b': 1} reaches the command line in Python's notation"),
        ({"parameters": {"a": {"value": [{"b": 1}]}}}, "reaches the command line in Python's notation"),
        ({"parameters": {"a": 3}}, "a: give value: 3"),
        ({"parameters": {"a": {"min": 0.0, "max": 1.0}}}, "a: a grid takes values"),
        ({"parameters": {"a": {"min": 1.0, "max": 0.0}}}, "a: min 1.0 is not below max 0.0"),
        ({"metric": {"name": "test/masked_mse"}}, "test/masked_mse is measured on test images"),
        ({"metric": {"name": "probe/linear_top1"}}, "probe/linear_top1 is measured on test images"),
        ({"metric": {"name": "full/rankme", "goal": "maximize"}}, "full/rankme is measured on test images"),
        (
            {"metric": {"name": "val/masked_mse", "goal": "maximize"}},
            "metric.goal is maximize, .* better when lower: give goal: minimize",
        ),
        ({"metric": {"name": "val/top1"}}, "metric.goal is minimize, and val/top1 is better when higher: give goal: maximize"),
        ({"metric": {"goal": "minimize"}}, "metric has no name"),
        ({"metric": {"name": "a", "goal": "least"}}, "metric.goal is least"),
        ({"metric": {"name": "a", "impute": "mean"}}, "metric.impute is 'mean': give one of 'worst', 'best', 'latest'"),
        (
            {"method": "bayes", "metric": {"name": "a", "impute": "best"}},
            "metric.impute is best, which W&B's server alone can do: start this sweep by wandb sweep, or leave impute out",
        ),
        ({"method": "bayes", "metric": {"name": "a", "impute_while_running": "latest"}}, "metric.impute_while_running is latest"),
        ({"method": "bayes"}, "bayes needs a metric"),
        ({"scheduler": {"engine": "ax"}}, "scheduler is for W&B's server, which alone can run it: start this sweep by wandb sweep"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 2}}, "early_terminate needs a metric"),
        ({**BAYES, "early_terminate": {"type": "hyperband"}}, "early_terminate has no bracket"),
        (
            {**BAYES, "early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1}},
            "early_terminate.eta is 1: give a number above 1",
        ),
        ({"command": "semconv run"}, "command is not a list"),
        ({"run_cap": 0}, "run_cap is 0"),
        ({"metric": {"name": "val/masked_mse", "target": "low"}}, "metric.target is low: give a number"),
        ({"metric": {"name": "val/masked_mse", "target": float("nan")}}, "metric.target is nan: give a number"),
        ({"metric": {"name": "val/masked_mse", "target": 10**400}}, "give a number, or leave it out"),
        ({**BAYES, "early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 10**400}}, "give a number"),
        ({"parameters": {"a": {"distribution": "uniform", "min": 0, "max": 10**400}}}, "max"),
        ({"parameters": {1: {"values": [1, 2]}, "a": {"value": 1}}}, "1 among the parameters is no text"),
        ({"program": 5}, "program is 5: give the name of a program"),
        ({"method": "bayes", "metric": None}, "bayes needs a metric"),
        ({"metric": None, "early_terminate": {"type": "hyperband", "min_iter": 2}}, "early_terminate needs a metric"),
    ],
)
def test_what_is_known_to_break_is_refused(change, said, tmp_path):
    assert sweep_problem(LEAST) is None
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({**LEAST, **change}))
    with pytest.raises(ValueError, match=f"^{path}: .*{said}"):
        read_sweep(path)


@together(
    "metric, doubt",
    [
        (None, ""),
        ({"name": "val/masked_mse", "goal": "minimize"}, ""),
        ({"name": "val/masked_mse", "impute": "best", "impute_while_running": "false"}, ""),  # W&B's grid ignores it, too
        ({"name": "mechanism/share/stem", "goal": "maximize"}, ""),
        ({"name": "val/masked_mes"}, "no run of semconv records val/masked_mes: did you mean val/masked_mse?"),
        ({"name": "my_own", "goal": "maximize"}, "no run of semconv records my_own"),
    ],
)
def test_a_metric_that_no_run_records_is_named(metric, doubt):
    content = {**LEAST, "metric": metric} if metric else LEAST
    assert sweep_problem(content) is None
    assert Sweep("a", content).doubt == doubt


def test_a_file_that_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no sweep file"):
        read_sweep(tmp_path / "no.yaml")
    with pytest.raises(ValueError, match=f"^{tmp_path} cannot be read: Is a directory"):
        read_sweep(tmp_path)
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="is not valid YAML"):
        read_sweep(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("- a")
    with pytest.raises(ValueError, match="holds no sweep"):
        read_sweep(tmp_path / "a.yaml")


def test_the_keys_are_those_of_wandbs_schema():
    known = {*sweeps.config.schema.sweep_config_jsonschema["properties"], "run_cap", *OF_SERVER}  # of the newest version
    assert {*KEYS, *OF_SERVER} == known


@all_files
def test_our_files_are_valid_for_wandb(path):
    content = yaml.safe_load(path.read_text())
    content.pop("run_cap", None)
    assert sweeps.schema_violations_from_proposed_config(content) == []
    assert "program" in content  # the agent reads it unconditionally


@all_files
def test_a_grid_comes_in_the_order_in_which_wandb_gives_it(path):
    sweep = read_sweep(path)
    if sweep.method == "grid":
        content = {"method": "grid", "parameters": sweep.content["parameters"]}
        theirs = [run.config for run in sweeps.next_runs(content, [], n=len(sweep.grid) + 1) if run is not None]
        assert [{name: value["value"] for name, value in run.items()} for run in theirs] == sweep.grid


@all_files
def test_our_files_open_with_command_question_and_cost_and_declare_family_and_factors(path):
    command, question, cost = path.read_text().splitlines()[:3]
    sweep = read_sweep(path)
    assert command.startswith(f"# semconv sweep sweeps/{path.name}")
    assert question.endswith("?")
    assert cost.startswith(f"# {len(sweep.grid) or sweep.run_cap} runs")
    named = {name for value in sweep.parameters["config"]["values"] for name in experiments_of(value)}
    assert declared_by(sweep.content).family
    assert set(declared_by(sweep.content).family) <= named
    assert "cnn_plain" in named
    varied = [
        name for name in sweep.parameters if name not in ("config", "seed_everything") and "value" not in sweep.parameters[name]
    ]
    assert set(varied) <= set(declared_by(sweep.content).factors)


def experiments_of(value: str) -> list[str]:
    """The names of the experiments that a list of configuration files names: the last counts."""
    contents = [yaml.safe_load((FOLDER.parent / name).read_text()) for name in value.split(",")]
    return [content["experiment"] for content in contents if "experiment" in content][-1:]


@pytest.mark.parametrize(
    ("name", "left_out"),
    [("mechanisms", ""), ("screen", ""), ("mask_ratio", "denoising"), ("learning_rate", "denoising")],
)
def test_every_variant_is_swept(name, left_out):
    files = read_sweep(FOLDER.parent / "sweeps" / f"{name}.yaml").parameters["config"]["values"]
    assert files == [f"experiments/{variant}.yaml" for variant in NAMES if not left_out or left_out not in variant]


def conditioned() -> list[str]:
    """The CNN variants that are conditioned on an indicator."""
    return [name for name in NAMES if name.startswith("cnn_") and name not in ("cnn_plain", "cnn_denoising")]


@together("name", ["mechanisms", "screen", "controls", "depth", "mask_ratio", "learning_rate"])
def test_the_family_is_all_conditioned_mechanisms(name):
    assert list(declared_by(read_sweep(FOLDER.parent / "sweeps" / f"{name}.yaml").content).family) == conditioned()


def test_every_mechanism_is_swept_with_all_its_controls():
    files = read_sweep(FOLDER.parent / "sweeps" / "controls.yaml").parameters["config"]["values"]
    for name in conditioned():
        for control in CONTROL_FILES.values():
            assert f"experiments/{name}.yaml,{control}" in files
        assert f"experiments/{name}.yaml" in files


def test_every_mechanism_is_swept_at_every_depth():
    files = read_sweep(FOLDER.parent / "sweeps" / "depth.yaml").parameters["config"]["values"]
    depths = sorted(path.stem for path in (FOLDER / "depth").glob("*.yaml"))
    pairs = [f"experiments/{name}.yaml,experiments/depth/{depth}.yaml" for name in conditioned() for depth in depths]
    assert files == ["experiments/cnn_plain.yaml", *pairs]


def test_every_indicator_is_screened():
    family = read_study(FOLDER.parent / "sweeps" / "studies" / "indicators.yaml").family
    files = {f"experiments/indicators/{path.name}" for path in (FOLDER / "indicators").glob("*.yaml")}
    assert files
    assert files == {file for given in family.values() for file in given} - {"experiments/cnn_channels.yaml"}


@pytest.mark.parametrize("world", sorted(path.stem for path in (FOLDER / "worlds").glob("*.yaml")))
def test_a_data_set_with_a_known_answer_is_swept_under_one_protocol(world, tmp_path, monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    sweep = read_sweep(Path("sweeps") / f"known_{world}.yaml")
    points = [point for point in sweep.grid if point["seed_everything"] == 3]
    points = [*points[:5], *points[5::8]]  # plain, a variant with its controls, and some of the others
    commands = [own_command(expand(sweep.command, sweep.program, point, tmp_path / "arguments.json")) for point in points]
    configs = [parse(command[1:]) for command in commands]
    name = "cnn_mask" if world == "dark" else "cnn_position"
    variants = ["cnn_plain", name, *(f"{name}-{control}" for control in ("plain_wide", "shuffled", "zero"))]
    assert [variant_name(config) for config in configs][:5] == variants  # of others of one name, labels have the mechanism
    assert differences(flatten(identity(config)["protocol"]) for config in configs) == {}
    assert {config["model"]["init_args"]["decoder"]["init_args"]["told"] for config in configs} == {world != "dark"}
    assert {config["data"]["init_args"]["source"] for config in configs} == {f"scenes/{world}"}


def test_a_learning_rate_is_searched_for_equally_on_seeds_of_its_own():
    search = read_sweep(FOLDER.parent / "sweeps" / "learning_rate.yaml")
    seeds = {path.stem: seeds_of(read_sweep(path)) for path in FILES}
    assert search.metric == "val/masked_mse"
    assert not seeds.pop("learning_rate") & set().union(*seeds.values())


def seeds_of(sweep: Sweep) -> set[int]:
    spec = sweep.parameters["seed_everything"]
    return set(spec.get("values", [spec.get("value")]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "number", [pytest.param("1", id="one point"), pytest.param("100", id="every value", marks=pytest.mark.slow)]
)
def test_the_command_line_takes_our_sweeps(number, monkeypatch, capsys):
    monkeypatch.chdir(FOLDER.parent)
    main(["--points", number])
    assert capsys.readouterr().out.count("fine  ") == len(FILES)


@pytest.mark.filterwarnings("ignore")
def test_a_value_that_is_not_taken_or_has_no_effect_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(FOLDER.parent)
    command = ["semconv", "run", "-c", "experiments/base.yaml", "-c", "experiments/cnn_channels.yaml", "${args}"]
    found = {
        "typo": ({"model.base_lrr": {"value": 0.1}}, "there is no option model.base_lrr: did you mean model.base_lr?"),
        "wrong": ({"model.encoder.depth": {"values": ["stem", "somewhere"]}}, "--model.encoder.depth=somewhere"),
        "before": (
            {"checkpoint_every": {"value": 5}, "config": {"value": str(tmp_path / "f.yml")}},
            "checkpoint_every has no effect",
        ),
        "program": ({"x": {"value": 1}}, "only `semconv run` and `semconv fit` can be checked"),
        "declared": ({"x": {"value": 1}}, "a line of the description begins with 'factor': write factors:"),
    }
    (tmp_path / "f.yml").write_text("checkpoint_every: 7\n")
    for name, (parameters, _) in found.items():
        words = ["python", "train.py", "${args}"] if name == "program" else command
        content = {"method": "grid", "command": words, "parameters": parameters}
        described = {"description": "Text: of any kind\nfactor: model.size"} if name == "declared" else {}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(content | described))
    files = [tmp_path / f"{name}.yaml" for name in found]
    with pytest.raises(SystemExit) as ended:
        main([str(path) for path in files])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert "5 of 5 sweep files are refused" in err
    for path, line in zip(files, out.splitlines(), strict=True):
        assert line.startswith(f"refused  {path}: ")
        assert found[path.stem][1] in line


def test_every_value_is_tried():
    for path in FILES:
        sweep = read_sweep(path)
        tried = list(points(sweep))
        for name, spec in sweep.parameters.items():
            if sweep.method == "grid":
                assert [value for value in spec.get("values", []) if all(value != point[name] for point in tried)] == []


def test_sweeps_of_one_name_do_not_share_a_folder(tmp_path):
    one, other, third = {"a": 1}, {"a": 2}, {"a": 3}
    for content in (one, other):
        folder = own_folder(tmp_path, "lr", content, resume=False)
        folder.mkdir()
        (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    for resume in (False, True):
        assert [own_folder(tmp_path, "lr", content, resume).name for content in (one, other)] == ["lr", "lr-2"]
    assert own_folder(tmp_path, "lr", third, resume=False).name == "lr-3"
    assert own_folder(tmp_path, "lr", third, resume=True).name == "lr"  # where the ledger says that it holds another one
    (tmp_path / "lr").rename(tmp_path / "lr-12")
    for resume in (False, True):
        assert [own_folder(tmp_path, "lr", content, resume).name for content in (one, other)] == ["lr-12", "lr-2"]
    assert own_folder(tmp_path, "lr", third, resume=False).name == "lr"
