"""How a sweep names its trials on the terminal."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from semconv.sweeping.display import LONGEST, Display, described


def test_a_trial_is_named_by_what_differs_and_a_log_has_it_whole():
    files = "experiments/cnn_plain.yaml,runs/studies/a/points/only/cnn_plain-Zero@0.016.yaml"
    assert described({"config": files, "seed_everything": 3}) == "cnn_plain-Zero@0.016 seed=3"
    assert described({"config": files.replace("only", "dark")}) == "dark cnn_plain-Zero@0.016"
    assert described({"config": "cnn_gated,indicators/mask", "model.base_lr": 1 / 3}) == "cnn_gated+mask base_lr=0.333"
    assert described({"data.root": "https://me:hunter2@host/x"}) == "root=https://<redacted>@host/x"
    long = {"x": "y" * 2 * LONGEST}
    assert len(described(long)) == LONGEST
    assert described(long, None) == f"x={'y' * 2 * LONGEST}"


@pytest.mark.parametrize(("elsewhere", "left"), [((), "0:09:00"), ((1, 4, 5, 11), "0:06:00")])
def test_a_trial_that_has_ended_says_how_long_the_others_will_take(elsewhere, left, monkeypatch):
    now, written = 100.0, io.StringIO()
    monkeypatch.setattr("semconv.sweeping.display.time.monotonic", lambda: now)

    def trial(number: int) -> Any:
        claim = SimpleNamespace(run=f"a-{number - 1:03}", parameters={})
        return SimpleNamespace(claim=claim, started=now, sweep=SimpleNamespace(metric="loss", varied=lambda given: given))

    shown = Display(Console(file=written, width=200), 12, elsewhere)
    trials = [trial(2), trial(3)]
    for each in trials:
        shown.started(each)
    now = 160.0
    shown.ended(trials[0], "finished", 0.5, "")
    shown.started(last := trial(12))
    shown.ended(last, "finished", None, "over")
    lines = [line for line in written.getvalue().splitlines() if "finished" in line]
    assert lines[0].endswith(f"loss 0.5000, {left} left")  # one more was taken in a minute, and nine or six are to be
    assert lines[1].endswith(" over")
