"""What a sweep reads of its running trials, again and again."""

import json
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from semconv.sweeping.display import progress
from semconv.sweeping.trials import History
from semconv.tracking.folder import RunFolder


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "cnn_plain" / "a-000")
    folder.path.mkdir(parents=True)
    return folder


def test_each_row_is_read_once_and_a_half_written_one_when_it_is_whole(run, tmp_path, monkeypatch):
    history = History(tmp_path, "a-000", "val/loss")
    assert history.look().values == []
    run.log({"val/loss": 3}, 0, samples_seen=8)
    run.log({"train/loss": 0.5}, 1)
    assert history.look().values == [3.0]
    assert history.newest["step"] == 1
    assert (history.newest["val/loss"], history.newest["samples_seen"]) == (3, 8)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "val/')
        file.flush()
        assert history.look().values == [3.0]
        file.write('loss": 2}\n')
    parse = Mock(wraps=json.loads)
    monkeypatch.setattr("semconv.sweeping.trials.json.loads", parse)
    for _ in range(3):
        assert history.look().values == [3.0, 2.0]
    parse.assert_called_once_with(b'{"step": 2, "val/loss": 2}')


def test_a_damaged_row_is_left_out(run, tmp_path):
    run.log({"val/loss": 3}, 0)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write("garbage\n[1]\n")
    run.log({"val/loss": 2}, 1)
    assert History(tmp_path, "a-000", "val/loss").look().values == [3.0, 2.0]


def test_a_run_that_goes_on_from_an_earlier_step_or_begins_anew_is_read_anew(run, tmp_path):
    history = History(tmp_path, "a-000", "val/loss")
    for step in range(4):
        run.log({"val/loss": step}, step)
    assert history.look().values == [0, 1, 2, 3]
    run.write_config({})
    run.resume(2, {})
    for step in range(2, 6):
        run.log({"val/loss": 10 + step}, step)
    assert history.look().values == [0, 1, 12, 13, 14, 15]
    (run.path / "metrics.jsonl").unlink()
    assert history.look().values == []
    assert history.newest == {}


def test_a_live_line_says_the_step_and_the_metric_or_else_the_loss(run, tmp_path):
    trial: Any = SimpleNamespace(history=History(tmp_path, "a-000", "val/loss"), sweep=SimpleNamespace(metric="val/loss"))
    assert progress(trial) == "starting"
    run.log({"train/loss": 0.5}, 7)
    assert progress(trial) == "step 7, train/loss 0.5000"
    run.log({"val/loss": 0.25}, 8)
    run.log({"train/loss": 0.4}, 9)
    assert progress(trial) == "step 9, val/loss 0.2500"
