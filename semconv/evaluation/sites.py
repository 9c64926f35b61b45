"""Linear probes of the features of single sites: of their place, of the mask, of the colour seen there; and dense labels."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional import r2_score
from torchmetrics.functional.classification import binary_auroc, multiclass_jaccard_index

from semconv.evaluation.features import Evaluated, absent, frozen, in_precision, unmasked
from semconv.evaluation.probes import fit_linear
from semconv.indicators import Coordinates, Grid, masked_fraction

RIDGE = 1e-6  # relative to the mean square of a feature
IMAGES = 512
MAPS = 32  # label maps that are counted at once
DENSE_PENALTY = 1e-4
Probe = tuple[int, Literal["place", "colour"]]  # of the features after a stage: of x, y and the mask, or of the mean colour
UNKNOWN = {  # why nothing is known
    "position_r2": "features stand at visible sites alone, or all sites are alike",
    "mask_auc": "features stand at visible sites alone, or all sites are alike",
    "rgb_r2": "no site is wholly visible, or all are of one colour",
}


class LeastSquares:
    """Linear regression from what is added in parts: sums alone are kept, in float64; on the CPU, as processes exchange them."""

    def __init__(self) -> None:
        self.inner: Tensor | float = 0.0
        self.outer: Tensor | float = 0.0

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Add rows: `n d` and `n t`."""
        rows = _with_one(features)
        self.inner = self.inner + (rows.T @ rows).cpu()
        self.outer = self.outer + (rows.T @ targets.double()).cpu()

    def join(self, other: "LeastSquares") -> None:
        """Add the rows of another."""
        self.inner, self.outer = self.inner + other.inner, self.outer + other.outer

    def solve(self) -> Tensor:
        """Weights `d+1 t`, the last row the bias."""
        inner = torch.as_tensor(self.inner)
        ridge = RIDGE * inner.diagonal()[:-1].mean().clamp(min=1e-12)
        penalty = torch.full((len(inner),), ridge.item(), dtype=torch.float64)
        penalty[-1] = 0
        return torch.linalg.lstsq(inner + penalty.diag(), torch.as_tensor(self.outer)).solution


def probe_sites(evaluated: Evaluated, count: int = IMAGES) -> dict[str, Any]:
    """Linear probes of the features of a site, after each stage, under masks of the training ratio.

    `probe/position_r2/stage_<n>`: share of the variance of x and y that a linear regression explains; `probe/mask_auc/stage_<n>`:
    area under the ROC curve of the linear discriminant of masked sites; `probe/rgb_r2/stage_<n>`: share of the variance of the mean
    colour of sites that are wholly visible, so how much is kept of what was seen. Fitted on training images, measured on test
    images. The keys without a stage are the last stage's. A site that is masked in part counts as masked from a half on.

    Args:
        evaluated: the network and its images.
        count: images of each part.
    """
    fits: defaultdict[Probe, LeastSquares] = defaultdict(LeastSquares)
    with frozen(evaluated.encoder):
        for batch in evaluated.batches("train", count):
            for probe, features, targets in _sites(evaluated, batch):
                fits[probe].add(features, targets)
        joined: defaultdict[Probe, LeastSquares] = defaultdict(LeastSquares)
        for process in evaluated.gathered(fits):
            for probe, fit in process.items():
                joined[probe].join(fit)
        weights = {probe: fit.solve() for probe, fit in joined.items()}
        found: dict[Probe, list[Tensor]] = {probe: [] for probe in weights}
        for batch in evaluated.batches("test", count):
            for probe, features, targets in _sites(evaluated, batch):
                answers = _with_one(features) @ weights[probe].to(features.device)
                found[probe].append(torch.cat([answers, targets.double()], dim=1).cpu())
    everyone = evaluated.gathered({probe: torch.cat(parts) for probe, parts in found.items()})
    results: dict[str, Any] = {}
    last = max(stage for stage, _ in weights)
    for stage in range(last + 1):
        places = torch.cat([process[stage, "place"] for process in everyone]).chunk(2, dim=1)
        colours = torch.cat([process[stage, "colour"] for process in everyone]).chunk(2, dim=1)
        known = {
            "position_r2": r2(places[0][:, :2], places[1][:, :2]),
            "mask_auc": mask_auc(places[0][:, 2], places[1][:, 2]),
            "rgb_r2": r2(*colours),
        }
        for name, value in known.items():
            keys = [f"probe/{name}/stage_{stage}", *([f"probe/{name}"] if stage == last else [])]
            results |= absent(UNKNOWN[name], *keys) if value is None else dict.fromkeys(keys, value)
    return results


