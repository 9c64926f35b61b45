"""Gates of masked and visible sites against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from torch.nn import functional as F

from semconv.evaluation.gates import gates
from semconv.mechanisms import FiLM, Gated
from tests.evaluation.test_probes import evaluated, state
from tests.experiments import stir


@pytest.mark.parametrize(("name", "neutral"), [("cnn_gated", 0.0), ("cnn_film", 1.0)])
def test_means_and_the_share_of_the_mask_are_those_of_scikit_learn(name, neutral):
    those = evaluated(name)
    stir(those.task.encoder)
    before = state(those.task)
    found = gates(those, 40)
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(before, state(those.task), strict=True))
    mechanisms = {path: part for path, part in those.task.encoder.named_modules() if isinstance(part, FiLM | Gated)}
    path, mechanism = next((path, part) for path, part in mechanisms.items() if "stages.1" in path)
    layer = path.partition(".convolution")[0].partition(".mechanism")[0]
    passed: list[np.ndarray] = []
    masked: list[np.ndarray] = []
    mechanism.amplitude.register_forward_hook(lambda part, given, out: passed.append(out.movedim(1, 3).flatten(0, 2).numpy()))
    for batch in those.batches("test", 40):
        view, mask = those.task.look(batch, "probe")
        with torch.no_grad():
            those.task.encoder(view)
        rows = len(passed[-1]) // len(mask)
        side = int(rows**0.5)
        masked.append((F.interpolate(mask[:, None].float(), (side, side), mode="area") >= 0.5).flatten().numpy())
    values, kinds = neutral + np.concatenate(passed).astype(float), np.concatenate(masked)
    assert found[f"mechanism/gate_masked/{layer}"] == pytest.approx(values[kinds].mean(), rel=1e-5)
    assert found[f"mechanism/gate_visible/{layer}"] == pytest.approx(values[~kinds].mean(), rel=1e-5)
    fitted = LinearRegression().fit(kinds[:, None], values).predict(kinds[:, None])
    expected = r2_score(values, fitted, multioutput="variance_weighted")
    assert 0.001 < expected < 0.999
    assert found[f"mechanism/gate_mask_r2/{layer}"] == pytest.approx(expected, rel=1e-4)
    assert len(found) == 3 * len(mechanisms)


@pytest.mark.parametrize("name", ["cnn_gated", "cnn_film"])
def test_gates_that_have_learned_nothing_are_open_everywhere(name):
    found = gates(evaluated(name), 32)
    assert set(found.values()) == {1.0}
    assert {key.split("/")[1] for key in found} == {"gate_masked", "gate_visible"}


def test_a_gate_that_hears_of_places_alone_is_the_same_for_all_images():
    coordinates = '--model.encoder.indicators=[{"class_path": "semconv.indicators.Coordinates"}]'
    those = evaluated("cnn_film", coordinates)
    stir(those.task.encoder)
    found = gates(those, 40)  # two batches
    assert {key.split("/")[1] for key in found} == {"gate_masked", "gate_visible", "gate_mask_r2"}
    # masks are drawn without regard to the place
    assert all(value < 0.1 for key, value in found.items() if "mask_r2" in key)


def test_a_network_without_gates_has_none():
    assert gates(evaluated("cnn_channels"), 32) == {}
