"""Seeded leaks of hidden pixels, which are found, and clean experiments, in which none is."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch

from semconv.checks.leakage import check_leakage
from semconv.masking import spread_mask
from tests.campaign.trial import Trial
from tests.checks.leaking import CHEATS
from tests.experiments import NAMES, make_task


def leaks(random: Random, folder: Path) -> Iterator[Trial]:
    """Each cheat in a variant drawn at random, and after each of them a clean variant."""
    clean = [name for name in NAMES if make_task(name).corruption.hides]
    # a sparse or partial convolution takes no masked pixel, so that what a faulty corruption leaves in it leads nowhere
    reading = [name for name in clean if not name.endswith("_vit") and _reads_masked_pixels(name)]
    while True:
        for cheat in random.sample(CHEATS, len(CHEATS)):
            name = random.choice(reading)
            task, data = cheat(make_task(name, "--data.size=[16,16]")), None
            if isinstance(task, tuple):
                task, data = task
            found = any(case.leak for case in check_leakage(task, data))
            yield Trial("leak found" if found else "leak missed", found, f"{cheat.__name__} in {name}")
            name = random.choice(clean)
            alarms = [case for case in check_leakage(make_task(name, "--data.size=[16,16]")) if case.leak]
            yield Trial("false alarm" if alarms else "clean", not alarms, name, str(alarms[:1]))


def _reads_masked_pixels(name: str) -> bool:
    """True if the prediction of a variant depends on the pixels at masked cells, whatever fills them."""
    task = make_task(name)
    view = task.geometry.blank(2, torch.device("cpu"))
    other = view._replace(pixels=view.pixels + spread_mask(view.mask, task.geometry.size))
    with torch.no_grad():
        return not torch.equal(task(view), task(other))
