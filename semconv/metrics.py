"""Every metric that runs record: key, label, unit, direction, margin of equivalence, section of the report. Imports no torch."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Literal, NamedTuple

Direction = Literal["higher", "lower"]
MASKED_MSE, MEAN_FILL = "test/masked_mse", "test/mean_fill_mse"
LINEAR_TOP1, KNN_TOP1, NUM_TEST_IMAGES = "probe/linear_top1", "probe/knn_top1", "probe/num_test_images"
ENDPOINTS = "endpoints"  # key of the table, of one row, that each run logs to W&B
SHARE_OF_IMAGES = "share of images"
SPEED = "images/s"
UNTRAINED, SCRATCH, THUMBNAIL = "untrained", "scratch", "8 x 8 thumbnail"
CLASSICAL = {  # baselines without a network, and their keys by those that they are compared with
    "mean fill": {MASKED_MSE: MEAN_FILL},
    THUMBNAIL: {LINEAR_TOP1: "pixels/linear_top1", KNN_TOP1: "pixels/knn_top1"},
}


class Metric(NamedTuple):
    """A metric, or all metrics whose keys follow one pattern."""

    key: str  # `*` stands for any text
    label: str
    direction: Direction | None  # which values are better; None: neither
    unit: str = ""
    margin: float = 0.01  # half the width of the range in which two networks are equivalent
    relative: bool = True  # the margin is a share of plain's mean
    section: str = ""  # of the report and of the dashboard
    split: str = "test"  # whose images it is measured on; empty: on none
    needs: str = ""  # of a run, to have it
    quality: str = ""  # that a verdict names: beneficial for reconstruction
    resolution: float = 1e-4  # smallest difference that counts as known, in the unit of the margin: a figure in the fourth place
    baseline: str = ""  # key of what the same network gives without training, or without pretraining

    @property
    def name(self) -> str:
        return self.quality or self.key

    @property
    def sign(self) -> int:
        """1 if higher is better, -1 if lower is."""
        assert self.direction is not None, self.key
        return 1 if self.direction == "higher" else -1

    @property
    def baseline_name(self) -> str:
        """The baseline in a word or two; empty where there is none."""
        return {UNTRAINED: "untrained", SCRATCH: "from scratch"}.get(self.baseline.partition("/")[0], "")

    @property
    def axis(self) -> str:
        """Label, unit and direction, for an axis."""
        return _joined(self.label, self.unit) + (f" ({self.direction} is better)" if self.direction else "")

    @property
    def head(self) -> str:
        """Label and unit of what `show` gives, for a column."""
        return _joined(self.label, self.unit.replace("FLOPs", "GFLOPs"))

    def part(self, key: str) -> str | None:
        """The text in a key that `*` stands for, empty in a pattern without `*`; None where the key does not fit."""
        before, star, after = self.key.partition("*")
        if not star:
            return "" if key == self.key else None
        fits = key.startswith(before) and key.endswith(after) and len(key) > len(before) + len(after)
        return key[len(before) : len(key) - len(after)] if fits else None

    def show(self, value: float) -> str:
        """A value as text: FLOPs in units of 10^9, other costs as whole numbers."""
        if self.unit == "FLOPs":
            return f"{value / 1e9:.4f}"
        return f"{value:,.0f}" if self.section == "costs" else f"{value:.4f}"


def _joined(label: str, unit: str) -> str:
    return f"{label}, {unit}" if unit else label


FULL, QUICK = "--evaluation full", "--evaluation quick"
LABELS, RAW = f"{QUICK} and labels of two or more classes", "targets that are not normalised per patch"
PROBED = "--evaluation_every and labels of two or more classes"
CONDITIONED = f"{QUICK} and a conditioned network"


def _mse(key: str, label: str, section: str = "", split: str = "test", needs: str = "", quality: str = "") -> Metric:
    return Metric(key, label, "lower", section=section, split=split, needs=needs, quality=quality)


def _score(key: str, label: str, section: str = "", needs: str = QUICK, unit: str = "") -> Metric:
    return Metric(key, label, "higher", unit, section=section, needs=needs)


def _accuracy(key: str, label: str, section: str = "", split: str = "test", needs: str = LABELS, quality: str = "") -> Metric:
    return Metric(key, label, "higher", SHARE_OF_IMAGES, 0.005, False, section, split, needs, quality)


def _cost(key: str, label: str, unit: str = "", direction: Direction | None = "lower", section: str = "") -> Metric:
    return Metric(f"cost/{key}", label, direction, unit, section=section, split="")


def _count(key: str, label: str, needs: str = "") -> Metric:
    return Metric(key, label, None, split="", needs=needs)


def _classified(name: str, label: str, baseline: str = "") -> Metric:
    """The accuracies of a run of `experiments/evaluation/`."""
    needs = f"a run of experiments/evaluation/{name}.yaml"
    return _accuracy(f"{name}/top*", label, "classification", needs=needs)._replace(baseline=baseline)


def _each_untrained(*metrics: Metric) -> Iterator[Metric]:
    """Metrics, each with that of the untrained network behind it."""
    for metric in metrics:
        key = f"{UNTRAINED}/{metric.key}"
        yield metric._replace(baseline=key)
        yield metric._replace(key=key, label=f"{metric.label}, untrained", section="", quality="")


# the first that fits counts
METRICS = (
    _mse("val/masked_mse", "masked MSE of validation images", "curves", "validation"),
    _mse("train/loss", "training loss", "curves", "train"),
    _accuracy("val/linear_top1", "linear top-1 during training", "progress", "validation", PROBED),
    _accuracy("val/knn_top1", "k-NN top-1 (k = 20) during training", "progress", "validation", PROBED),
    Metric("train/gradient_norm", "gradient norm before clipping", None, section="curves", split="train"),
    Metric("train/learning_rate", "learning rate", None, section="curves", split="train"),
    Metric("train/images_per_second", "training", "higher", SPEED, split="train"),
    Metric("val/loss", "cross-entropy of validation images", "lower", split="validation"),
    _accuracy("val/top1", "top-1 of validation images", split="validation", needs="a run of experiments/evaluation"),
    _mse(MASKED_MSE, "masked MSE", "results", quality="reconstruction"),
    *_each_untrained(_accuracy(LINEAR_TOP1, "linear top-1", "results", quality="representation")),
    _score("test/ssim", "SSIM of pasted images over hidden pixels", "results", ""),
    *_each_untrained(_accuracy(KNN_TOP1, "k-NN top-1 (k = 20)", "results")),
    *_each_untrained(
        _score("probe/position_r2", "R² of position at the last stage", "results"),
        _score("probe/mask_auc", "AUC of the mask at the last stage", "results"),
        _score("probe/rgb_r2", "R² of colour at the last stage"),
        _score("probe/position_r2/stage_*", "position of a site: R²", "probes"),
        _score("probe/mask_auc/stage_*", "masked or visible: AUC", "probes"),
        _score("probe/rgb_r2/stage_*", "mean colour of a visible site: R²", "probes"),
    ),
    _accuracy("pixels/linear_top1", f"linear top-1 of {THUMBNAIL}s"),
    _accuracy("pixels/knn_top1", f"k-NN top-1 (k = 20) of {THUMBNAIL}s"),
    _accuracy("probe/linear_top1_masked", "linear top-1 on masked input, pooled over all sites"),
    _accuracy("probe/knn_top1_masked", "k-NN top-1 (k = 20) on masked input, pooled over all sites"),
    _accuracy("probe/linear_top1_masked_visible", "linear top-1 on masked input, pooled over visible sites"),
    _accuracy("probe/knn_top1_masked_visible", "k-NN top-1 (k = 20) on masked input, pooled over visible sites"),
    # a small gap is no merit where both accuracies are low
    _accuracy("probe/linear_top1_gap", "linear top-1, whole minus masked input")._replace(direction=None),
    _accuracy("probe/knn_top1_gap", "k-NN top-1 (k = 20), whole minus masked input")._replace(direction=None),
    _score("probe/dense_miou", "mIoU of a linear probe of sites", needs=f"{QUICK} and label maps"),
    _count("probe/num_features", "features of the last stage", LABELS),
    _count("probe/num_*_images", "images of the linear probe", LABELS),
    _count("probe/penalty", "penalty of the linear probe", LABELS),
    _mse("test/masked_mse_under_hide", "masked MSE with the chosen cells hidden"),
    # of the images and their masks, whatever the network
    Metric(MEAN_FILL, "masked MSE of mean fill", None),
    _mse("test/masked_mse/*", "masked MSE of a region"),
    _score("test/psnr_given_moments", "PSNR with the true patch mean and deviation", needs="", unit="dB"),
    _score("test/psnr", "PSNR", needs=RAW, unit="dB"),
    _mse("test/pixel_mse", "MSE of pixels in [0, 1]", needs=RAW),
    # how much a network uses an indicator, which is not how well
    Metric("importance/*/zeroed", "rise of masked MSE with one indicator zeroed", None, section="importance", needs=CONDITIONED),
    Metric(
        "importance/*/shuffled", "rise of masked MSE with one indicator shuffled", None, section="importance", needs=CONDITIONED
    ),
    Metric("importance/*/another_mask", "rise of masked MSE with another mask", None, section="importance", needs=CONDITIONED),
    Metric("mechanism/*", "a mechanism's own measure", None, split="", needs="a mechanism that logs it"),
    _mse("full/masked_mse/ratio_*", "masked MSE", "ratios", needs=FULL),
    _mse("full/masked_mse/*", "masked MSE under other conditions", needs=FULL),
    _accuracy("full/linear_top1/*", "linear top-1 under other conditions", needs=FULL),
    Metric("full/equivariance_error/*", "error of equivariance", "lower", "share of the features' norm", needs=FULL),
    _score("full/rankme", "effective rank of features (RankMe)", needs=FULL),
    _classified("linear_probe", "top-k of MAE's linear probe", f"{SCRATCH}/top*"),
    _classified("finetune", "top-k after fine-tuning", f"{SCRATCH}/top*"),
    _classified(SCRATCH, "top-k of supervised training from scratch"),
    _cost("encoder_parameters", "encoder parameters", section="costs"),
    _cost("flops", "forward pass", "FLOPs", section="costs"),
    _cost("train_images_per_second", "training", SPEED, "higher", section="costs"),
    _cost("peak_memory_bytes", "peak memory", "bytes", section="costs"),
    _cost("parameters", "parameters"),
    _cost("decoder_parameters", "decoder parameters"),
    _cost("indicator_parameters", "parameters of mechanisms and indicators"),
    _cost("train_flops", "forward and backward pass", "FLOPs"),
    _cost("inference_images_per_second", "inference", SPEED, "higher"),
    Metric("evaluation/seconds", "time of the evaluation", "lower", "s", split="", needs=QUICK),
    _count("data/num_skipped_images", "images that could not be read"),
    _count("trainer/*", "clock of training"),
    _count("samples_seen", "images seen in training"),
)
PRIMARY = tuple(metric for metric in METRICS if metric.quality)
RECONSTRUCTION, REPRESENTATION = PRIMARY


@cache
def find(key: str) -> Metric | None:
    """The metric of a key; None where the table has none."""
    for metric in METRICS:
        if (part := metric.part(key)) is not None:
            return metric._replace(key=key, baseline=metric.baseline.replace("*", part))
    return None


def of_section(section: str) -> list[Metric]:
    """The metrics of a section of the report, in their order."""
    return [metric for metric in METRICS if metric.section == section]


def parts(metric: Metric, keys: Iterable[str]) -> dict[str, str]:
    """The keys among some that fit a pattern, by the text that `*` stands for."""
    return {part: key for key in keys if (part := metric.part(key)) is not None}
