"""`semconv estimate`: hours, device-hours and memory of a training, before it is started."""

import argparse
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

from semconv.commands.errors import fail, in_one_line
from semconv.commands.keys import check_keys
from semconv.commands.short import write_out
from semconv.configuration import get, require
from semconv.tracking.budget import batches_of, limited

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from semconv.tasks import MaskedReconstruction

DESCRIPTION = """Estimate a training from its configuration and from a rate, which is given or measured here by a few steps on
images without content; print each number with its formula. Validation, evaluation and waiting for data are not included."""
USAGE = "semconv estimate VARIANT [-c FILE] [--dotted.key value] [--devices N] [--rate R] [--images N]"
ON_CPU = 2e11  # operations of a measured step at most, where there is no GPU: seconds
ROUNDS = 5
GIB = 2**30


class Budget(NamedTuple):
    """What a configuration trains on."""

    images: int  # in the training data
    batch_size: int  # over all devices, before accumulation
    batches: int  # of the whole training
    devices: int
    precision: str
    is_sharded: bool = False  # weights, gradients and moments, over the devices
    max_time: str = ""  # that may end it earlier

    @property
    def seen(self) -> int:
        """Images that pass through the network."""
        return self.batches * self.batch_size

    @property
    def share(self) -> int:
        """Images of a batch on one device."""
        return self.batch_size // self.devices


class Memory(NamedTuple):
    """Bytes on one device."""

    parameters: int  # number
    per_parameter: int  # of weight, gradient and AdamW's two moments
    fixed: int  # kept for the backward pass, whatever the batch
    per_image: int  # kept for the backward pass

    @property
    def state(self) -> int:
        return self.parameters * self.per_parameter

    def kept(self, images: int) -> int:
        return self.fixed + self.per_image * images


