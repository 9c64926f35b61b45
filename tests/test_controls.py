from pathlib import Path

import pytest

from benchmarks.controls import CONTROLS, TOLD, arguments
from semconv.commands.train import parse
from semconv.comparison.grouping import differences
from semconv.configuration import flatten
from semconv.tracking.facts import variant_name
from semconv.tracking.identity import identity


@pytest.mark.parametrize("world", TOLD)
def test_the_commands_of_a_world_differ_in_what_is_told_alone(world, tmp_path):
    told = TOLD[world]
    configs = [
        parse(arguments(world, 3, 7, Path(tmp_path), *variant, told_decoder=world != "dark")[1:])
        for variant in ((None, None), (told, None), *((told, control) for control in CONTROLS))
    ]
    name = f"cnn_{told.lower()}"
    assert [variant_name(config) for config in configs] == [
        "cnn_plain",
        name,
        f"{name}-zero",
        f"{name}-shuffled",
        f"{name}-plain_wide",
    ]
    assert differences(flatten(identity(config)["protocol"]) for config in configs) == {}
    assert {config["model"]["init_args"]["decoder"]["init_args"]["told"] for config in configs} == {world != "dark"}
    assert {config["data"]["init_args"]["source"] for config in configs} == {f"scenes/{world}"}
