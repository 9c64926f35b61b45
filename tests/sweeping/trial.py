"""Stands for a training run in tests of sweeps: leaves what a run leaves, and takes as long as it is told.

It imports nothing of semconv, which takes longer than all else that it does. It keeps no checkpoint, so that one that was killed
begins anew.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def summarise(folder: Path, **values: Any) -> None:
    """Replace the summary, which a sweep may be reading."""
    (folder / ".summary.tmp").write_text(json.dumps(values))
    (folder / ".summary.tmp").replace(folder / "summary.json")


def append(path: Path, row: dict[str, Any]) -> None:
    with open(path, "a") as file:
        file.write(json.dumps(row) + "\n")


def main(words: list[str]) -> None:
    given = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    runs = Path(given.get("runs", os.environ.get("WANDB_DIR", ".")))  # which W&B's agent sets
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = runs / given.get("experiment", "fake") / os.environ["WANDB_RUN_ID"]
    folder.mkdir(parents=True)
    summarise(folder, status="running")
    append(runs / "begun.txt", {"run": folder.name, "words": words})
    if given.get("fails") == "True" and not (runs / "mended").exists():
        print("it has failed as it was told")
        sys.exit(7)
    value = float(given.get("x", 0))
    if given.get("diverges") == given.get("x"):
        summarise(folder, status="diverged", divergence="the loss is not finite")
        sys.exit(3)
    for step in range(int(given.get("steps", 2))):
        time.sleep(float(given.get("seconds", 0)))
        append(folder / "metrics.jsonl", {"step": step, "time": time.time(), "val/loss": value})
    summarise(folder, **{"status": "finished", "val/loss": value})


if __name__ == "__main__":
    main(sys.argv[1:])