def main(arguments: list[str]) -> None:
    """Estimate a training."""
    given, words = make_parser().parse_known_args(arguments)
    with in_one_line(given.debug):
        if given.devices is not None:
            require("--devices", given.devices, 1)
        if given.images is not None:
            require("--images", given.images, 1)
        if given.rate is not None:
            require("--rate", given.rate, 0, exclude="low")
        if not words:
            fail("estimate needs an experiment: semconv estimate cnn_channels; semconv list variants names others")
        words = write_out(words)
        check_keys("fit", words)
    # importing torch takes seconds; errors in names and keys come before
    from semconv.commands.train import SemconvCLI, explaining, quieten
    from semconv.tasks import MaskedReconstruction

    quieten()
    with explaining(given.debug):
        built = SemconvCLI(words, run=False, extent="parts")
        if not isinstance(built.model, MaskedReconstruction):
            fail(f"{type(built.model).__name__} is not a MaskedReconstruction: estimate one of the variants")
        config = built.config.as_dict()
        if not any(parameter.requires_grad for parameter in built.model.parameters()):
            fail(f"{config['experiment']} has no weights to train: estimate a variant that has some")
        images = given.images or _count_images(built.datamodule)
        budget = read_budget(config, images, given.devices)
        print("\n".join(estimate(str(config["experiment"]), built.model, budget, given.rate)))


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's own options."""
    parser = argparse.ArgumentParser(prog="semconv estimate", description=DESCRIPTION, usage=USAGE, allow_abbrev=False)
    parser.add_argument("--devices", type=int, metavar="N", help="Number of devices (the configuration's).")
    parser.add_argument("--rate", type=float, metavar="R", help="Images per second and device (measured here).")
    parser.add_argument("--images", type=int, metavar="N", help="Number of training images (that of the data).")
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def read_budget(config: Mapping[str, Any], images: int, devices: int | None = None) -> Budget:
    """The budget of a configuration.

    Args:
        config: of a fit.
        images: number of training images.
        devices: number of devices; None: that of the configuration.

    Raises:
        ValueError: the batch is larger than the data or no multiple of the devices, the devices are none, or the training has no
            end or nothing to train.
    """
    # importing Lightning takes seconds
    from semconv.commands.trainer_options import nothing_to_train

    trainer, batch = config["trainer"], get(config, "data.init_args.batch_size")
    if batch is None:
        raise ValueError("the data have no batch_size: give data of which --data.batch_size is the number of images in a step")
    devices = devices or _count_devices(trainer.get("devices")) * (trainer.get("num_nodes") or 1)
    if batch % devices:
        raise ValueError(f"batch_size {batch} over {devices} devices: give a multiple of {devices}")
    if images < batch:
        raise ValueError(f"batch_size is {batch} for {images} training images: give {images} or less")
    if problem := nothing_to_train(trainer):
        raise ValueError(problem)
    if tried := int(trainer.get("fast_dev_run") or 0):  # of Lightning: so many steps, of one epoch
        trainer = {**trainer, "max_steps": tried, "max_epochs": 1, "limit_train_batches": tried, "overfit_batches": 0}
    if not (epoch := limited(trainer, images // batch)):
        limits = {name: trainer[name] for name in ("limit_train_batches", "overfit_batches") if trainer.get(name)}
        given = ", ".join(f"trainer.{name} is {value}" for name, value in limits.items())
        raise ValueError(f"{given}: less than one batch of {images // batch}: give more")
    if (batches := batches_of(trainer, epoch)) is None:
        raise ValueError("the training has no end: give trainer.max_epochs or trainer.max_steps")
    is_sharded = str(trainer.get("strategy")).rpartition(".")[2] in ("fsdp2", "FullySharded")
    precision, limit = str(trainer.get("precision") or "32-true"), trainer.get("max_time")
    return Budget(images, batch, batches, devices, precision, is_sharded, str(limit) if limit else "")


def estimate(name: str, task: "MaskedReconstruction", budget: Budget, rate: float | None) -> list[str]:
    """The lines that the command prints.

    Args:
        name: of the experiment.
        task: its task, which is moved to the device that is measured.
        budget: of the training.
        rate: images per second and device; None: to be measured here.
    """
    from semconv.cost import count_training_flops, flops_per_image

    inputs: Any = task.example_input_array
    flops = flops_per_image(count_training_flops, deepcopy(task).to("meta"), inputs, budget.batch_size)
    memory, source = measure_memory(task, budget.precision), "given"
    if rate is None:
        rate, source = measure_rate(task, budget, flops)
    hours = budget.seen / (budget.devices * rate) / 3600
    giga, speed, devices = f"{flops / 1e9:,.3g} GFLOPs", f"{rate:,.4g} images/s", f"{budget.devices} x"
    shards = budget.devices if budget.is_sharded else 1
    state, kept = memory.state / shards / GIB, memory.kept(budget.share) / GIB
    over = f" / {shards} devices" if budget.is_sharded else ""
    time_limit = f"; it ends earlier if trainer.max_time, {budget.max_time}, is over" if budget.max_time else ""
    return [
        f"{name}: {budget.images:,} training images, precision {budget.precision}, devices: {budget.devices}",
        f"images      {budget.batches:,} batches x {budget.batch_size:,} images = {budget.seen:,} images{time_limit}",
        f"operations  {budget.seen:,} images x {giga}, forward and backward = {budget.seen * flops / 1e18:,.3g} EFLOPs",
        f"rate        {speed} per device ({source}) x {giga} = {rate * flops / 1e12:,.3g} TFLOPS per device",
        f"time        {budget.seen:,} images / ({devices} {speed}) = {hours:,.3g} hours",
        f"cost        {devices} {hours:,.3g} hours = {hours * budget.devices:,.3g} device-hours",
        f"memory      {memory.parameters / 1e6:,.3g} M parameters x {memory.per_parameter} bytes (weight, gradient, two moments)"
        f"{over} + {budget.share:,} images x {memory.per_image / 2**20:,.3g} MiB kept for the backward pass "
        f"= {state:,.3g} + {kept:,.3g} = {state + kept:,.3g} GiB per device",
        "not included: validation, evaluation, waiting for data, exchange of gradients, temporary memory",
    ]


def measure_memory(task: "MaskedReconstruction", precision: str) -> Memory:
    """Count what a training step keeps, from forward passes of one and of two images on the CPU."""
    import torch

    from semconv.cost import saved_bytes

    weights = torch.finfo(_weights(precision)).bits // 8
    task = task.to(_weights(precision)).train()
    one, two = (saved_bytes(lambda count=count: _loss(task, count, precision), task) for count in (1, 2))  # type: ignore[misc]
    parameters = sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)
    return Memory(parameters, 4 * weights, 2 * one - two, two - one)


def measure_rate(task: "MaskedReconstruction", budget: Budget, flops: float) -> tuple[float, str]:
    """Images per second of training steps on this machine's GPU or CPU, and what was measured.

    Args:
        task: to be trained; with a learning rate of 0.
        budget: gives batch and precision.
        flops: operations for one image. On a CPU they bound the batch.
    """
    import torch

    from semconv.cost import step_seconds

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    task = task.to(device, _weights(budget.precision)).train()
    images = budget.share if on_gpu else max(1, min(budget.share, int(ON_CPU / flops)))
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.0, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        _loss(task, images, budget.precision).backward()
        optimizer.step()

    seconds = step_seconds(step, device, ROUNDS)
    where = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    return images / seconds, f"measured here: {where}, {images} images, median of {ROUNDS} steps"


def _loss(task: "MaskedReconstruction", count: int, precision: str) -> Any:
    import torch

    device = next(task.parameters()).device
    view = task.geometry.blank(count, device)
    with torch.autocast(device.type, torch.bfloat16, enabled="mixed" in precision):
        return task.objective(task(view), view.pixels, view.mask)


def _weights(precision: str) -> Any:
    import torch

    kinds = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
    return kinds.get(precision, torch.float32)


def _count_images(data: "LightningDataModule") -> int:
    """The number of training images.

    Raises:
        ValueError: the data cannot be opened, or do not say.
    """
    from semconv.data import ImageData

    if not isinstance(data, ImageData):
        raise ValueError(f"{type(data).__name__} does not say how many images it holds: give --images")
    try:
        data.setup("fit")
    except ValueError as error:
        raise ValueError(f"{error}; or give --images, the number of training images") from error
    return len(data.select("train")[1])


def _count_devices(given: Any) -> int:
    """The number of devices that Lightning takes.

    Raises:
        ValueError: it is none, or that of a machine with GPUs, and this one has none.
    """
    text = str(given)
    if isinstance(given, list) or "," in text:  # numbers of devices
        count = len(given if isinstance(given, list) else [part for part in text.split(",") if part.strip()])
    else:
        count = int(text) if text.isdecimal() else 0
    if count:
        return count
    if text not in ("auto", "-1", "None"):
        raise ValueError(f"trainer.devices is {text}: give a number of devices, 1 or more, a list of them, or auto")
    import torch

    found = torch.cuda.device_count()
    if text.startswith("-") and not found:
        raise ValueError(f"trainer.devices is {text}, all GPUs of a machine, and this one has none: give --devices")
    return found or 1
