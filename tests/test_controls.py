from pathlib import Path

import pytest

from semconv.commands.train import parse
from semconv.comparison.grouping import differences
from semconv.configuration import flatten
from semconv.sweeping.file import read_sweep
from semconv.sweeping.macros import expand
from semconv.sweeping.trials import own_command
from semconv.tracking.facts import variant_name
from semconv.tracking.identity import identity
from tests.experiments import FOLDER


@pytest.mark.parametrize("world", [path.stem for path in (FOLDER / "worlds").glob("*.yaml")])
def test_a_data_set_with_a_known_answer_is_swept_under_one_protocol(world, tmp_path, monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    sweep = read_sweep(Path("sweeps") / f"known_{world}.yaml")
    points = [point for point in sweep.grid if point["seed_everything"] == 3]
    commands = [own_command(expand(sweep.command, sweep.program, point, tmp_path / "arguments.json")) for point in points]
    configs = [parse(command[1:]) for command in commands]
    name = "cnn_mask" if world == "dark" else "cnn_position"
    variants = ["cnn_plain", name, *(f"{name}-{control}" for control in ("plain_wide", "shuffled", "zero"))]
    assert [variant_name(config) for config in configs] == variants
    assert differences(flatten(identity(config)["protocol"]) for config in configs) == {}
    assert {config["model"]["init_args"]["decoder"]["init_args"]["told"] for config in configs} == {world != "dark"}
    assert {config["data"]["init_args"]["source"] for config in configs} == {f"scenes/{world}"}
