"""The campaign itself: a few trials of each quick kind, and that it tells what is fine from what is not."""

import json
import sys
import tomllib
from itertools import islice
from random import Random

import pytest

from tests.campaign.__main__ import KINDS, main
from tests.campaign.trial import attempt
from tests.campaign.values import ODD, SENSIBLE, _read
from tests.minimum import ROOT, lowest


@pytest.mark.parametrize(("kind", "count"), [("values", 4), ("images", 6), ("secrets", 40)])
def test_trials_are_fine_and_the_same_for_a_seed(kind, count, tmp_path):
    trials, _, _ = KINDS[kind]
    first, again = (list(islice(trials(Random(3), tmp_path / str(number)), count)) for number in range(2))
    assert [trial for trial in first if not trial.fine] == []
    assert [trial.outcome for trial in first] == [trial.outcome for trial in again]


def test_a_refusal_is_one_line_that_a_user_can_read():
    def say(*lines: str, code: int = 2) -> None:
        print("\n".join(lines), file=sys.stderr)
        sys.exit(code)

    def crash() -> None:
        raise KeyError("x")

    line = "semconv: error: base_lr is 0: give a number above 0"
    outcomes = {
        "refused in one line": lambda: say("a warning", line),
        "not one line": lambda: say(line, line),
        "Python internals": lambda: say("semconv: error: 'NoneType' object is not iterable"),
        "traceback": crash,
        "accepted": lambda: None,
    }
    assert {expected: attempt(call, "").outcome for expected, call in outcomes.items()} == {name: name for name in outcomes}
    assert attempt(lambda: say(line, code=3), "").fine is False


def test_odd_values_are_sensible_or_not():
    accepted = {key: [_read(value) for value in ODD if sensible(_read(value))] for key, sensible in SENSIBLE.items()}
    assert all(accepted.values())
    assert all(len(values) < len(ODD) for values in accepted.values())
    assert accepted["model.masker.ratio"] == [0.5, 1e-30, 0.001, [0.1, 0.5]]


def test_counts_are_written_and_what_is_not_fine_ends_with_code_one(tmp_path, monkeypatch, capsys):
    from tests.campaign.trial import Trial

    found = [Trial("redacted", True, "a"), Trial("shown", False, "b", "the secret")]
    monkeypatch.setitem(KINDS, "secrets", (lambda random, folder: iter(found), 1.0, 2))
    monkeypatch.setattr("sys.argv", ["campaign", "--only", "secrets", "--output", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert "| secrets | 2 | 1 | redacted: 1, shown: 1 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["failed"] == [["secrets", "shown", False, "b", "the secret"]]


def test_every_lower_bound_is_a_constraint():
    constraints = lowest(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])
    assert {"jsonargparse==4.53", "wandb-workspaces==0.4.12"} <= set(constraints)
    assert not any(line.startswith(("torch=", "semconv")) for line in constraints)
