import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from semconv.files import write_text
from semconv.tracking.environment import code_of, git_state, processor
from semconv.tracking.facts import derived_facts
from semconv.tracking.folder import RunFolder
from semconv.tracking.secrets import is_secret_name, redact, refuse_secret_interpolation
from tests.experiments import all_experiments, parsed
from tests.pairwise import together


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "name" / "id")
    folder.create({"a": [1, 2]}, device="a device")
    return folder


def test_a_plain_loop_can_keep_a_record(run):
    for step in range(3):
        run.log({"loss": 1 / (step + 1)}, step, samples_seen=8 * (step + 1))
    run.summarise({"val/loss": 0.5})
    run.summarise({"status": "finished"})
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["samples_seen"], row["loss"]) for row in rows] == [(0, 8, 1.0), (1, 16, 0.5), (2, 24, 1 / 3)]
    assert all(row["time"] > 1.7e9 for row in rows)
    assert run.summary == {"val/loss": 0.5, "status": "finished"}
    assert run.config == {"a": [1, 2]}
    (session,) = run.environment["sessions"]
    assert session["device"] == "a device"
    assert {"command", "git_commit", "git_dirty", "versions", "started"} <= session.keys()
    assert session["processor"] == processor()
    (run.path / "cpuinfo").write_text("processor\t: 0\nvendor_id\t: Maker\ncpu family\t: 6\nmodel\t\t: 207\nmodel name\t: M (R)\n")
    assert processor(run.path / "cpuinfo") == "Maker 6 207"
    assert session["versions"]["torch"]


def test_a_folder_is_not_used_twice(tmp_path):
    run = RunFolder(tmp_path / "my runs" / "id")
    run.create({})
    with pytest.raises(ValueError, match=rf"holds a run already: resume it by --resume '{run.path}', or"):
        run.create({})


def test_a_trial_that_wandbs_agent_starts_again_begins_anew_unless_it_has_a_checkpoint_or_is_finished(run, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "id")
    run.log({"loss": 1}, 0)
    run.create({"a": 2})
    assert (run.config, list(run.rows()), len(run.environment["sessions"])) == ({"a": 2}, [], 1)
    run.checkpoints.mkdir()
    zipfile.ZipFile(run.checkpoints / "last.ckpt", "w").close()
    with pytest.raises(ValueError, match="holds a run already"):
        run.create({})
    (run.checkpoints / "last.ckpt").unlink()
    run.summarise({"status": "finished"})
    with pytest.raises(ValueError, match="holds a run already"):
        run.create({})


def test_going_on_forgets_what_came_after_the_checkpoint_and_a_row_that_was_cut_off(run):
    for step in range(5):
        run.log({"loss": step}, step)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "lo')
    run.resume(3, {"a": [1, 2]})
    run.log({"loss": 30}, 3)
    assert [row["loss"] for row in run.rows()] == [0, 1, 2, 30]
    assert [session.get("from_step") for session in run.environment["sessions"]] == [None, 3]
    assert not list(run.path.glob("config-until*"))


def test_going_on_with_another_configuration_keeps_the_one_before(run):
    run.resume(7, {"a": 3})
    assert run.config == {"a": 3}
    assert (run.path / "config-until-step-7.yaml").read_text() == "a:\n- 1\n- 2\n"


