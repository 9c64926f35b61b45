"""Linear probe and nearest neighbours of frozen features.

Both give what scikit-learn's `LogisticRegression` and `KNeighborsClassifier` give, on whatever device there is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from semconv.evaluation.features import Features

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
NEIGHBOURS, TEMPERATURE = 20, 0.07  # (Wu et al., 2018, with the smaller k of small data sets)
CHUNK = 2**26  # similarities held at a time


class LinearClassifier(NamedTuple):
    """A linear map on standardised features."""

    mean: Tensor  # d
    deviation: Tensor  # d
    weight: Tensor  # classes d
    bias: Tensor  # classes
    penalty: float

    def scores(self, vectors: Tensor) -> Tensor:
        """Logits, float64: `n classes` of `n d`."""
        return F.linear((vectors.to(self.mean) - self.mean) / self.deviation, self.weight, self.bias)


def require_labels(labels: Tensor, those: str = "images") -> None:
    """Refuse images of which some have no label.

    Args:
        labels: int64 `n`, -1 where unlabelled.
        those: how a message calls them.

    Raises:
        ValueError: an image has no label.
    """
    if bool((labels < 0).any()):
        raise ValueError(f"{int((labels < 0).sum())} of {len(labels)} {those} have no label: give data with one for each")


def check_labels(train: Features, test: Features, neighbours: int = 1) -> int:
    """The number of classes.

    Raises:
        ValueError: an image has no label, or there is one class, or fewer images than neighbours.
    """
    labels = torch.cat([train.labels, test.labels])
    require_labels(labels)
    if len(labels.unique()) < 2:
        raise ValueError(f"all {len(labels)} images are of one class: give data of two or more")
    if len(train.labels) < neighbours:
        raise ValueError(f"{len(train.labels)} images for {neighbours} neighbours: give at least as many")
    return int(labels.max()) + 1


def fit_linear(
    vectors: Tensor, labels: Tensor, num_classes: int, penalty: float, start: LinearClassifier | None = None, steps: int = 200
) -> LinearClassifier:
    """Multinomial logistic regression by L-BFGS: mean cross-entropy + penalty / 2 * |weight|^2, the bias free.

    scikit-learn's `LogisticRegression(C=1 / (penalty * n))` on standardised features.

    Args:
        vectors: `n d`.
        labels: int64 `n`.
        num_classes: classes there are.
        penalty: of the weights.
        start: a classifier to begin with, of another penalty.
        steps: at most.

    Raises:
        ValueError: the vectors are not finite.
    """
    if not vectors.isfinite().all():
        raise ValueError("features are not finite")
    vectors = vectors.double()
    mean, deviation = vectors.mean(0), vectors.std(0, correction=0)
    deviation = torch.where(deviation > 1e-12, deviation, 1)  # a feature that never changes
    standard, labels = (vectors - mean) / deviation, labels.to(vectors.device)
    # solved for features that are not correlated, in which far fewer steps lead to the same minimum
    spread, axes = torch.linalg.eigh(standard.T @ standard / len(standard))
    change = axes * (spread.clamp(min=0) + penalty).rsqrt()  # d d: uncorrelated = standard @ change, weight = solved @ change.T
    uncorrelated = standard @ change
    solved = torch.zeros(num_classes, vectors.shape[1] + 1, dtype=torch.float64, device=vectors.device)
    if start is not None:
        solved.copy_(torch.cat([torch.linalg.solve(change, start.weight.T).T, start.bias[:, None]], dim=1))
    solved.requires_grad_()
    solver = torch.optim.LBFGS(
        [solved], max_iter=steps, tolerance_grad=1e-6, tolerance_change=1e-10, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        with torch.enable_grad():
            error = F.cross_entropy(F.linear(uncorrelated, solved[:, :-1], solved[:, -1]), labels)
            total = error + penalty / 2 * (solved[:, :-1] @ change.T).square().sum()
            total.backward()
        return total

    solver.step(loss)
    weight, bias = solved.detach()[:, :-1] @ change.T, solved.detach()[:, -1]
    return LinearClassifier(mean, deviation, weight, bias, penalty)


def choose_linear(train: Features, num_classes: int, penalties: Sequence[float] = PENALTIES) -> LinearClassifier:
    """The linear classifier of the penalty that does best on every tenth image when fitted to the others, fitted to all.

    Of equals, the larger penalty.

    Args:
        train: features of the training images.
        num_classes: classes there are.
        penalties: falling.
    """
    held = torch.arange(len(train.labels)) % 10 == 9
    best, classifier, accuracies = 0, None, []
    if held.any() and len(penalties) > 1:
        for penalty in penalties:
            classifier = fit_linear(train.vectors[~held], train.labels[~held], num_classes, penalty, classifier)
            accuracies.append(top1(classifier.scores(train.vectors[held]), train.labels[held]))
        best = accuracies.index(max(accuracies))
    return fit_linear(train.vectors, train.labels, num_classes, penalties[best], classifier)


def knn_scores(train: Features, vectors: Tensor, num_classes: int, k: int = NEIGHBOURS, temperature: float = TEMPERATURE) -> Tensor:
    """Votes of the k nearest training images by cosine, each of weight exp(similarity / temperature): `n classes`.

    Raises:
        ValueError: there are fewer than k training images.
    """
    if len(train.vectors) < k:
        raise ValueError(f"{len(train.vectors)} images for {k} neighbours: give at least as many")
    known = F.normalize(train.vectors, dim=1)
    votes = []
    for chunk in F.normalize(vectors, dim=1).split(max(1, CHUNK // len(known))):
        similarity, nearest = (chunk @ known.T).topk(k, dim=1)
        # relative to the nearest, which changes no vote's share and cannot overflow
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes.append(weight.new_zeros(len(chunk), num_classes).scatter_add_(1, train.labels[nearest], weight))
    return torch.cat(votes)


def top1(scores: Tensor, labels: Tensor) -> float:
    """The share of images whose highest score is their class's."""
    return (scores.argmax(1).cpu() == labels.cpu()).double().mean().item()
