"""Each distribution against W&B's own definition, the `sweeps` package."""

import random
from typing import Any

import pytest

from semconv.sweeping.distributions import NEEDS, distribution, grid_values, problem, quantile
from tests.pairwise import together
from tests.sweeping.oracle import HyperParameter, sweeps

NUMBERS = {"min": 0.25, "max": 4.0, "mu": 0.7, "sigma": 0.4, "a": 2.0, "b": 5.0}
SPECS: list[dict[str, Any]] = [
    {"value": "alone"},
    {"values": ["a", "b", "c"]},
    {"values": [1, 2.5, True], "probabilities": [0.2, 0.5, 0.3]},
    {"values": ["a", "b"], "probabilities": [1.0, 0.0], "distribution": "categorical_w_probabilities"},
    {"min": -3, "max": 4},
    {"min": -3.0, "max": 4},
    {"min": 0.1, "max": 0.2},
    *(
        {"distribution": name, **{key: NUMBERS[key] for key in (*needed, *optional) if key in NUMBERS}}
        for name, (needed, optional) in NEEDS.items()
        if name not in ("constant", "categorical", "categorical_w_probabilities", "int_uniform")
    ),
    {"distribution": "q_uniform", "min": 3, "max": 40, "q": 5},
    {"distribution": "q_log_uniform", "min": 0, "max": 3, "q": 0.25},
    {"distribution": "q_log_uniform_values", "min": 16, "max": 1024, "q": 16},
    {"distribution": "q_normal", "mu": 4, "sigma": 3, "q": 2},
    {"distribution": "q_log_normal", "q": 0.1},
    {"distribution": "q_beta", "a": 2, "b": 2, "q": 0.05},
    {"distribution": "normal"},
    {"distribution": "beta"},
]
SHARES = [0.001, 0.5, 0.999, *(random.Random(0).random() for _ in range(200))]


def test_all_distributions_are_tried():
    assert {distribution(spec) for spec in SPECS} == set(NEEDS)


@together("spec", SPECS)
def test_a_distribution_is_the_one_that_wandb_infers_and_has_its_quantiles(spec):
    assert problem(spec) is None
    reference = HyperParameter("x", spec)
    ours = quantile(spec)
    for share in SHARES:
        value, expected = ours(share), reference.ppf(share)
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-12) if isinstance(expected, float) else value == expected
        assert isinstance(value, str | bool | int | float)  # and nothing of NumPy's, which JSON and YAML do not take
        assert isinstance(value, int) == isinstance(getattr(expected, "item", lambda expected=expected: expected)(), int)


def test_the_ends_of_a_distribution_are_values():
    for spec in SPECS:
        low, high = (quantile(spec)(share) for share in (1e-9, 1 - 1e-9))
        if "values" in spec:
            assert {low, high} <= set(spec["values"])
        elif "min" in spec and not str(spec.get("distribution")).startswith(("q_", "log_", "inv_")):
            assert spec["min"] <= low < high <= spec["max"], spec


@together("spec", [*SPECS[:2], SPECS[4], SPECS[5], {"distribution": "q_uniform", "min": 0, "max": 9, "q": 2}])
def test_a_grid_has_the_values_that_wandb_gives_it(spec):
    config = {"method": "grid", "parameters": {"x": spec}}
    ours = grid_values(spec)
    if ours is None:
        with pytest.raises(ValueError, match="disallowed type"):
            sweeps.next_runs(config, [], n=20)
    else:
        found = [run.config["x"]["value"] for run in sweeps.next_runs(config, [], n=20) if run is not None]
        assert ours == found


@together(
    "spec, said",
    [
        ({"distribution": "gaussian"}, "there is no distribution gaussian"),
        ({"min": 1}, "uniform needs max"),
        ({"min": 2, "max": 1}, "min 2 is not below max 1"),
        ({"min": "1e-3", "max": 1}, "min is '1e-3': give a number"),
        ({"values": []}, "values is not a list"),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "not shares that add up to 1"),
        ({"values": [1, 2], "probabilities": [1.0]}, "as many probabilities"),
        ({"values": [1], "min": 2}, "categorical has no min"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "which has no logarithm"),
        ({"distribution": "int_uniform", "min": 0.5, "max": 1}, "give a whole number"),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0}, "q above 0"),
    ],
)
def test_a_distribution_that_wandb_does_not_know_is_refused(spec, said):
    assert said in (problem(spec) or "")
    try:
        reference = HyperParameter("x", spec)
        reference.ppf(0.7)
    except Exception:
        return
    assert "probabilities" in spec or "q" in spec  # of these, W&B would say so when it reads the file, or draw infinities
