import math
import random

import pytest

from semconv.sweeping.hyperband import brackets, to_stop
from tests.sweeping.oracle import sweeps

GIVEN = [
    {"type": "hyperband", "min_iter": 1},
    {"type": "hyperband", "min_iter": 3, "eta": 2},
    {"type": "hyperband", "min_iter": 2, "eta": 1.5},
    {"type": "hyperband", "max_iter": 27, "s": 2},
    {"type": "hyperband", "max_iter": 30, "s": 4, "eta": 2},
]
NEW = not sweeps.__version__.startswith("0.2.")  # 0.3 asks for numpy < 2; 0.2 counts values from zero, and has no strict bands
if NEW:
    GIVEN = [{"strict": strict, **given} for given in GIVEN for strict in (False, True)]  # false if left out, as W&B documents it


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_trials_are_stopped_iff_wandb_stops_them(given, goal):
    rng = random.Random(str(given) + goal)
    config = {
        "method": "random",
        "metric": {"name": "m", "goal": goal},
        "early_terminate": given,
        "parameters": {"a": {"value": 1}},
    }
    stopped = 0
    for _ in range(40):
        histories, runs, running = {}, [], []
        for i in range(rng.randrange(1, 12)):
            start = rng.random()
            row = [start / (1 + 0.1 * step) + 0.1 * rng.random() for step in range(rng.randrange(0, 40))]
            if rng.random() < 0.2:
                row[: len(row) // 2] = [float("nan")] * (len(row) // 2)
            finite = [value for value in row if math.isfinite(value)]
            seen = row if NEW else [*finite[:1], *row]  # one value more, no better than the rest
            state = rng.choice(["running", "finished"])
            runs.append(sweeps.SweepRun(name=str(i), state=state, sampledHistory=[{"m": value} for value in seen]))
            histories[str(i)] = row
            running += [str(i)] if state == "running" else []
        expected = [run.name for run in sweeps.stop_runs(config, runs)]
        assert to_stop(histories, running, given, goal == "maximize") == expected
        stopped += len(expected)
    assert stopped > 5


@pytest.mark.parametrize("given", [{}, {"max_iter": 2, "s": 3}, {"min_iter": 0}], ids=str)
def test_no_bracket_at_all_is_refused(given):
    with pytest.raises(ValueError, match="early_terminate has no bracket"):
        brackets(given)
