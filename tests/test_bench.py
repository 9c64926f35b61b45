"""`make bench`: turns and their ratios, exponents, the simulated study, peers of equal size, and the tables."""

import json
from functools import partial
from typing import Any

import pytest

from benchmarks import cpu, growth, marks, pairs, parts, peers, study
from results import fill
from semconv.cost import count_training_flops
from semconv.encoders import Geometry
from semconv.study.file import read_study


def turns(**values):
    """Turns of one session, by name."""
    given = {name: partial(next, iter(each)) for name, each in values.items()}
    return pairs.alternate(given, len(next(iter(values.values()))), warmup=0)


def test_turns_alternate_and_a_ratio_is_that_of_the_pairs():
    order = []

    def turn(name):
        order.append(name)
        return len(order)

    found = pairs.alternate({name: partial(turn, name) for name in "ab"}, 2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found["a"].places == (3, 4)  # the first pair warms up
    assert found["a"].values == (4, 5)
    spread = pairs.ratio(*turns(one=[2, 6, 10, 8], other=[1, 2, 2, 2]).values())
    assert spread == (3.5, 2.75, 4.25, 4)
    assert pairs.ratio(*turns(one=[3], other=[2]).values()) == (1.5, 1.5, 1.5, 1)


def test_a_ratio_of_values_that_took_no_turns_is_refused():
    first, second = turns(one=[1, 2], other=[1, 2]), turns(one=[1, 2], other=[1, 2])
    with pytest.raises(ValueError, match="one and other were measured in different sessions"):
        pairs.ratio(first["one"], second["other"])
    with pytest.raises(ValueError, match="one and other were measured one after the other"):
        pairs.ratio(first["one"]._replace(places=(0, 1)), first["other"]._replace(places=(2, 3)))
    with pytest.raises(ValueError, match="different sessions"):
        pairs.slopes({1: first["one"], 2: second["one"]})


def test_an_exponent_is_that_of_the_power_law():
    grid = turns(**{str(size): [3 * size**power for power in (1, 1.5, 2)] for size in (1, 2, 8)})
    assert pairs.slopes({int(size): each for size, each in grid.items()}) == pytest.approx((1.5, 1.25, 1.75, 3))


def test_the_tables_hold_what_was_measured_in_turns_and_nothing_else(tmp_path, monkeypatch):
    step = turns(semconv=[0.2, 0.4], transformers=[0.5, 0.5], lightly=[0.4, 0.4])
    peak = turns(**{name: [2**20, 2**20] for name in ("semconv", "semconv fit mae_vit", "lightly")})
    measured: dict[str, Any] = {
        "vit": {"turns": parts.written(step), "shares": {"semconv": dict.fromkeys((*parts.OPERATORS, "all else"), 0.25)}},
        "evaluation": {"turns": parts.written(turns(evaluation=[1.0], epoch=[4.0])), "seconds": {"features": 0.7, "all else": 0.3}},
        "processes": {
            "start": {
                "turns": parts.written(turns(**{"first step": [6.0], "imports": [3.0]})),
                "seconds": {"imports": 3.0, "step": 6.0},
            },
            "memory": {
                "turns": parts.written(peak),
                "held": {"semconv fit mae_vit": dict.fromkeys(("imports", "built", "data", "step", "peak"), 2**21)},
            },
        },
        "growth": {
            "batch": {
                "unit": "images",
                "turns": parts.written(turns(**{"1": [1.0], "4": [2.0]})),
                "flops": {1: 1, 4: 4},
                "kept": {1: 1, 4: 16},
            }
        },
    }
    figures = {"machine": "here", "threads": 1, "torch": "2", "images": "none", "parts": measured}
    (tmp_path / "cpu.json").write_text(json.dumps(figures))
    monkeypatch.setattr(fill, "FIGURES", tmp_path)
    lines = fill.figures("cpu").splitlines()
    assert [line.split(" | ")[1:4] for line in lines if line.startswith("| training step")] == [
        ["0.75 (0.62 to 0.88)", "2", "semconv 300 ms, lightly 400 ms"]
    ]
    assert any(line.startswith("| quick evaluation over an epoch") and " | 0.25 (" in line for line in lines)
    assert any(line.startswith("| shell to the end") and " | 2.00 (" in line for line in lines)
    assert "| batch | 1, 4 images | 0.50 (0.50 to 0.50) | 1.00 | 2.00 |" in lines
    assert "| seconds from the shell | `import torch, lightning` | after a step |" in lines
    assert f"| semconv fit mae_vit |{' 2 MiB |' * 5}" in lines
    measured["vit"]["turns"]["lightly"] = turns(lightly=[0.4, 0.4])["lightly"]._asdict()
    with pytest.raises(ValueError, match="different sessions"):
        cpu.text(json.loads(json.dumps(figures)))


def test_parts_are_written_one_by_one_and_join_those_of_the_same_machine_alone(tmp_path, monkeypatch, capsys):
    place = tmp_path / "new" / "cpu.json"

    def fail(rounds):
        raise ValueError(f"after {rounds} rounds")

    measuring: dict[str, Any] = {"study": lambda rounds: {"file": "a", "outcomes": []}, "growth": fail}
    monkeypatch.setattr(cpu, "PARTS", measuring)
    with pytest.raises(ValueError, match="after 2 rounds"):
        cpu.main(["--rounds=2", f"--json={place}"])
    assert list(json.loads(place.read_text())["parts"]) == ["study"]
    measuring["growth"] = lambda rounds: {}
    cpu.main(["--only", "growth", f"--json={place}"])
    assert list(json.loads(place.read_text())["parts"]) == ["study", "growth"]
    place.write_text(place.read_text().replace('"threads": ', '"threads": 9'))
    with pytest.raises(SystemExit):
        cpu.main(["--only", "growth", f"--json={place}"])
    assert "holds figures of threads 9" in capsys.readouterr().err


def test_marks_are_found_among_other_lines(capsys):
    marks._mark("step")
    found = marks.read(f"words\n{capsys.readouterr().out}more")
    assert found["step"]["time"] > 0
    assert set(found) == {"step"}


def test_a_process_has_its_own_peak_of_memory_and_its_failure_is_named():
    small, large = (parts.call(["-c", f"held = b'1' * {size}; print('words')"]) for size in (1, 2**26))
    assert 2**20 < small.peak < 2**26 <= large.peak < 2**27
    assert small.output.split() == ["words"]
    with pytest.raises(ValueError, match=r"-c .* failed: ValueError: no number"):
        parts.call(["-c", "raise ValueError('no number')"])


def test_a_study_in_stages_takes_fewer_runs_than_a_fixed_design_of_its_power():
    assert study.share_kept(9, 2, 9, 0.0) == 1
    assert study.share_kept(9, 2, 3, 0.0) == pytest.approx(1 / 3, abs=0.02)
    found = study.compare(read_study(parts.ROOT / "sweeps/studies/cifar10_zero.yaml"), 2.0, 50)
    assert found.fixed_power >= found.power > 0.9
    assert found.runs < 0.5 * found.fixed_runs
    search, screened = 10 * 3, 10 * 2
    assert found.fixed_runs == search + found.seeds * (1 + 9 * 4)
    assert search + screened + 10 + 2 * 4 * 5 <= found.runs <= search + screened + 10 + 2 * 4 * 10


@pytest.mark.parametrize("name", [*peers.PEERS, peers.OURS])
def test_masked_autoencoders_of_other_packages_are_of_equal_size_and_learn(name):
    pytest.importorskip(name)
    steps, ours = (peers.make_steps(each, Geometry(3, (16, 16), 4), "micro", 2) for each in (name, peers.OURS))
    counts = [sum(each.numel() for each in one.network.parameters() if each.requires_grad) for one in (steps, ours)]
    assert counts[0] - counts[1] == (32 if name == "lightly" else 0)  # a token that its encoder has and does not use
    first = steps.loss(steps.images).item()
    assert steps(20) > 0
    assert steps.loss(steps.images).item() < first


def test_growth_counts_operations_and_memory_of_each_point():
    points = {batch: growth.Point(growth.vit("micro", 16), batch) for batch in (2, 8)}
    found = growth.measure(growth.Axis("images", points), 1)
    assert pairs.slope([2, 8], [found.flops[2], found.flops[8]]) == pytest.approx(1)
    assert pairs.slope([2, 8], [found.kept[2], found.kept[8]]) == pytest.approx(1, abs=0.1)
    assert found.flops[2] == count_training_flops(points[2].task, points[2].task.geometry.blank(2))
    assert found.turns[2].values[0] > 0
