"""Evaluation of a pre-trained encoder by classification: a linear probe by MAE's protocol, and fine-tuning."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from timm.data import Mixup
from timm.data.mixup import mixup_target
from timm.layers import DropPath
from timm.loss import SoftTargetCrossEntropy
from timm.optim import Lars, param_groups_layer_decay
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from semconv.configuration import require
from semconv.data import Batch, ImageData
from semconv.encoders import Encoder
from semconv.evaluation.features import frozen, in_precision, pool, unmasked
from semconv.evaluation.probes import require_labels
from semconv.hashing import make_seed
from semconv.optimisation import check_schedule, parameter_groups
from semconv.processes import all_gather
from semconv.tasks import MaskedReconstruction, Task
from semconv.trained.run import load_run


class Classification(Task, ABC):
    """A head on the mean over all sites of a pre-trained encoder's last stage, nothing being masked.

    Images without a label, or with one beyond `num_classes`, are refused: of the test before training, if a test follows; others
    with their batch. Data that are known to have more classes are refused before training.

    Args:
        pretrained_run: folder of the run whose encoder it starts from.
        name: of the metrics.
        num_classes: None: as many as the run's data have.
        base_lr: learning rate per 256 images of a step.
        warmup: share of the steps in which the rate rises from 0.
        batch_size: images per step over all devices; the data's.
        seed: of the head, and of all that is drawn.
        scratch: start from the weights with which the run itself started.

    Raises:
        ValueError: there is no such run, or its data have no labels, or one class.
    """

    val_metrics: MetricCollection
    test_metrics: MetricCollection

    def __init__(
        self,
        pretrained_run: str,
        name: str,
        num_classes: int | None,
        base_lr: float,
        warmup: float,
        batch_size: int,
        seed: int,
        scratch: bool = False,
    ) -> None:
        super().__init__()
        require("base_lr", base_lr, 0, exclude="low")
        require("warmup", warmup, 0, 1)
        run = load_run(pretrained_run, initial=scratch)
        if not isinstance(run.task, MaskedReconstruction):
            raise ValueError(f"{pretrained_run} is a run of {type(run.task).__name__}: give one of MaskedReconstruction")
        data: Any = run.data
        self.num_classes = num_classes or data.num_classes
        if self.num_classes is None:
            raise ValueError(f"the data of {pretrained_run} have no labels: give data that have, and model.num_classes of them")
        if self.num_classes < 2:
            raise ValueError(f"the data of {pretrained_run} have one class: give data of two or more classes")
        self.pretrained_run, self.name = Path(pretrained_run).name, name
        self.encoder: Encoder = run.task.untrained_encoder() if scratch else run.task.encoder
        self.encoder.train()  # a run is opened in evaluation mode, and Lightning trains in the mode that it finds
        self.cell, self.base_lr, self.warmup, self.batch_size, self.seed = run.task.geometry.cell, base_lr, warmup, batch_size, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(make_seed(seed, "weights", "head"))
            self.head = self.make_head(self.encoder.num_features, self.num_classes)
        self.val_metrics = MetricCollection(
            {"val/loss": MeanMetric(nan_strategy="disable"), "val/top1": self._accuracy(1)}, compute_groups=False
        )
        self.test_metrics = MetricCollection(
            {f"{name}/top{k}": self._accuracy(k) for k in (1, 5) if k < self.num_classes}, compute_groups=False
        )
        blank = run.task.geometry.blank()
        number = torch.zeros(1, dtype=torch.int64)
        self.example_input_array = (Batch(blank.pixels, number, number, external=blank.external),)

    @abstractmethod
    def make_head(self, num_features: int, num_classes: int) -> nn.Module:
        """From pooled features `b d` to logits `b classes`."""

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a batch's images, `b classes`."""
        return self.head(self.extract(batch))

    def extract(self, batch: Batch) -> Tensor:
        """Pooled features of a batch's images, `b d`."""
        return pool(self.encoder(in_precision(unmasked(batch, self.cell), self.dtype))).to(self.dtype)

    def on_fit_start(self) -> None:
        trainer: Any = self.trainer
        data = trainer.datamodule
        if not isinstance(data, ImageData):
            return
        if (known := data.num_classes or 0) > self.num_classes:
            raise ValueError(f"the data have {known} classes, and the head {self.num_classes}: give --model.num_classes {known}")
        if data.test_split in data.opened:  # by `run`, which tests afterwards
            loader, limit = data.test_dataloader(), trainer.limit_test_batches
            tested = islice(loader, limit if isinstance(limit, int) else int(limit * len(loader)))
            labels = all_gather([label for batch in tested for label in batch.labels.tolist()], trainer.world_size)
            self._require_labels(torch.tensor([*chain.from_iterable(labels)]), "test images")

    def setup(self, stage: str) -> None:
        # the data have other hooks, but not this one
        warnings.filterwarnings("ignore", "You have overridden `on_before_batch_transfer` in `LightningModule`")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, Batch):  # and not the example of Lightning's summary
            self._require_labels(batch.labels, "images of a batch")  # here, where nobody waits for the device
        return batch

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self(batch)
        self.val_metrics["val/loss"].update(F.cross_entropy(logits.float(), batch.labels, reduction="none"))
        self.val_metrics["val/top1"].update(logits, batch.labels)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.test_metrics.update(self(batch), batch.labels)

    @property
    def absent_metrics(self) -> dict[str, str]:
        """Metrics that do not apply, with the reason."""
        return {} if self.num_classes > 5 else {f"{self.name}/top5": f"there are {self.num_classes} classes"}

    def _require_labels(self, labels: Tensor, those: str) -> None:
        require_labels(labels, those)
        if beyond := labels[labels >= self.num_classes].tolist():
            raise ValueError(
                f"a label of {those} is {max(beyond)}, and the classes are {self.num_classes}: give a larger --model.num_classes"
            )

    def _accuracy(self, k: int) -> MulticlassAccuracy:
        return MulticlassAccuracy(self.num_classes, top_k=k, average="micro")


