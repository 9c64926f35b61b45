"""The quick linear probe beside MAE's, which trains for 90 epochs.

    python -m benchmarks.probe runs/cnn_plain/<run id>

Both get the same frozen features of a run, of all images of train and test, with nothing masked. MAE's protocol (He et al., 2022,
appendix A.1) is the head, optimizer and schedule of `LinearProbe`, without crops and flips. Its accuracy is given for several
learning rates, with the decrease of the loss in the last epochs: a probe that has not converged says little about the features.
"""

import argparse
import statistics
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from semconv import load_run
from semconv.evaluation.features import Evaluated, Features, extract, unmasked
from semconv.evaluation.probes import choose_linear, knn_scores, top1
from semconv.finetuning import LinearProbe
from semconv.optimisation import warmup_cosine

RATES = (0.1, 1.0, 10.0, 100.0)


def train_probe(run: Path, train: Features, rate: float, epochs: int, batch_size: int) -> tuple[torch.nn.Module, float]:
    """Train MAE's probe on features: its head, and the relative decrease of its loss over the last tenth of the epochs.

    Args:
        run: folder of the run with these features.
        train: the features.
        rate: learning rate per 256 images.
        epochs: passes over the features.
        batch_size: images per step.
    """
    probe = LinearProbe(str(run), base_lr=rate, batch_size=batch_size)
    optimizer = probe.make_optimizer(rate * batch_size / 256)
    steps = len(train.labels) // batch_size
    factor = partial(warmup_cosine, total=epochs * steps, warmup=probe.warmup, floor=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(epochs):
        order = torch.randperm(len(train.labels), generator=generator)
        total = 0.0
        for chosen in order[: steps * batch_size].split(batch_size):
            loss = F.cross_entropy(probe.head(train.vectors[chosen]), train.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        losses.append(total / steps)
    tenth = max(1, epochs // 10)
    return probe.head.eval(), 1 - statistics.mean(losses[-tenth:]) / statistics.mean(losses[-2 * tenth : -tenth])


def score(head: torch.nn.Module, vectors: Tensor) -> Tensor:
    with torch.no_grad():
        return head(vectors)


def main() -> None:
    parser = argparse.ArgumentParser(description="The quick linear probe beside MAE's, on the same features.")
    parser.add_argument("run", type=Path, help="Folder of a run on labelled data.")
    parser.add_argument("--epochs", type=int, default=90, help="Epochs of MAE's probe.")
    parser.add_argument("--batch_size", type=int, default=256, help="Images per step of MAE's probe.")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="Learning rates of MAE's probe per 256 images.")
    given = parser.parse_args()
    run = load_run(given.run)
    run.data.setup("fit")
    run.data.setup("test")
    evaluated = Evaluated(run.task, run.data, torch.no_grad)
    look = partial(unmasked, cell=run.task.geometry.cell)  # type: ignore[arg-type,union-attr]

    def features(part: str) -> Features:
        return extract(evaluated, run.task.encoder, part, None, look)  # type: ignore[arg-type]

    train, test = features("train"), features("test")
    classes = int(train.labels.max()) + 1
    begin = time.perf_counter()
    classifier = choose_linear(train, classes)
    quick = top1(classifier.scores(test.vectors), test.labels)
    middle = time.perf_counter()
    nearest = top1(knn_scores(train, test.vectors, classes), test.labels)
    end = time.perf_counter()
    print(
        f"{len(train.labels)} and {len(test.labels)} images, {train.vectors.shape[1]} features, {torch.get_num_threads()} threads"
    )
    print(f"quick linear probe: {quick:.4f} in {middle - begin:.1f} s (penalty {classifier.penalty:g})")
    print(f"20 nearest neighbours: {nearest:.4f} in {end - middle:.1f} s")
    for rate in given.rates:
        begin = time.perf_counter()
        head, falling = train_probe(given.run, train, rate, given.epochs, given.batch_size)
        found = top1(score(head, test.vectors), test.labels)
        print(
            f"MAE's, {given.epochs} epochs, base_lr {rate:g}: {found:.4f} in {time.perf_counter() - begin:.1f} s "
            f"(loss still falling by {falling:.2%} in its last tenth), {100 * (quick - found):+.2f} points for the quick one"
        )


if __name__ == "__main__":
    main()
