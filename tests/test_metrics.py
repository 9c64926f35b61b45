"""The table of metrics."""

from semconv.metrics import METRICS, PRIMARY, find
from tests.pairwise import together


@together(
    "key, direction",
    {
        "full/rankme": "higher",
        "full/linear_top1/labels_10": "higher",
        "full/linear_top1/flip": "higher",
        "full/masked_mse/ratio_0.50": "lower",
        "full/masked_mse/HalfMasker": "lower",
        "full/equivariance_error/shift_2": "lower",
        "importance/Mask/zeroed": None,
        "importance/Coordinates_1/another_mask": None,
        "mechanism/share/stages.0.blocks.1": None,
        "linear_probe/top1": "higher",
        "linear_probe/top5": "higher",
        "finetune/top1": "higher",
        "scratch/top1": "higher",
        "untrained/probe/linear_top1": "higher",
        "untrained/probe/mask_auc/stage_2": "higher",
        "pixels/knn_top1": "higher",
        "probe/linear_top1_masked_visible": "higher",
        "cost/encoder_parameters": "lower",
        "cost/flops": "lower",
        "cost/train_flops": "lower",
        "cost/train_images_per_second": "higher",
        "cost/inference_images_per_second": "higher",
        "cost/peak_memory_bytes": "lower",
        "probe/position_r2/stage_3": "higher",
        "probe/knn_top1_masked": "higher",
        "probe/linear_top1_gap": None,
        "test/mean_fill_mse": None,
        "test/masked_mse/seam": "lower",
        "test/psnr_given_moments": "higher",
        "val/masked_mse": "lower",
    }.items(),
)
def test_a_metric_has_its_direction(key, direction):
    found = find(key)
    assert found is not None
    assert (found.key, found.direction) == (key, direction)


@together("metric", METRICS)
def test_no_row_hides_another(metric):
    key, baseline = (text.replace("*", "1") for text in (metric.key, metric.baseline))
    assert find(key) == metric._replace(key=key, baseline=baseline)
    assert not baseline or find(baseline) is not None


@together("key", ["test/masked", "probe/position_r2/stage_", "importance/Mask", "importance//zeroed", "mine", ""])
def test_a_key_that_fits_no_row_is_unknown(key):
    assert find(key) is None


def test_the_primary_endpoints_are_those_of_the_protocol():
    assert [(each.key, each.name, each.sign, each.margin, each.relative) for each in PRIMARY] == [
        ("test/masked_mse", "reconstruction", -1, 0.01, True),
        ("probe/linear_top1", "representation", 1, 0.005, False),
    ]
