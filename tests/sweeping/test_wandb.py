"""The real `wandb sweep`, `wandb agent` and `wandb sync` against a server of ours."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, cast

import pytest
import yaml

from semconv.sweeping.file import Sweep
from tests.experiments import FOLDER
from tests.processes import Forked
from tests.sweeping.test_preloaded import COMMAND, TINY
from tests.wandb_server import PROJECT, Manner, Server, serve

KEY = "0123456789abcdef0123456789abcdef01234567"


class Controller:
    """What W&B's server does with a sweep: it keeps the file, and hands out the points of a grid to who asks."""

    def __init__(self) -> None:
        self.config = ""
        self.given: list[dict[str, Any]] = []

    @property
    def replies(self) -> dict[str, Any]:
        return {
            "UpsertSweep": self.take,
            "SweepWithRuns": lambda _: {"project": {"sweep": self.described()}},
            "CreateAgent": lambda _: {"createAgent": {"agent": {"id": "A"}}},
            "Heartbeat": self.command,
        }

    def take(self, variables: dict[str, Any]) -> Any:
        self.config = variables["config"]
        return {"upsertSweep": {"sweep": {"name": "s1", "project": PROJECT}, "configValidationWarnings": []}}

    def described(self) -> dict[str, Any]:
        return {"id": "S", "name": "s1", "state": "RUNNING", "config": self.config, "runs": {"edges": []}}

    def command(self, variables: dict[str, Any]) -> Any:
        sweep = Sweep("s1", yaml.safe_load(self.config))
        busy = any(json.loads(variables["runState"]).values())
        left = sweep.grid[len(self.given) :]
        commands: list[dict[str, Any]] = []
        if left and not busy:
            self.given.append(left[0])
            arguments = {name: {"value": value} for name, value in left[0].items()}
            commands = [{"type": "run", "run_id": f"run{len(self.given)}", "args": arguments, "program": sweep.program}]
        elif not busy:
            commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": "A"}, "commands": json.dumps(commands)}}


@pytest.fixture
def controller() -> Controller:
    return Controller()


@pytest.fixture
def server(controller: Controller) -> Iterator[Server]:
    with serve(replies=controller.replies) as server:
        yield server


def wandb(server: Server, folder: Path, *words: str, **environment: str) -> str:
    """A command of W&B's; what it says."""
    from wandb.cli.cli import cli  # not above: it takes a second, which processes save
    from wandb.wandb_agent import Agent

    def program() -> None:
        # it looks fifty times as often for what to do and for runs that have ended
        Agent.POLL_INTERVAL = 0.1  # type: ignore[assignment]
        cli()

    own = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    given = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_DIR": str(folder), "PATH": path}
    said = Path(mkdtemp(prefix="said-", dir=folder))
    done = Forked(words, said, {**own, **given, "PYTHONPATH": str(FOLDER.parent), **environment}, program).wait(280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_wandb_takes_a_sweep_file_unharmed_and_its_agent_runs_every_point(make_sweep, server, controller, tmp_path):
    description = "What helps?\nfamily: a b\nfactors: model.corruption\n"
    path = make_sweep(parameters={"x": {"values": [3, 1]}}, program="semconv", description=description)
    said = wandb(server, tmp_path, "sweep", "--project", "semconv", str(path))
    assert "wandb agent somebody/semconv/s1" in said
    assert yaml.safe_load(controller.config) == yaml.safe_load(path.read_text())  # description and all
    wandb(server, tmp_path, "agent", "somebody/semconv/s1")
    rows = [json.loads(line) for line in (tmp_path / "begun.txt").read_text().splitlines()]
    assert [(row["run"], row["words"]) for row in rows] == [("run1", ["--x=3"]), ("run2", ["--x=1"])]


def sent(server: Server) -> bytes:
    return b"".join(body for _, body in server.requests).replace(b"\\", b"").replace(b" ", b"")


@pytest.mark.slow
def test_an_agents_trials_of_semconv_arrive_with_their_configuration_and_results(server, controller, tmp_path):
    parameters = {**TINY, "config": {"value": "experiments/cnn_channels.yaml,experiments/controls/zero.yaml"}}
    parameters |= {"model.base_lr": {"values": [0.004, 0.0625]}, "runs": {"value": str(tmp_path / "runs")}}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({"method": "grid", "program": "semconv", "command": COMMAND, "parameters": parameters}))
    wandb(server, tmp_path, "sweep", "--project", "semconv", str(path))
    wandb(server, tmp_path, "agent", "--count", "2", "somebody/semconv/s1")
    runs = sorted((tmp_path / "runs").glob("cnn_channels-zero/*"))
    assert [run.name for run in runs] == ["run1", "run2"]
    arrived = sent(server)
    for run, rate in zip(runs, (b"0.004", b"0.0625"), strict=True):
        summary = json.loads((run / "summary.json").read_text())
        assert summary["status"] == "finished"
        assert f'"test/masked_mse":{summary["test/masked_mse"]}'.encode() in arrived
        assert b'"base_lr":' + rate in arrived  # nested, in the whole configuration
    assert b'"model.base_lr"' in arrived  # flat, as the sweep names it


