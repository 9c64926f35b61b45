"""The measurements of `make bench`, each by its name in `PARTS`: figures that JSON takes."""

import contextlib
import cProfile
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.marks import read
from benchmarks.pairs import Turns, alternate, fastest

ROOT = Path(__file__).parent.parent
OURS, STEPS, BATCH = "semconv", 3, 128
EPOCH = 370  # steps of 128 images: 47,433 training images of CIFAR-10
PROBED = 10_000  # images of train, and of test: the default of --evaluation_images
FITS = {f"semconv fit {name}": name for name in ("mae_vit", "cnn_plain")}
FIRST = "semconv fit cnn_plain"  # of which the first step is timed
SCENES = ["--data.num_images=12000", "--data.num_test_images=10000", f"--data.batch_size={BATCH}"]
OPERATORS = {
    "matrix products": ("::mm", "::addmm", "::bmm", "convolution"),
    "attention": ("attention",),
    "GELU": ("gelu",),
    "layer norms": ("layer_norm",),
    "copies and sums": ("::copy_", "::cat", "::sum", "::add", "::fill_", "::where", "::mul"),
}
EVALUATED = {  # functions of the evaluation that call none of each other
    ("features.py", "extract"): "features",
    ("probes.py", "choose_linear"): "linear probes",
    ("probes.py", "knn_scores"): "nearest neighbours",
    ("sites.py", "probe_sites"): "probes of sites",
}


def vit(rounds: int) -> dict[str, Any]:
    """Training steps of masked autoencoders of equal dimensions, and the operators of ours and of the fastest."""
    from benchmarks import peers
    from semconv.encoders import Geometry
    from semconv.encoders.sizes import CNNSize, DecoderSize, Dimensions, ViTSize

    size = Dimensions(ViTSize(192, 6, 3), CNNSize((24, 48, 96, 192), (1, 1, 1, 1)), DecoderSize(128, 4, 4))
    steps = {name: peers.make_steps(name, Geometry(3, (32, 32), 4), size, 64) for name in (OURS, *peers.installed())}
    turns = alternate(steps, rounds)
    return {"turns": written(turns), "shares": {name: shares(steps[name]) for name in {OURS: 0, fastest(turns.values()).name: 0}}}


def shares(steps: Callable[[int], float]) -> dict[str, float]:
    """The share of each kind of operator in the processor time of a few steps."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        steps(STEPS)
    sums = dict.fromkeys((*OPERATORS, "all else"), 0.0)
    for event in profiler.key_averages():
        kind = next((kind for kind, names in OPERATORS.items() if any(name in event.key for name in names)), "all else")
        sums[kind] += event.self_cpu_time_total
    return {kind: each / sum(sums.values()) for kind, each in sums.items()}


def trainer(rounds: int) -> dict[str, Any]:
    """A whole training; the same steps with the loader alone, and on one batch."""
    from benchmarks.data import Trained

    trained, steps = Trained("cnn_plain", images()), 16
    contestants: dict[str, Callable[[], float]] = {
        "bare": lambda: trained.steps.run(repeat(trained.resident), steps)[0],
        "loader": lambda: trained.steps.run(trained.ours, steps)[0],
        "trainer": lambda: trained.trainer(steps),
    }
    return {"turns": written(alternate(contestants, rounds, warmup=0))}


def evaluation(rounds: int) -> dict[str, Any]:
    """The quick evaluation, an epoch of training steps, and the seconds of the evaluation's parts."""
    from benchmarks.data import Trained
    from semconv.evaluation import quick
    from semconv.evaluation.features import Evaluated

    trained, profiler = Trained("cnn_plain", images()), cProfile.Profile()
    trained.data.setup("test")
    evaluated = Evaluated(trained.model, trained.data, contextlib.nullcontext)

    def evaluate() -> float:
        begin = time.perf_counter()
        profiler.runcall(quick.evaluate, evaluated, PROBED, False)
        return time.perf_counter() - begin

    turns = alternate({"epoch": lambda: EPOCH * trained.steps.run(trained.ours, 24)[0], "evaluation": evaluate}, rounds, warmup=0)
    total, seconds = turns["evaluation"].median, dict.fromkeys(EVALUATED.values(), 0.0)
    for (file, _, function), found in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        if name := EVALUATED.get((Path(file).name, function)):
            seconds[name] += found[3] / rounds
    return {"turns": written(turns), "seconds": {**seconds, "all else": total - sum(seconds.values())}}


