"""How a sweep names its trials on the terminal."""

from semconv.sweeping.display import LONGEST, described


def test_a_trial_is_named_by_what_differs_and_a_log_has_it_whole():
    files = "experiments/cnn_plain.yaml,runs/studies/a/points/only/cnn_plain@0.016.yaml"
    assert described({"config": files, "seed_everything": 3}) == "cnn_plain@0.016 seed=3"
    assert described({"config": "cnn_gated,indicators/mask", "model.base_lr": 1 / 3}) == "cnn_gated+mask base_lr=0.333"
    long = {"x": "y" * 2 * LONGEST}
    assert len(described(long)) == LONGEST
    assert described(long, None) == f"x={'y' * 2 * LONGEST}"
