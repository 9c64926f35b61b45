import sys

import pytest
import yaml

from semconv.commands.sweep import main


@pytest.fixture
def make_sweep(tmp_path):
    """Writes a sweep over trials that only seem to train."""

    def write(**content):
        path = tmp_path / "a_sweep.yaml"
        command = [sys.executable, "-m", "tests.sweeping.trial", "${args}"]
        path.write_text(yaml.safe_dump({"method": "grid", "command": command, "metric": {"name": "val/loss"}, **content}))
        return path

    return write


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Sweeps look for what has ended, and for what is to be stopped, ten times as often."""
    monkeypatch.setattr("semconv.sweeping.runner.POLL_SECONDS", 0.02)
    monkeypatch.setattr("semconv.sweeping.runner.BAND_SECONDS", 0.2)


@pytest.fixture
def sweep(tmp_path):
    """Runs `semconv sweep` on a file; gives its exit code."""

    def run(path, *options):
        with pytest.raises(SystemExit) as ended:
            main([str(path), "--output", str(tmp_path / "sweep"), *options])
        return ended.value.code

    return run