@pytest.mark.slow
def test_an_agent_runs_a_round_of_a_study_and_the_study_goes_on_from_it(server, controller, tmp_path):
    study = {
        "protocol": ["experiments/base.yaml"],
        "options": {name: spec["value"] for name, spec in TINY.items() if "encoder" not in name} | {"trainer.max_steps": 3},
        "plain": ["experiments/cnn_plain.yaml"],
        "family": {"cnn_mask": ["experiments/cnn_channels.yaml", "experiments/indicators/mask.yaml"]},
        "tune": {"key": "model.init_args.base_lr", "values": [0.004, 0.008], "seeds": [100]},
        "confirm": {"looks": [3], "first_seed": 0},
    }
    path, folder = tmp_path / "tiny.yaml", tmp_path / "study"
    path.write_text(yaml.safe_dump(study))
    prepare = [sys.executable, "-m", "semconv", "study", str(path), "--output", str(folder), "--prepare"]

    def prepared() -> str:
        done = subprocess.run(prepare, cwd=FOLDER.parent, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    place = Path(os.path.relpath(folder, FOLDER.parent)) / "measure" / "sweep.yaml"
    assert f"2 runs to do: wandb sweep {place}" in prepared()
    wandb(server, tmp_path, "sweep", "--project", "semconv", str(place))
    wandb(server, tmp_path, "agent", "--count", "1", "somebody/semconv/s1")
    assert "1 runs to do" in prepared()
    wandb(server, tmp_path, "agent", "somebody/semconv/s1")
    assert "measure-controls" in prepared()  # measure is complete


@pytest.mark.slow
@pytest.mark.parametrize("manner", ["slow", "broken", "gone"])
def test_a_server_that_fails_half_way_harms_no_training_and_a_later_sync_completes(manner, controller, tmp_path):
    """The server takes the run, and then is slow, fails, or is there no more, until the run is over."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    words = [f"--{name}={spec['value']}" for name, spec in TINY.items() if name != "data.num_images"]
    command = [sys.executable, "-m", "semconv", "run", "-c", "experiments/base.yaml", "-c", "experiments/cnn_channels.yaml", *words]
    with serve() as server:
        given = {**environment, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        process = subprocess.Popen(
            [*command, "--data.num_images=1500", f"--runs={tmp_path}"],
            cwd=FOLDER.parent,
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        limit = time.monotonic() + 120
        while not any(path.endswith("file_stream") for path, _ in server.requests):
            assert time.monotonic() < limit
            time.sleep(0.05)
        if manner == "gone":
            server.shutdown()
            server.server_close()
        else:
            server.manner = cast(Manner, manner)
        said, _ = process.communicate(timeout=250)
    assert process.returncode == 0, said
    (run,) = tmp_path.glob("*/*")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    (record,) = run.glob("wandb/run-*/*.wandb")
    with serve() as server:
        wandb(server, tmp_path, "sync", "--include-online", str(record.parent))
        assert f'"test/masked_mse":{summary["test/masked_mse"]}'.encode() in sent(server)


@pytest.mark.slow
def test_a_sweeps_offline_runs_are_complete_for_sync(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    parameters = {**TINY, "config": {"value": "experiments/cnn_channels.yaml"}, "model.base_lr": {"values": [0.0625]}}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({"method": "grid", "command": COMMAND, "parameters": parameters}))
    command = [sys.executable, "-m", "semconv", "sweep", str(path), "--output", str(tmp_path / "sweep")]
    subprocess.run(command, cwd=FOLDER.parent, check=True, capture_output=True)
    (record,) = (tmp_path / "sweep").glob("cnn_channels/*/wandb/offline-run-*")
    summary = json.loads((record.parent.parent / "summary.json").read_text())
    with serve() as server:
        wandb(server, tmp_path, "sync", str(record))
        arrived = sent(server)
    assert f'"test/masked_mse":{summary["test/masked_mse"]}'.encode() in arrived
    assert b'"model.base_lr"' in arrived
    assert record.parent.parent.name.encode() in arrived