# The ru_maxrss of a process is at least the memory of the one that started it: a small one starts it, and prints it.
LAUNCHER = """
import os, sys
_, status, usage = os.wait4(os.posix_spawn(sys.executable, [sys.executable, *sys.argv[1:]], os.environ), 0)
print(f"\\n{usage.ru_maxrss}")
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Child(NamedTuple):
    """A process that has ended."""

    started: float  # system's clock
    seconds: float
    peak: int  # bytes
    output: str


def call(words: Sequence[str]) -> Child:
    """Run Python in the project's folder.

    Raises:
        ValueError: it failed.
    """
    begin = time.time()
    done = subprocess.run(
        [sys.executable, "-ISc", LAUNCHER, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seconds = time.time() - begin
    *lines, peak = done.stdout.splitlines()
    if done.returncode:
        raise ValueError(f"{' '.join(words)} failed: {next(filter(str.strip, reversed(lines)), 'no output')}")
    return Child(begin, seconds, int(peak) * (1 if sys.platform == "darwin" else 1024), "\n".join(lines))


def processes(rounds: int) -> dict[str, Any]:
    """Memory, and the time to the first step, of runs and of the loops of peers, each in a process of its own."""
    from benchmarks import peers

    with tempfile.TemporaryDirectory() as runs:
        options = [*images(), f"--runs={runs}", f"--trainer.max_steps={STEPS}", "--evaluation=none", "--wandb.mode=disabled"]
        options += ["--trainer.limit_val_batches=0", "--trainer.callbacks+=benchmarks.marks.Marks"]
        commands = {title: ["-m", "semconv", "fit", "-c", "base", "-c", name, *options] for title, name in FITS.items()}
        commands["imports"] = ["-c", "import torch, lightning"]
        commands |= {name: ["-m", "benchmarks.peers", name, f"--steps={STEPS}"] for name in (OURS, *peers.installed())}
        children: dict[str, list[Child]] = {name: [] for name in commands}

        def one(name: str) -> float:
            children[name].append(call(commands[name]))
            return children[name][-1].seconds

        turns = alternate({name: partial(one, name) for name in commands}, rounds)
    used = {name: found[-rounds:] for name, found in children.items()}
    memory = {name: turns[name]._replace(values=tuple(float(child.peak) for child in found)) for name, found in used.items()}
    marks = {name: [read(child.output) for child in used[name]] for name in FITS}
    passed = {
        mark: [found[mark]["time"] - child.started for found, child in zip(marks[FIRST], used[FIRST], strict=True)]
        for mark in ("built", "data", "step")
    }
    start = {"first step": turns[FIRST]._replace(name="first step", values=tuple(passed["step"])), "imports": turns["imports"]}
    held = {
        name: {"imports": memory["imports"].median}
        | {mark: statistics.median(each[mark]["held"] for each in found) for mark in passed}
        | {"peak": memory[name].median}
        for name, found in marks.items()
    }
    seconds = {"imports": turns["imports"].median, **{mark: statistics.median(each) for mark, each in passed.items()}}
    return {"start": {"turns": written(start), "seconds": seconds}, "memory": {"turns": written(memory), "held": held}}


def growth(rounds: int) -> dict[str, Any]:
    """Steps over small grids."""
    from benchmarks.growth import axes, measure

    found = {}
    for name, make in axes().items():
        axis = make()
        turns, flops, kept = measure(axis, rounds)
        found[name] = {"unit": axis.unit, "turns": written(turns), "flops": flops, "kept": kept}
    return found


def study(rounds: int) -> dict[str, Any]:
    """The staged study and the fixed design."""
    from benchmarks.study import DRAWS, EFFECTS, compare
    from semconv.study.file import read_study

    planned = read_study(ROOT / "sweeps/studies/cifar10_zero.yaml")
    outcomes = [compare(planned, effect, DRAWS * rounds)._asdict() for effect in EFFECTS]
    return {"file": "sweeps/studies/cifar10_zero.yaml", "outcomes": outcomes}


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    each.__name__: each for each in (vit, trainer, evaluation, processes, growth, study)
}
ROUNDS = {"vit": 15, "trainer": 9, "evaluation": 2, "processes": 3, "growth": 4, "study": 1}  # some minutes on two idle cores


def images() -> list[str]:
    """Options that give CIFAR-10, or synthetic images of its shape."""
    return ["-c", "data/cifar10"] if has_cifar() else SCENES


def has_cifar() -> bool:
    return (Path(os.environ.get("SEMCONV_DATA", "data")) / "cifar10").is_dir()


def written(turns: Mapping[Any, Turns]) -> dict[Any, dict[str, Any]]:
    """Turns for JSON."""
    return {key: each._asdict() for key, each in turns.items()}
