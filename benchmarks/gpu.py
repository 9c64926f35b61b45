"""All figures of a GPU by one command, into benchmarks/results/gpu.json.

    make gpu
    python -m benchmarks.gpu --variants mae_vit cnn_plain --modes float32 bf16

- The tests that need a GPU.
- Every variant, trained for an epoch of scenes and tested, in each mode: images per second of training, and peak memory.
- The cost of each mechanism (benchmarks/speed.py).
- `semconv estimate` of every variant for the full tier, with the rate of this GPU.

Each of these is a process of its own. What fails stands in the result with its last line, and the exit code is 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from results.pages import markdown
from semconv.files import write_text

ROOT = Path(__file__).parent.parent
VARIANTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml") if path.stem != "base")
BF16 = "--trainer.precision=bf16-mixed"
MODES = {
    "float32": [],
    "bf16": [BF16],
    "bf16, compiled": [BF16, "--model.compile=true"],
    "bf16, CUDA graphs": [BF16, "--model.compile=reduce-overhead"],
    "bf16, DDP on one device": [BF16, "--trainer.strategy=ddp", "--trainer.devices=1"],
}
IMAGENET = 1_216_825  # training images, without the held-out 5 %


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All figures; a figure that fails holds `error` in place of its numbers."""
    runs = []
    for variant in given.variants:
        for mode in given.modes:
            runs.append({"variant": variant, "mode": mode, **train(variant, [*MODES[mode], *given.extra], given.device)})
            print(json.dumps(runs[-1]), flush=True)
    figures: dict[str, Any] = {"device": device_name(given.device), "torch": torch.__version__, "runs": runs}
    if given.runs_only:
        return figures
    full = ["-c", "base", "-c", "data/imagenet", "-c", "recipes/full"]
    return {
        **figures,
        "tests": call(["-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"]),
        "mechanisms": call(["-m", "benchmarks.speed", "--device", given.device]),
        "imagenet": {
            variant: call(["-m", "semconv", "estimate", *full, "-c", variant, f"--images={IMAGENET}"]) for variant in given.variants
        },
    }


def train(variant: str, options: Sequence[str], device: str) -> dict[str, Any]:
    """Train and test a variant; what its summary says of speed and memory."""
    with tempfile.TemporaryDirectory() as runs:
        words = [variant, f"--runs={runs}", f"--trainer.accelerator={device}", *options]
        done = call(["-m", "semconv", "run", *words, "--evaluation=none", "--wandb.mode=disabled"])
        if "error" in done:
            return done
        (summary,) = Path(runs).glob("*/*/summary.json")
        found = json.loads(summary.read_text(encoding="utf-8"))
    return {"images_per_second": found["cost/train_images_per_second"], "peak_memory_bytes": found["cost/peak_memory_bytes"]}


def call(words: list[str]) -> dict[str, Any]:
    """Run Python in the project's folder: what it prints, or `error`, its last line."""
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return {"error": lines[-1] if lines else f"exit code {done.returncode}"}
    return {"output": done.stdout.strip().splitlines()}


def errors(figures: Any) -> list[str]:
    """Every error in the figures."""
    if isinstance(figures, dict):
        own = [figures["error"]] if "error" in figures else []
        return own + [found for value in figures.values() for found in errors(value)]
    return [found for value in figures for found in errors(value)] if isinstance(figures, list) else []


def text(figures: dict[str, Any]) -> str:
    """Markdown: a row for each variant, a column for each mode."""
    modes = list(dict.fromkeys(run["mode"] for run in figures["runs"]))
    cells = {(run["variant"], run["mode"]): cell(run) for run in figures["runs"]}
    rows = [[f"`{variant}`", *(cells[variant, mode] for mode in modes)] for variant in dict.fromkeys(key[0] for key in cells)]
    head = f"{figures['device']}, torch {figures['torch']}, n = 1: images per second of training (peak memory in GiB)."
    return f"{head}\n\n{markdown([['variant', *modes], *rows])}"


def cell(run: dict[str, Any]) -> str:
    if "error" in run:
        return "fails"
    rate = run["images_per_second"]
    return f"{'-' if rate is None else f'{rate:,.0f}'} ({run['peak_memory_bytes'] / 2**30:.2f})"


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME", help="default: all")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES), metavar="MODE", help=", ".join(MODES))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu tries the script")
    parser.add_argument("--runs-only", action="store_true", help="no tests, mechanisms and estimates")
    parser.add_argument("extra", nargs="*", metavar="-- OPTION", help="further options of each run")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/gpu.json", help="file of the figures")
    given = parser.parse_args(words)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.gpu: there is no CUDA device here: run it where torch.cuda.is_available() is True", file=sys.stderr)
        sys.exit(2)
    figures = measure(given)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    write_text(given.json, json.dumps(figures, indent=1) + "\n")
    if failed := errors(figures):
        print(f"benchmarks.gpu: {len(failed)} of the figures failed; the first: {failed[0]}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
