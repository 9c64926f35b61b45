"""Stands for a training run in tests of sweeps: leaves what a run leaves, and takes as long as it is told, without torch.

It keeps no checkpoint, so that one that was killed begins anew.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from semconv.tracking.folder import RunFolder


def main(words: list[str]) -> None:
    given = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    given.setdefault("runs", os.environ.get("WANDB_DIR", "."))  # which W&B's agent sets
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = RunFolder(Path(given["runs"]) / given.get("experiment", "fake") / os.environ["WANDB_RUN_ID"])
    folder.path.mkdir(parents=True)
    folder.summarise({"status": "running"})
    with open(Path(given["runs"]) / "begun.txt", "a") as file:
        file.write(json.dumps({"run": folder.path.name, "words": words}) + "\n")
    if given.get("fails") == "True" and not (Path(given["runs"]) / "mended").exists():
        print("it has failed as it was told")
        sys.exit(7)
    value = float(given.get("x", 0))
    if given.get("diverges") == given.get("x"):
        folder.summarise({"status": "diverged", "divergence": "the loss is not finite"})
        sys.exit(3)
    for step in range(int(given.get("steps", 2))):
        time.sleep(float(given.get("seconds", 0)))
        folder.log({"val/loss": value}, step)
    folder.summarise({"status": "finished", "val/loss": value})


if __name__ == "__main__":
    main(sys.argv[1:])