def test_a_file_whose_writing_fails_stays_as_it_was(run, monkeypatch):
    path = run.path / "summary.json"
    write_text(path, "before")
    monkeypatch.setattr("os.fsync", lambda number: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_text(path, "after")
    assert path.read_text() == "before"
    assert [child.name for child in run.path.iterdir() if child.name.endswith("tmp")] == []


def test_the_commit_is_that_of_the_code_and_changes_are_told(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    assert git_state(tmp_path) == {"git_commit": None, "git_dirty": None}
    git("init", "-q")
    (tmp_path / "__init__.py").write_text("")
    git("add", "-A")
    git("commit", "-qm", "x")
    state = git_state(tmp_path)
    assert len(state["git_commit"]) == 40
    assert state["git_dirty"] is False
    (tmp_path / "__init__.py").write_text("changed")
    assert git_state(tmp_path)["git_dirty"] is True
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "__init__.py").write_text("")
    assert git_state(installed)["git_commit"] is None  # the repository around it is not the package's


@all_experiments
def test_facts_are_flat_and_say_what_a_variant_is(name):
    facts = derived_facts(parsed(name))
    assert facts["variant"] == name
    assert facts["dataset"] == "scenes"
    assert all(value is None or isinstance(value, str | int) for value in facts.values())


def test_facts_of_a_told_network_and_of_somebody_elses():
    facts = derived_facts(parsed("cnn_channels"))
    told = (facts["mechanism"], facts["indicators"], facts["depth"], facts["corruption"], facts["fill"])
    assert told == ("Channels", "Mask+Coordinates", "stages", "Hide", "ZeroFill")
    assert derived_facts(parsed("mae_vit"))["mechanism"] == "drop"
    foreign = derived_facts({"experiment": "mine", "model": {"class_path": "mine.Model"}, "data": None})
    assert (foreign["variant"], foreign["mechanism"], foreign["indicators"]) == ("mine", None, "none")


@together("name", ["WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "apiKey", "--auth-token"])
def test_names_of_secrets_are_known(name):
    assert is_secret_name(name)


@together("name", ["MONKEY", "TOKENIZERS_PARALLELISM", "PWD", "KEYBOARD", "SEMCONV_DATA", "AUTHOR", "--model.decay_tokens"])
def test_other_names_are_not(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text", ["${oc.env:MY_KEY}", "a: ${oc.env:HF_TOKEN,none}", "${ oc.env : MY_PASSWORD }", "${oc.decode:${oc.env:MY_KEY}}"]
)
def test_configurations_do_not_read_secrets(text):
    with pytest.raises(ValueError, match=r"base.yaml reads (MY_KEY|HF_TOKEN|MY_PASSWORD) from the environment"):
        refuse_secret_interpolation(text, "base.yaml")
    refuse_secret_interpolation(
        text.replace("MY_KEY", "DATA").replace("HF_TOKEN", "DATA").replace("MY_PASSWORD", "DATA"), "base.yaml"
    )


def test_secrets_are_taken_out_of_whatever_is_recorded(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cr3t-s3cr3t")
    record = {"a": ["--x=s3cr3t-s3cr3t", "https://me:pass@host/x", 3], "b": {"c": "in s3cr3t-s3cr3t text"}, "d": None}
    assert redact(record) == {
        "a": ["--x=<redacted:MY_TOKEN>", "https://<redacted>@host/x", 3],
        "b": {"c": "in <redacted:MY_TOKEN> text"},
        "d": None,
    }
    assert redact(["--api_key=abc", "--api-key", "abc", "--size", "abc"]) == [
        "--api_key=<redacted>",
        "--api-key",
        "<redacted>",
        "--size",
        "abc",
    ]
    assert redact(Path("x")) == Path("x")
    monkeypatch.setenv("MY_PASSWORD", "test")  # in a configuration a choice
    config = {"size": "test", "source": "/data/test"}
    assert (redact("login by test"), redact(config)) == ("login by <redacted:MY_PASSWORD>", config)


def test_the_hash_of_the_code_changes_with_what_it_computes_alone(tmp_path):
    hashes = []
    for number, (name, code) in enumerate(
        (
            ("masking.py", "def f(x):\n    return x + 1\n"),
            ("masking.py", 'def f(x):\n    """Says what it does."""\n    return x+1  # and why\n'),
            ("masking.py", "def f(x):\n    return x + 2\n"),
            ("mask.py", "def f(x):\n    return x + 1\n"),
        )
    ):
        folder = tmp_path / str(number)
        (folder / "study").mkdir(parents=True)
        (folder / name).write_text(code)
        (folder / "study" / "plan.py").write_text(str(number))
        hashes.append(code_of(folder))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