class LinearProbe(Classification):
    """A linear classifier on frozen features: MAE's protocol (He et al., 2022, appendix A.1), on pooled features for all encoders.

    Batch norm without affine, then a linear layer; LARS without weight decay. The encoder stays as it is, to the bit.

    Args:
        pretrained_run: folder of the run whose encoder is probed.
        num_classes: None: as many as the run's data have.
        base_lr: learning rate per 256 images of a step.
        warmup: share of the steps in which the rate rises from 0: 10 of 90 epochs.
        momentum: of LARS.
        batch_size: images per step over all devices; the data's.
        seed: of the head.

    Raises:
        ValueError: there is no such run, or its data have no labels, or one class.
    """

    def __init__(
        self,
        pretrained_run: str,
        num_classes: int | None = None,
        base_lr: float = 0.1,
        warmup: float = 10 / 90,
        momentum: float = 0.9,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(pretrained_run, "linear_probe", num_classes, base_lr, warmup, batch_size, seed)
        self.momentum = momentum
        self.encoder.requires_grad_(False)

    def make_head(self, num_features: int, num_classes: int) -> nn.Module:
        linear = nn.Linear(num_features, num_classes)
        nn.init.trunc_normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        return nn.Sequential(nn.BatchNorm1d(num_features, affine=False, eps=1e-6), linear)

    def make_optimizer(self, rate: float) -> torch.optim.Optimizer:
        linear = cast(nn.Linear, self.head[1])  # type: ignore[index]
        # the rate adapts to the weight's norm, not to the bias's; without weight decay timm's adapts only if asked to
        groups = [{"params": [linear.weight], "always_adapt": True}, {"params": [linear.bias]}]
        return Lars(groups, lr=rate, momentum=self.momentum, weight_decay=0.0)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        with frozen(self.encoder):  # its batch norms, if any, keep their statistics
            features = self.extract(batch)
        return self.log_loss(F.cross_entropy(self.head(features).float(), batch.labels), batch)


class FineTune(Classification):
    """All of the encoder trained on labels, earlier layers more slowly (He et al., 2022, appendix A.1; Clark et al., 2020).

    AdamW, mixup and cutmix, smoothed labels, drop path. Layers are the stem, and each block (of a transformer) or stage (of a CNN);
    an encoder that names neither `blocks` nor `stages` is trained at one rate.

    Args:
        pretrained_run: folder of the run whose encoder is tuned.
        num_classes: None: as many as the run's data have.
        base_lr: learning rate of the head per 256 images of a step.
        warmup: share of the steps in which the rate rises from 0: 5 of 100 epochs.
        betas: AdamW's decay rates of the moments.
        weight_decay: of all weights but norms, biases and tokens.
        layer_decay: factor of the rate from each layer to the one before.
        drop_path: share of the residual branches that is dropped in training, rising from 0 to this with depth. timm's ResNets
            have nothing to set this in: they take `model.encoder.drop_path`, from pretraining on.
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of cutmix; 0 for none.
        smoothing: of labels.
        batch_size: images per step over all devices; the data's; with mixup or cutmix even on each device, as images are mixed in
            pairs. Where images are skipped and an odd number is left, the last one is not mixed.
        seed: of the head, of mixing and of drop path.
        scratch: start from the weights with which the run itself started, as if there had been no pretraining: the baseline of
            fine-tuning. Results are then called `scratch`.

    Raises:
        ValueError: there is no such run, its data have no labels or one class, or images are mixed and the batch is odd.
    """

    def __init__(
        self,
        pretrained_run: str,
        num_classes: int | None = None,
        base_lr: float = 5e-4,
        warmup: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.05,
        layer_decay: float = 0.75,
        drop_path: float = 0.1,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        smoothing: float = 0.1,
        batch_size: int = 256,
        seed: int = 0,
        scratch: bool = False,
    ) -> None:
        check_schedule(base_lr, warmup, weight_decay, betas)
        require("layer_decay", layer_decay, 0, 1, exclude="low")
        require("drop_path", drop_path, 0, 1, exclude="high")
        require("smoothing", smoothing, 0, 1, exclude="high")
        for alpha, value in (("mixup", mixup), ("cutmix", cutmix)):
            require(alpha, value, 0)
        name = "scratch" if scratch else "finetune"
        super().__init__(pretrained_run, name, num_classes, base_lr, warmup, batch_size, seed, scratch)
        self.betas, self.weight_decay, self.layer_decay = betas, weight_decay, layer_decay
        self.mix = Mixup(mixup_alpha=mixup, cutmix_alpha=cutmix, label_smoothing=smoothing, num_classes=self.num_classes)
        self.mix.mixup_enabled = mixup > 0 or cutmix > 0
        self._check_share(1)
        self.criterion = SoftTargetCrossEntropy()
        set_drop_path(self.encoder, drop_path)

    def make_head(self, num_features: int, num_classes: int) -> nn.Module:
        linear = nn.Linear(num_features, num_classes)
        nn.init.trunc_normal_(linear.weight, std=2e-5)
        nn.init.zeros_(linear.bias)
        return nn.Sequential(nn.LayerNorm(num_features, eps=1e-6), linear)

    def make_optimizer(self, rate: float) -> torch.optim.Optimizer:
        _, exempt = parameter_groups(self, self.weight_decay, decay_tokens=False)
        undecayed = {id(parameter) for parameter in exempt["params"]}
        names = [name for name, parameter in self.named_parameters() if id(parameter) in undecayed]
        groups = param_groups_layer_decay(
            self, self.weight_decay, names, weight_decay_exclude_1d=False, layer_decay=self.layer_decay
        )
        for group in groups:
            group["lr"] = rate * group.pop("lr_scale")
        return torch.optim.AdamW(groups, lr=rate, betas=self.betas)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers by parameter names, as timm asks for them: what nothing matches, the head and a norm before it, is the last."""
        if not any(hasattr(self.encoder, name) for name in ("blocks", "stages")):
            return {}
        return {"stem": r"encoder\.(?!(?:blocks|stages|norm)\.)", "layers": [(r"encoder\.(?:blocks|stages)\.(\d+)\.", None)]}

    def on_fit_start(self) -> None:
        self._check_share(self.trainer.world_size)
        super().on_fit_start()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        with _numpy_seed(make_seed(self.seed, "mix", self.global_step, batch_idx, self.global_rank)):
            images, targets = self._mixed(batch.images, batch.labels)
        # of two images that are mixed, frame and map are the first's
        return self.log_loss(self.criterion(self(batch._replace(images=images)).float(), targets), batch)

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images mixed in pairs, but for the last one of an odd number, and their soft targets."""
        images, even = images.clone(), len(images) // 2 * 2  # it mixes in place
        _, targets = self.mix(images[:even], labels[:even])
        last = mixup_target(labels[even:], self.num_classes, smoothing=self.mix.label_smoothing)
        return images, torch.cat([targets, last])

    def _check_share(self, num_devices: int) -> None:
        share = self.batch_size // num_devices
        if self.mix.mixup_enabled and share % 2:
            raise ValueError(
                f"batch_size is {self.batch_size}, {share} on each device: images are mixed in pairs, give an even number on each, "
                "or mixup and cutmix 0"
            )


def set_drop_path(encoder: nn.Module, rate: float) -> None:
    """Drop residual branches, the share rising from 0 at the first block to `rate` at the last."""
    names = ("drop_path", "drop_path1", "drop_path2")  # of ConvNeXtBlock; of timm's Block
    blocks = [module for module in encoder.modules() if any(isinstance(getattr(module, name, None), nn.Module) for name in names)]
    for block, share in zip(blocks, np.linspace(0, rate, len(blocks)), strict=True):
        for name in names:
            if isinstance(getattr(block, name, None), nn.Module):
                setattr(block, name, DropPath(float(share)))


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """NumPy's global generator, which timm's mixup draws from, seeded within and untouched afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
