"""What features know of their own site: where it is, whether it is masked, what is seen there."""

from typing import Any

import torch
from einops import rearrange
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_jaccard_index

from semconv.encoders import Encoding
from semconv.evaluation.features import Evaluated, frozen, in_precision, unmasked
from semconv.evaluation.probes import fit_linear
from semconv.indicators import Coordinates, Grid, masked_fraction

RIDGE = 1e-6  # relative to the mean variance of a feature
IMAGES = 512
DENSE_PENALTY = 1e-4
UNKNOWN = {  # why nothing is known
    "position_r2": "features stand at visible sites alone, or all sites are alike",
    "mask_auc": "features stand at visible sites alone, or all sites are alike",
    "rgb_r2": "no site is wholly visible, or all are of one colour",
}


class LeastSquares:
    """Linear regression from what is added in parts: sums alone are kept, in float64."""

    def __init__(self) -> None:
        self.inner: Tensor | float = 0.0
        self.outer: Tensor | float = 0.0

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Add rows: `n d` and `n t`."""
        rows = _with_one(features)
        self.inner = self.inner + rows.T @ rows
        self.outer = self.outer + rows.T @ targets.double()

    def solve(self) -> Tensor:
        """Weights `d+1 t`, the last row the bias."""
        inner = torch.as_tensor(self.inner)
        ridge = RIDGE * inner.diagonal()[:-1].mean().clamp(min=1e-12)
        penalty = torch.full((len(inner),), ridge.item(), dtype=torch.float64, device=inner.device)
        penalty[-1] = 0
        return torch.linalg.lstsq(inner + penalty.diag(), torch.as_tensor(self.outer)).solution


def probe_sites(evaluated: Evaluated, count: int = IMAGES) -> dict[str, Any]:
    """What can be read off the features of a site linearly, after each stage, under masks of the training ratio.

    `probe/position_r2/stage_<n>`: share of the variance of x and y that a linear regression explains; `probe/mask_auc/stage_<n>`:
    area under the curve of the linear discriminant of masked sites; `probe/rgb_r2/stage_<n>`: share of the variance of the mean
    colour of sites that are wholly visible, so how much is kept of what was seen. Fitted on training images, measured on test
    images. The keys without a stage are the last stage's. A site that is masked in part counts as masked from a half on.

    Args:
        evaluated: the network and its images.
        count: images of each part.
    """
    fits: list[LeastSquares] = []  # of place and mask, and of colour, stage by stage
    with frozen(evaluated.task.encoder):
        for batch in evaluated.batches("train", count):
            for number, (features, targets) in enumerate(_sites(evaluated, batch)):
                if number == len(fits):
                    fits.append(LeastSquares())
                fits[number].add(features, targets)
        sums = evaluated.gathered([(fit.inner, fit.outer) for fit in fits])
        weights = []
        for number in range(max(len(parts) for parts in sums)):
            whole = LeastSquares()
            for parts in sums:
                whole.inner, whole.outer = whole.inner + parts[number][0], whole.outer + parts[number][1]
            weights.append(whole.solve())
        found: list[list[Tensor]] = [[] for _ in weights]
        for batch in evaluated.batches("test", count):
            for number, (features, targets) in enumerate(_sites(evaluated, batch)):
                answers = _with_one(features) @ weights[number].to(features.device)
                found[number].append(torch.cat([answers, targets.double()], dim=1).cpu())
    everyone = evaluated.gathered([torch.cat(parts) for parts in found])
    results: dict[str, Any] = {}
    for stage in range(len(weights) // 2):
        places, colours = (torch.cat([parts[2 * stage + n] for parts in everyone]).chunk(2, dim=1) for n in (0, 1))
        known = {
            "position_r2": r2(places[0][:, :2], places[1][:, :2]),
            "mask_auc": mask_auc(places[0][:, 2], places[1][:, 2]),
            "rgb_r2": r2(*colours),
        }
        for name, value in known.items():
            for key in (f"probe/{name}/stage_{stage}", *([f"probe/{name}"] if stage == len(weights) // 2 - 1 else [])):
                results[key] = value
                if value is None:
                    results[f"{key}/reason"] = UNKNOWN[name]
    return results


def r2(answers: Tensor, targets: Tensor) -> float | None:
    """Explained share of the variance, the mean over targets: at most 1; None where one of them never changes."""
    spread = (targets - targets.mean(0)).square().sum(0)
    if not bool((spread > 0).all()):
        return None
    return (1 - (answers - targets).square().sum(0) / spread).mean().item()


def mask_auc(scores: Tensor, masked: Tensor) -> float | None:
    """The chance that a masked site scores above a visible one, ties counting half; None where all are alike."""
    positive = masked >= 0.5
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if not ones or not zeros:
        return None
    ranks = torch.from_numpy(rankdata(scores.numpy()))
    return ((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros)).item()


def dense_miou(evaluated: Evaluated, count: int = IMAGES) -> float:
    """Mean intersection over union of a linear classifier of sites, with nothing masked, its logits enlarged to pixels.

    Fitted to the commonest class of each site's pixels.

    Args:
        evaluated: the network and its images.
        count: images of each part.

    Raises:
        ValueError: the source has no label maps.
    """
    (features, maps), (test_features, test_maps) = (_maps(evaluated, part, count) for part in ("train", "test"))
    classes = int(max(maps.max(), test_maps.max())) + 1
    rows, columns = features.shape[2:]
    shares = F.adaptive_avg_pool2d(F.one_hot(maps.long(), classes).movedim(3, 1).float(), (rows, columns))
    labels = rearrange(shares.argmax(1), "b h w -> (b h w)")
    classifier = fit_linear(rearrange(features, "b d h w -> (b h w) d"), labels, classes, DENSE_PENALTY, steps=50)
    scores = classifier.scores(rearrange(test_features, "b d h w -> (b h w) d"))
    scores = rearrange(scores.float(), "(b h w) k -> b k h w", h=test_features.shape[2], w=test_features.shape[3])
    predicted = F.interpolate(scores, size=test_maps.shape[1:], mode="bilinear").argmax(1)
    return multiclass_jaccard_index(predicted, test_maps.long(), classes, average="macro").item()


def _sites(evaluated: Evaluated, batch: Any) -> list[tuple[Tensor, Tensor]]:
    """Features and targets, twice for each stage: (x, y, masked) of all sites that have a feature; the mean colour of those of them
    that are wholly visible."""
    view, mask = evaluated.task.look(batch, "probe")
    with evaluated.precision():
        stages = evaluated.task.encoder.encode_stages(in_precision(view, evaluated.task.dtype))
    return [rows for encoding in stages for rows in _rows(encoding, view, mask)]


def _rows(encoding: Encoding, view: Any, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    features = encoding.features.float()
    height, width = features.shape[2:]
    place = Coordinates()(view, Grid(height, width)).expand(len(features), -1, -1, -1)
    masked = masked_fraction(mask, height, width)
    valid = torch.ones_like(features[:, 0], dtype=torch.bool) if encoding.valid is None else encoding.valid
    seen = valid & (masked[:, 0] == 0)
    colours = F.adaptive_avg_pool2d(view.pixels.float(), (height, width))
    chosen = ((valid, torch.cat([place, masked], dim=1)), (seen, colours))
    return [(features.movedim(1, 3)[where], targets.movedim(1, 3)[where]) for where, targets in chosen]


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features.double(), features.new_ones(len(features), 1, dtype=torch.float64)], dim=1)


def _maps(evaluated: Evaluated, part: str, count: int) -> tuple[Tensor, Tensor]:
    """Features `n d h w` of the last stage and label maps `n H W` of a part's images, on the CPU."""
    features, maps = [], []
    with frozen(evaluated.task.encoder):
        for batch in evaluated.batches(part, count):
            view = unmasked(batch, evaluated.task.geometry.cell)
            with evaluated.precision():
                encoding = evaluated.task.encoder(in_precision(view, evaluated.task.dtype))
            features.append(encoding.features.float().cpu())
            maps.append(evaluated.data.label_maps(part, batch.index.cpu()))
    everyone = evaluated.gathered((torch.cat(features), torch.cat(maps)))
    first, second = zip(*everyone, strict=True)
    return torch.cat(first), torch.cat(second)