def r2(answers: Tensor, targets: Tensor) -> float | None:
    """Explained share of the variance, the mean over targets: at most 1; None where one of them never changes."""
    changes = (targets != targets[:1]).any(0)
    return r2_score(answers, targets).item() if bool(changes.all()) else None


def mask_auc(scores: Tensor, masked: Tensor) -> float | None:
    """The chance that a masked site scores above a visible one, ties counting half; None where all are alike."""
    positive = masked >= 0.5
    if bool(positive.all()) or not bool(positive.any()):
        return None
    return binary_auroc(scores, positive.long()).item()


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
    # in parts, as there is a number for each pixel and class
    commonest = [
        F.adaptive_avg_pool2d(F.one_hot(some.long(), classes).movedim(3, 1).float(), (rows, columns)).argmax(1)
        for some in maps.split(MAPS)
    ]
    labels = torch.cat(commonest).flatten()
    classifier = fit_linear(rearrange(features, "b d h w -> (b h w) d"), labels, classes, DENSE_PENALTY, steps=50)
    scores = classifier.scores(rearrange(test_features, "b d h w -> (b h w) d"))
    scores = rearrange(scores.float(), "(b h w) k -> b k h w", h=test_features.shape[2], w=test_features.shape[3])
    predicted = F.interpolate(scores, size=test_maps.shape[1:], mode="bilinear").argmax(1)
    return multiclass_jaccard_index(predicted, test_maps.long(), classes, average="macro").item()


def _sites(evaluated: Evaluated, batch: Any) -> Iterator[tuple[Probe, Tensor, Tensor]]:
    """Each probe's features and targets, `n d` and `n 3`: (x, y, masked) of all sites that have a feature; the mean colour of those
    of them that are wholly visible."""
    view, mask = evaluated.task.look(batch, "probe")
    with evaluated.precision():
        stages = evaluated.encoder.encode_stages(in_precision(view, evaluated.task.dtype))
    for stage, encoding in enumerate(stages):
        features = encoding.features.float()
        height, width = features.shape[2:]
        place = Coordinates()(view, Grid(height, width)).expand(len(features), -1, -1, -1)
        masked = masked_fraction(mask, height, width)
        valid = torch.ones_like(features[:, 0], dtype=torch.bool) if encoding.valid is None else encoding.valid
        seen = valid & (masked[:, 0] == 0)
        colours = F.adaptive_avg_pool2d(view.pixels.float(), (height, width))
        rows = features.movedim(1, 3)
        yield (stage, "place"), rows[valid], torch.cat([place, masked], dim=1).movedim(1, 3)[valid]
        yield (stage, "colour"), rows[seen], colours.movedim(1, 3)[seen]


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features.double(), features.new_ones(len(features), 1, dtype=torch.float64)], dim=1)


def _maps(evaluated: Evaluated, part: str, count: int) -> tuple[Tensor, Tensor]:
    """Features `n d h w` of the last stage and label maps `n H W` of a part's images, on the CPU."""
    features, maps = [], []
    with frozen(evaluated.encoder):
        for batch in evaluated.batches(part, count):
            view = unmasked(batch, evaluated.task.geometry.cell)
            with evaluated.precision():
                encoding = evaluated.encoder(in_precision(view, evaluated.task.dtype))
            features.append(encoding.features.float().cpu())
            maps.append(evaluated.data.label_maps(part, batch.index.cpu()))
    everyone = evaluated.gathered((torch.cat(features), torch.cat(maps)))
    first, second = zip(*everyone, strict=True)
    return torch.cat(first), torch.cat(second)
