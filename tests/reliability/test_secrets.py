"""Keys and passwords that a user has in the environment, in options or in addresses reach no record."""

import os
from itertools import product

import pytest

from semconv.commands.train import main
from semconv.tracking.secrets import is_secret_name, redact
from tests.experiments import arguments
from tests.pairwise import together
from tests.processes import Forked
from tests.recording import SHORT

pytestmark = pytest.mark.usefixtures("quick_runs")

S3CRET = "hunter2-Zq8"  # it occurs nowhere else
IN_TEXT = [
    f"https://{S3CRET}@example.org/data",
    f"https://user:{S3CRET}@example.org/data",
    f"https://example.org/data?token={S3CRET}&x=1",
    f"https://example.org/data?x=1&X-Amz-Signature={S3CRET}",
    f"https://example.org/data?access_token={S3CRET}",
    f"https://example.org/data?api_key={S3CRET}#top",
    f"Authorization: Bearer {S3CRET}",
    f"authorization: basic {S3CRET}",
    f"Proxy-Authorization: Digest {S3CRET}",
    f"curl -H 'Bearer {S3CRET}' example.org",
    f"PGPASSWORD={S3CRET} psql",
    f"--db.password={S3CRET}",
    f"X-Api-Key: {S3CRET}",
    f"Cookie: {S3CRET}",
    f"{{'api_key': '{S3CRET}'}}",
    f'{{"a": [{{"client_secret" : "x\\"{S3CRET}"}}]}}',
    f"semconv export R --hub-token {S3CRET}",
    f"no data file at /data/https:/user:{S3CRET}@example.org/x",
    f"no data file at /data/https:/{S3CRET}@example.org/x",
    f"no file s3:/user:{S3CRET}@example.org/x",
    f"https://user:p@{S3CRET}@example.org/data",
    *(f"group {prefix}{S3CRET}" for prefix in ("ghp_", "gho_", "github_pat_", "glpat-", "xoxb-")),
    *(f"--wandb.group={prefix}{S3CRET}-abcd" for prefix in ("hf_", "sk-", "sk-proj-", "npm_", "pypi-")),
]
NAMES = ["GITHUB_PAT", "PGPASSWORD", "HF_TOKEN", "MY_SECRET", "AWS_SECRET_ACCESS_KEY", "dbPassword", "SLACK_APITOKEN"]


@together("text", IN_TEXT)
def test_a_secret_in_a_text_is_redacted(text):
    assert S3CRET not in redact(text)
    assert S3CRET not in str(redact({"a": [text]}))
    assert redact("AKIAIOSFODNN7EXAMPLE, ASIAIOSFODNN7EXAMPLE, AKIA") == "<redacted>, <redacted>, AKIA"


@pytest.mark.parametrize("path", ["/data/Basic shapes/png", "hfds//data/My Basic shapes/a1", "/data/key=1/part.parquet"])
def test_a_path_in_a_configuration_stays(path):
    assert redact({"data": {"source": path, "sources": [path]}}) == {"data": {"source": path, "sources": [path]}}


@together("name, value", product(NAMES, ["k9", "k9Zx", S3CRET]))
def test_the_value_of_a_secret_variable_is_redacted(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    assert (value in redact(f"a {value}, {value}/b")) == (len(value) < 4)
    assert redact(f"a{value}b" if len(value) < 8 else "ab") == (f"a{value}b" if len(value) < 8 else "ab")  # part of another word


def test_an_entry_of_a_mapping_is_redacted_by_its_name():
    assert redact({"hub": {"token": S3CRET, "key": "model.base_lr"}, "api_key": ""}) == {
        "hub": {"token": "<redacted>", "key": "model.base_lr"},
        "api_key": "",
    }


def test_two_words_of_a_command_are_one_secret():
    assert redact(["semconv", "--hub.token", S3CRET, "x"]) == ["semconv", "--hub.token", "<redacted>", "x"]


@together(
    "text",
    [
        "experiments/cnn_mask_token.yaml",
        "decay_tokens=False",
        "model.masker.ratio was 0.75 and is now 0.5",
        "http://localhost:8080/a?x=1",
        "basic training takes long",
        "token prediction",
        "monkey=3",
        "torch/cifar10: 3 images",
        "there is no such key: give another",
        "--hub-token: give it in the environment",
        "--hub-token takes the token of an account",
        '{"key": "model.base_lr", "tokens": "3"}',
        "host:/folder@2/images",
        "https://example.org?mail=me@example.org",
        "timm/hf_hub_resnet and sk-learn, flask-restful-api-2, hf_dataset_2",
    ],
)
def test_other_text_stays(text):
    assert redact(text) == text
    assert not is_secret_name("PATH")


def test_no_byte_of_a_run_holds_a_secret(tmp_path, monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, f"{S3CRET}-{name}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = [
        *SHORT,
        "--trainer.max_steps=1",
        f"--runs={tmp_path}",
        f"--data.root=https://user:{S3CRET}@example.org?token={S3CRET}",
        f"--wandb.tags=[Bearer {S3CRET}]",
        f"--wandb.group=ghp_{S3CRET}",
        f"--data.cache_folder={tmp_path}/{S3CRET}-GITHUB_PAT",
    ]
    main(["fit", *arguments("cnn_plain", *options)])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if S3CRET.encode() in path.read_bytes()] == []


def test_a_trials_log_and_an_error_hold_no_secret(tmp_path, capsys):
    path = tmp_path / "a.yaml"
    path.write_text("method: grid\ncommand: [echo, 'x ${envvar:MY_TOKEN}', done]\nparameters: {x: {values: [1]}}\n")
    words = ["sweep", str(path), "--output", str(tmp_path / "sweep")]
    Forked(words, tmp_path, {**os.environ, "MY_TOKEN": S3CRET}).wait()
    first = (tmp_path / "sweep" / "trials" / "000.log").read_text().splitlines()[0]
    assert first.startswith("$ echo ")
    assert S3CRET not in first
    with pytest.raises(SystemExit):
        main(["fit", *arguments("cnn_plain", f"--data.source=https://user:{S3CRET}@example.org/x")])
    assert S3CRET not in capsys.readouterr().err
