"""A command's macros against the functions of W&B's agent."""

import json

import pytest

from semconv.sweeping.macros import DEFAULT, expand, forms

PARAMETERS = {
    "a.b": 1e-05,
    "flag": False,
    "on": True,
    "text": "with space",
    "list": [1, 2.5],
    "none": "None",
    "config": "a.yaml,b.yaml",
}
MACROS = [
    "args",
    "args_no_equals",
    "args_no_hyphens",
    "args_no_boolean_flags",
    "args_json",
    "args_append_hydra",
    "args_override_hydra",
]


@pytest.fixture(scope="module")
def agent():
    """The functions of W&B's agent; not above, for all processes of the tests would import them, which takes seconds."""
    from wandb.sdk.launch.sweeps import utils

    return utils


def wandbs(agent, parameters):
    return agent.create_sweep_command_args({"args": {name: {"value": value} for name, value in parameters.items()}})


def test_parameters_take_every_form_that_wandb_gives_them(agent):
    theirs = wandbs(agent, PARAMETERS)
    assert set(MACROS) | {"args_dict"} == set(theirs)  # a mapping is no words: its macro is of no use in a command
    assert {name: theirs[name] for name in MACROS} == forms(PARAMETERS)


def test_a_command_is_filled_in_as_the_agent_does_it(agent, monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_VARIABLE", "its value")
    command = ["${env}", "${interpreter}", "${program}", "-x${envvar:SOME_VARIABLE}y", "${envvar:NOT_SET}", 3, "${unknown}"]
    command += [f"${{{name}}}" for name in [*MACROS, "args_json_file"]]
    json_file = tmp_path / "parameters.json"
    words = expand(command, "train.py", PARAMETERS, json_file)
    known = {**wandbs(agent, PARAMETERS), "interpreter": ["python"], "program": ["train.py"], "env": ["/usr/bin/env"]}
    known["args_json_file"] = [str(json_file)]
    expected: list[str] = []
    for chunk in agent.create_sweep_command([str(part) for part in command]):
        macro = chunk.startswith("${") and chunk.endswith("}")
        expected += known.get(chunk[2:-1], []) if macro else [chunk]
    assert words == expected
    assert "-xits valuey" in words
    assert "NOT_SET" in words
    assert json.loads(json_file.read_text()) == PARAMETERS


def test_the_default_command_is_wandbs(agent, tmp_path):
    theirs = agent.create_sweep_command(None)
    assert list(DEFAULT) == theirs
    assert expand(DEFAULT, "train.py", {"a": 1}, tmp_path / "x") == ["/usr/bin/env", "python", "train.py", "--a=1"]
    assert not (tmp_path / "x").exists()
