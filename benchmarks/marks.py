"""A callback that prints when, and with how much memory, a run reaches its first step: `benchmarks/cpu.py` reads it."""

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

MARK = "benchmarks.marks "


class Marks(Callback):
    """Prints a line at the start of the fit, at the first step's start and end, and at the end."""

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        _mark("built")

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            _mark("data")

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            _mark("step")

    def on_train_end(self, trainer: Any, module: Any) -> None:
        _mark("end")


def read(output: str) -> dict[str, dict[str, float]]:
    """The marks of a run by name: `time` of the system's clock, and `held` bytes."""
    lines = (line.removeprefix(MARK) for line in output.splitlines() if line.startswith(MARK))
    return {mark.pop("name"): mark for mark in map(json.loads, lines)}


def _mark(name: str) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if os.path.exists("/proc/self/statm") else 0
    print(f"{MARK}{json.dumps({'name': name, 'time': time.time(), 'held': pages * resource.getpagesize()})}", flush=True)
