"""What arrives in W&B, and what its failures cost."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import torch

from semconv.commands.train import main
from semconv.tracking import wandb_record
from semconv.tracking.folder import RunFolder
from semconv.tracking.wandb_record import WandbOptions, WandbRecord, answers, choose_mode
from tests.experiments import arguments
from tests.processes import Forked
from tests.wandb_server import Manner, serve

pytestmark = pytest.mark.usefixtures("quick_runs")

KEY = "0123456789abcdef0123456789abcdef01234567"
SECRETS = {"WANDB_API_KEY": KEY, "HF_TOKEN": "hf_planted_secret", "MY_PASSWORD": "planted password"}
CONFIG = {"experiment": "name", "model": {"class_path": "x.Model", "init_args": {"lr": 0.1}}}
FACTS = {"variant": "cnn_channels", "mechanism": "Channels", "dataset": "scenes"}


@pytest.fixture
def make_record(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")

    def make(**options):
        folder = RunFolder(tmp_path / "runs" / "name" / uuid4().hex)  # the service knows runs by their ids
        folder.create(CONFIG)
        return WandbRecord(folder, WandbOptions(**options), CONFIG, FACTS, "fit")

    return make


def keep(record, steps=3):
    """A short run."""
    record.begin()
    for step in range(steps):
        record.log(record.folder.log({"train/loss": 1.0 / (step + 1), "epoch": 0}, step, samples_seen=8 * (step + 1)))
    pictures = {kind: torch.rand(2, 1, 8, 8) for kind in ("original", "seen")}
    record.log_panels("panels/test", pictures, torch.rand(2, 8, 8) < 0.5, ["image 3", "image 9"], steps)
    record.folder.summarise(
        {"val/masked_mse": 0.25, "test/psnr": None, "protocol": {"trainer": {"lengthened_at": "2"}}, "conveys": ["mask", "oracle"]}
    )
    record.end("finished")


def inspect(folder):
    (run,) = (folder.path / "wandb").glob("*run-*")
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(run)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), run


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_run_that_another_left_open_is_not_taken_for_it(make_record):
    abandoned, record = make_record(), make_record()
    abandoned.begin()
    keep(record)
    assert inspect(record.folder)[0]["summary"]["val/masked_mse"] == 0.25


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_run_arrives_with_its_whole_configuration_its_facts_its_clocks_and_its_pictures(make_record, capfd):
    record = make_record()
    keep(record)
    hint = [line for line in capfd.readouterr().err.splitlines() if line]
    assert len(hint) == 1
    assert hint[0].startswith("W&B is offline; to send this run: wandb sync ")
    found, run = inspect(record.folder)
    assert str(run) in hint[0]
    kept = run.joinpath(f"run-{record.folder.path.name}.wandb").read_bytes()
    assert found["config"]["model"]["init_args"]["lr"] == 0.1
    assert {key: found["config"][key] for key in FACTS} == FACTS
    assert found["config"]["environment"]["git_commit"] == record.folder.environment["sessions"][0]["git_commit"]
    assert found["summary"]["val/masked_mse"] == 0.25
    assert found["summary"]["conveys"] == ["mask", "oracle"]  # by which a comparison knows an oracle
    assert "protocol" not in found["summary"]
    assert found["summary"]["trainer/lengthened_at"] == "2"
    for key in ("train/loss", "samples_seen", "trainer/global_step", "epoch", "panels/test"):
        assert key.encode() in kept
    pictures = list(run.glob("files/media/images/panels/*.png"))
    assert len(pictures) == 2
    assert len(list(run.glob("files/media/images/mask/**/*.png"))) == 2


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_command_that_sends_a_resumed_run_names_all_its_parts(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = RunFolder(tmp_path / "my runs" / "name" / uuid4().hex)
    folder.create(CONFIG)
    before = folder.path / "wandb" / "offline-run-20260101_000000-x"
    before.mkdir(parents=True)
    keep(WandbRecord(folder, WandbOptions(), CONFIG, FACTS, "fit"))
    (said,) = (line for line in capfd.readouterr().err.splitlines() if line)
    parts = shlex.split(said.partition("to send this run: wandb sync ")[2])
    assert len(parts) == 2
    assert {Path(part) for part in parts} == {before, *folder.path.glob("wandb/offline-run-*")}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("method", ["log", "summary", "finish"])
def test_a_failure_inside_wandb_is_said_once_and_costs_nothing(method, make_record, capfd, monkeypatch):
    record = make_record(mode="offline")
    record.begin()
    run = record._run

    def fail(*_, **__):
        raise RuntimeError("the disk is on fire")

    if method == "summary":
        monkeypatch.setattr(type(run.summary), "update", fail)
    else:
        finish = run.finish
        setattr(run, method, fail)
    record.begin()
    keep(record)
    if method == "finish":
        finish()
    said = capfd.readouterr().err
    assert said.count("W&B has failed (the disk is on fire): the run continues without it") == 1
    assert said.count(f"; to send it: wandb sync --include-online {Path(run.dir).parent}") == 1
    assert len(list(record.folder.rows())) == 3
    if method != "finish":  # a run that is left open holds its process at exit, as long as its server fails
        found, _ = inspect(record.folder)
        assert found["exit_code"] == 0
        assert found["summary"].get("val/masked_mse") == (0.25 if method == "log" else None)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for W&B's process in /proc")
@pytest.mark.filterwarnings("ignore")
def test_a_service_that_is_killed_costs_nothing(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "a" / "b")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}  # no service of another
    done = Forked([], tmp_path, environment, partial(keep_without_a_service, folder)).wait()
    assert done.returncode == 0, done.stderr
    assert len(list(folder.rows())) == 3


def keep_without_a_service(folder):
    folder.create(CONFIG)
    record = WandbRecord(folder, WandbOptions(mode="offline"), CONFIG, FACTS, "fit")
    record.begin()
    own = str(os.getpid()).encode()
    commands = {path: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
    victims = [int(path.parent.name) for path, words in commands.items() if b"wandb-core" in words and own in words.split(b"\0")]
    assert victims
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    keep(record)


def test_online_without_an_account_is_refused_at_once(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments("cnn_plain", "--wandb.mode=online", f"--runs={tmp_path / 'runs'}")])
    assert stop.value.code == 2
    assert "no account is configured: run `wandb login`, or set WANDB_API_KEY" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_without_an_account_it_is_offline_and_with_one_it_depends_on_the_server(monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    assert choose_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    # a silent server would hold a probe that knows no limit for an hour
    monkeypatch.setattr("semconv.tracking.wandb_record.PROBE_SECONDS", 0.5)
    expected: dict[Manner, str] = {"kind": "online", "broken": "offline", "silent": "offline"}
    for manner, mode in expected.items():
        with serve(manner) as server:
            monkeypatch.setenv("WANDB_BASE_URL", server.url)
            assert choose_mode("auto") == mode
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_mode("auto") == "disabled"
    assert choose_mode("offline") == "offline"
    assert not answers("http://127.0.0.1:9")


def test_what_wandb_login_left_is_an_account(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1\n  login user\n  password {KEY}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serve() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert choose_mode("auto") == "online"


SMALL = ["--data.num_images=24", "--data.num_test_images=9", "--data.batch_size=8", "--trainer.log_every_n_steps=1"]
SMALL += ["--model.size=micro"]


def run_with(folder, server, *options, **environment):
    own = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    given = {**own, **SECRETS, "WANDB_BASE_URL": server.url, **environment}
    words = ["run", *arguments("cnn_channels", *SMALL, "--evaluation=none", f"--runs={folder}", *options)]
    return Forked(words, folder.parent, given).wait()


def test_an_online_run_arrives_and_no_secret_is_left_anywhere(tmp_path):
    with serve() as server:
        done = run_with(tmp_path / "runs", server, "--wandb.tags=[planted password]")
        assert done.returncode == 0, done.stderr
        sent = b"".join(body for _, body in server.requests)
    for needle in (b"test/masked_mse", b"Mask+Coordinates", b"encoder_parameters_m", b"samples_seen", b"panels/test"):
        assert needle in sent
    (run,) = (tmp_path / "runs").glob("*/*")
    files = [path for path in run.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    left = b"".join(path.read_bytes() for path in files) + done.stderr.encode() + done.stdout.encode()
    assert "<redacted:MY_PASSWORD>" in (run / "config.yaml").read_text()
    for secret in SECRETS.values():
        assert secret.encode() not in left
        assert secret.encode() not in sent


def test_a_sweep_gets_the_nested_configuration_beside_its_own_keys(tmp_path):
    parameters = tmp_path / "sampled.yaml"
    parameters.write_text("wandb_version: 1\nmodel.base_lr:\n  value: 0.004\n")
    environment = {"WANDB_SWEEP_ID": "s1", "WANDB_SWEEP_PARAM_PATH": str(parameters), "WANDB_RUN_ID": "fromsweep"}
    with serve(replies={"RunResumeStatus": lambda _: {"model": {"bucket": None}}}) as server:
        done = run_with(tmp_path / "runs", server, "--model.base_lr=0.004", **environment)
        assert done.returncode == 0, done.stderr
        assert "locked" not in done.stderr
        sent = b"".join(body for _, body in server.requests).replace(b"\\", b"")
        (run,) = (tmp_path / "runs").glob("*/*")
        assert run.name == "fromsweep"
        assert b'"model.base_lr"' in sent
        assert b'"base_lr":0.004' in sent.replace(b" ", b"")
        # the agent starts it again after an interruption
        RunFolder(run).summarise({"status": "terminated"})
        server.requests.clear()
        done = run_with(tmp_path / "runs", server, "--model.base_lr=0.004", **environment)
        assert (done.returncode, "W&B" in done.stderr) == (0, False), done.stderr
        assert any(b"RunResumeStatus" in body for _, body in server.requests)
    assert len(RunFolder(run).environment["sessions"]) == 2
    assert RunFolder(run).summary["status"] == "finished"


def check_unsent(server, said):
    """That the run was offline from the start, and said so: who asks no more than whether the server is there waits for no more."""
    assert not any(path.endswith(("graphql", "file_stream")) for path, _ in server.requests)
    assert said.count("W&B") == 1
    assert f"{server.url} does not answer: W&B is offline; to send this run: wandb sync" in said


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_server_that_is_broken_is_left_alone_and_costs_no_record(make_record, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with serve("broken") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        record = make_record()
        keep(record)
        check_unsent(server, capfd.readouterr().err)
    assert len(list(record.folder.rows())) == 3


@pytest.mark.parametrize("manner", ["closed", "broken"])
def test_an_upload_that_breaks_after_the_start_is_said_once_with_the_command_that_sends_it(manner, tmp_path):
    folder = RunFolder(tmp_path / "runs" / "a" / "b")
    own = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    with serve() as server:
        given = {**own, "WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}
        running = Forked([], tmp_path, given, partial(keep_with_a_gap, folder))
        while not (tmp_path / "begun").exists():
            assert running.poll() is None, running.wait()
            time.sleep(0.01)
        server.manner = manner
        (tmp_path / "broken").touch()
        done = running.wait(60)
        server.manner = "kind"
    (said,) = (line for line in done.stderr.splitlines() if "W&B" in line)
    assert done.returncode == 0, done.stderr
    start, _, place = said.partition("; to send it: wandb sync --include-online ")
    assert start.startswith("W&B does not ")
    assert Path(place, "run-b.wandb").is_file()
    assert len(list(folder.rows())) == 3
    assert folder.summary["val/masked_mse"] == 0.25


def keep_with_a_gap(folder):
    wandb_record.END_SECONDS = 2
    folder.create(CONFIG)
    record = WandbRecord(folder, WandbOptions(), CONFIG, FACTS, "fit")
    record.begin()
    place = folder.path.parents[2]
    (place / "begun").touch()
    while not (place / "broken").exists():
        time.sleep(0.01)
    keep(record)


def test_a_server_that_is_silent_is_left_alone_and_costs_no_record(tmp_path, monkeypatch):
    monkeypatch.setattr("semconv.tracking.wandb_record.PROBE_SECONDS", 0.5)
    with serve("silent") as server:
        done = run_with(tmp_path / "runs", server)
        check_unsent(server, done.stderr)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").glob("*/*")
    assert json.loads((run / "summary.json").read_text())["status"] == "finished"
