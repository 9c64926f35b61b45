"""benchmarks/speed.py: what it prints, and that it measures what it says."""

import pytest
import torch

from benchmarks import speed
from semconv.encoders import Geometry
from semconv.mechanisms import Channels, Plain

TINY = ["--size=micro", "--side=8", "--batch=2", "--rounds=1", "--threads=1"]


class Refusing(Channels):
    def __init__(self, convolution, indicators):
        raise ValueError("tell it everywhere")


def test_a_table_has_a_row_for_each_mechanism_and_a_cell_for_each_depth(capsys, monkeypatch):
    monkeypatch.setitem(speed.MECHANISMS, "Refusing", Refusing)
    speed.main(["Channels", "Partial", "Refusing", "--depths", "stem", "all", *TINY])
    _, _, head, line, *rows = capsys.readouterr().out.splitlines()
    assert head == "| mechanism | stem: time (parameters, FLOPs) | all: time (parameters, FLOPs) |"
    assert line == "| --- | --- | --- |"
    assert [row.split(" | ")[0] for row in rows] == ["| Channels", "| Partial", "| Refusing"]
    assert rows[2] == "| Refusing | tell it everywhere | tell it everywhere |"
    for cell in rows[1].strip("| ").split(" | ")[1:]:
        time, parameters, flops = (float(word) for word in cell.replace("(", "").replace(")", "").replace(",", "").split())
        assert time > 0
        assert parameters == pytest.approx(1, abs=0.03)
        assert flops == pytest.approx(1, abs=0.1)


def test_all_mechanisms_but_plain_are_found():
    assert {"AppendedValues", "Channels", "FiLM", "Gated", "MaskToken", "OverlayAdd", "OverlayReplace", "Partial"} <= set(
        speed.MECHANISMS
    )
    assert "Plain" not in speed.MECHANISMS
    assert "Mechanism" not in speed.MECHANISMS


def test_every_mechanism_can_be_measured_at_every_depth(capsys):
    speed.main(["Sparse", "Gradual", "LocalAttention", *TINY])
    _, _, _, _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 3
    assert all(cell[0].isdigit() for row in rows for cell in row.strip("| ").split(" | ")[1:])


def test_turns_are_taken_and_their_median_ratio_said():
    order = []

    class Clock(speed.Steps):
        def __init__(self, name, seconds):
            self.name, self.seconds = name, iter(seconds)

        def __call__(self, number):
            order.append(self.name)
            return next(self.seconds)

    # the first pair warms up
    assert speed.compare(Clock("plain", [1, 1, 2, 4]), Clock("told", [99, 3, 4, 4]), 1, 3) == 2
    assert order == ["told", "plain", "plain", "told", "told", "plain", "plain", "told"]


def test_a_step_trains_and_the_view_is_masked():
    geometry = Geometry(3, (8, 16), 4)
    view = speed.make_view(geometry, 3, 0.75, "cpu")
    assert view.mask.flatten(1).sum(1).tolist() == [6, 6, 6] == [view.num_masked] * 3
    assert (view.pixels == 0).float().mean() == 0.75
    steps = speed.make_steps(Plain, "all", "test", geometry, view)
    before = [parameter.detach().clone() for parameter in steps.encoder.parameters()]
    assert steps(2) > 0
    assert not any(torch.equal(*pair) for pair in zip(before, steps.encoder.parameters(), strict=True))


def test_an_unknown_mechanism_is_refused_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        speed.main(["Telepathy"])
    assert stop.value.code == 2
    assert "there is no mechanism Telepathy: choose among AppendedValues, Channels" in capsys.readouterr().err
