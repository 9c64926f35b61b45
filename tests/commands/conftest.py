import sys
from typing import Any

import pytest

from semconv.__main__ import main
from semconv.commands.train import main as train
from tests.experiments import arguments

SHORT = ["--trainer.limit_train_batches=2", "--trainer.log_every_n_steps=1", "--data.num_images=20", "--data.batch_size=4"]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """Trains two steps, once for each choice of options."""
    made = {}

    def make(name, *options):
        key = (name, *options)
        if key not in made:
            runs = tmp_path_factory.mktemp("runs")
            train(["fit", *arguments(name, *SHORT, f"--runs={runs}", *options)])
            (made[key],) = runs.glob("*/*")
        return made[key]

    return make


@pytest.fixture
def semconv(monkeypatch, capsys):
    """Runs the command: its exit code, what it printed, and its errors."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["semconv", *map(str, words)])
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
