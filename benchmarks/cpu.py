"""Speed, memory and cost as ratios, into benchmarks/results/cpu.json.

    make bench                                        and the tables in docs/performance.md, by results/fill.py
    python -m benchmarks.cpu --only vit growth        some parts anew, the others as they stand in the file

Every ratio is of values that were measured in turns (benchmarks/pairs.py): of steps in one process, or of whole processes that take
turns. CIFAR-10 is read from $SEMCONV_DATA/cifar10; without it, synthetic images of its shape stand in. Peers are those of
benchmarks/requirements.txt that are installed.
"""

import argparse
import contextlib
import cProfile
import json
import os
import platform
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
from benchmarks.pairs import Spread, Turns, alternate, fastest, ratio, slope, slopes
from results.pages import markdown
from semconv.allocator import keep_freed_memory
from semconv.files import write_text

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "cpu.json"
OURS, PEERS = "semconv", ("transformers", "lightly")
STEPS, BATCH = 3, 128
EPOCH = 370  # steps of 128 images: 47,433 training images of CIFAR-10
PROBED = 10_000  # images of train, and of test: the default of --evaluation_images
RUNS = ("mae_vit", "cnn_plain")
FIRST = "semconv run cnn_plain"  # of which the first step is timed
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


class Row(NamedTuple):
    """A line of the table of ratios."""

    what: str
    section: str  # of the figures
    one: str  # name of the turns
    other: str  # likewise; empty: the peer of the least median
    goal: str
    shown: Callable[[float], str]


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
        profiler.runcall(quick.evaluate, evaluated, PROBED, False, None)
        return time.perf_counter() - begin

    turns = alternate({"epoch": lambda: EPOCH * trained.steps.run(trained.ours, 24)[0], "evaluation": evaluate}, rounds, warmup=0)
    total, seconds = turns["evaluation"].median, dict.fromkeys(EVALUATED.values(), 0.0)
    for (file, _, function), found in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        if name := EVALUATED.get((Path(file).name, function)):
            seconds[name] += found[3] / rounds
    return {"turns": written(turns), "seconds": {**seconds, "all else": total - sum(seconds.values())}}


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
    with tempfile.TemporaryFile("w+") as file:
        begin = time.time()
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.time() - begin
        file.seek(0)
        output = file.read()
    if process.returncode:
        raise ValueError(f"{' '.join(words)} failed: {(output.strip().splitlines() or ['no output'])[-1]}")
    return Child(begin, seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), output)


def processes(rounds: int) -> dict[str, Any]:
    """Memory, and the time to the first step, of runs and of the loops of peers, each in a process of its own."""
    from benchmarks import peers

    with tempfile.TemporaryDirectory() as runs:
        options = [*images(), f"--runs={runs}", f"--trainer.max_steps={STEPS}", "--evaluation=none", "--wandb.mode=disabled"]
        options += ["--trainer.limit_val_batches=0", "--trainer.callbacks+=benchmarks.marks.Marks"]
        commands = {f"semconv run {name}": ["-m", "semconv", "fit", "-c", "base", "-c", name, *options] for name in RUNS}
        commands["imports"] = ["-c", "import torch, lightning"]
        commands |= {name: ["-m", "benchmarks.peers", name, f"--steps={STEPS}"] for name in (OURS, *peers.installed())}
        children: dict[str, list[Child]] = {name: [] for name in commands}

        def one(name: str) -> float:
            children[name].append(call(commands[name]))
            return children[name][-1].seconds

        turns = alternate({name: partial(one, name) for name in commands}, rounds)
    used = {name: found[-rounds:] for name, found in children.items()}
    memory = {name: turns[name]._replace(values=tuple(float(child.peak) for child in found)) for name, found in used.items()}
    marks = {name: [read(child.output) for child in used[name]] for name in commands if name.startswith("semconv run")}
    first = [mark["step"]["time"] - child.started for mark, child in zip(marks[FIRST], used[FIRST], strict=True)]
    start = {"first step": turns[FIRST]._replace(name="first step", values=tuple(first)), "imports": turns["imports"]}
    held = {
        name: {"imports": memory["imports"].median}
        | {mark: statistics.median(each[mark]["held"] for each in found) for mark in ("built", "data", "step")}
        | {"peak": memory[name].median}
        for name, found in marks.items()
    }
    return {"start": {"turns": written(start)}, "memory": {"turns": written(memory), "held": held}}


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

    planned = read_study(ROOT / "sweeps/studies/cifar10.yaml")
    outcomes = [compare(planned, effect, DRAWS * rounds)._asdict() for effect in EFFECTS]
    return {"file": "sweeps/studies/cifar10.yaml", "outcomes": outcomes}


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    each.__name__: each for each in (vit, trainer, evaluation, processes, growth, study)
}
ROUNDS = {"vit": 15, "trainer": 5, "evaluation": 2, "processes": 3, "growth": 4, "study": 1}  # seven minutes on two idle cores


def images() -> list[str]:
    """Options that give CIFAR-10, or synthetic images of its shape."""
    return ["-c", "data/cifar10"] if has_cifar() else SCENES


def has_cifar() -> bool:
    return (Path(os.environ.get("SEMCONV_DATA", "data")) / "cifar10").is_dir()


def written(turns: Mapping[Any, Turns]) -> dict[Any, dict[str, Any]]:
    """Turns for JSON."""
    return {key: each._asdict() for key, each in turns.items()}


def text(figures: Mapping[str, Any]) -> str:
    """Markdown: the ratios, where time and memory go, exponents, and the runs of a study."""
    head = (
        f"{figures['machine']}, {figures['threads']} threads, torch {figures['torch']}; images: {figures['images']}. "
        "Ratios are medians over n pairs, with quartiles in brackets."
    )
    parts = figures["parts"]
    sections = {**parts, **parts.get("processes", {})}
    tables = [ratios(sections), *(make(sections) for make in (operators, examined, held, exponents, runs))]
    return "\n\n".join([head, *filter(None, tables)])


def ratios(sections: Mapping[str, Any]) -> str:
    """The table of ratios, with the medians behind them.

    Raises:
        ValueError: values were not measured in turns.
    """
    rows = [["what", "ratio", "n", "medians", "to reach"]]
    for row in ROWS:
        turns = turns_of(sections.get(row.section, {"turns": {}}))
        others = [turns[name] for name in ([row.other] if row.other else PEERS) if name in turns]
        if row.one in turns and others:
            one, other = turns[row.one], fastest(others)
            medians = ", ".join(f"{each.name} {row.shown(each.median)}" for each in (one, other))
            found = ratio(one, other)
            rows.append([row.what, spread(found), str(found.n), medians, row.goal])
    return markdown(rows)


def operators(sections: Mapping[str, Any]) -> str:
    """The shares of operators in a training step."""
    if "vit" not in sections:
        return ""
    shares = sections["vit"]["shares"]
    kinds = [*OPERATORS, "all else"]
    rows = [["share of a training step, %", *kinds]]
    return markdown([*rows, *([name, *(f"{100 * each[kind]:.0f}" for kind in kinds)] for name, each in shares.items())])


def examined(sections: Mapping[str, Any]) -> str:
    """The seconds of the parts of the quick evaluation."""
    if "evaluation" not in sections:
        return ""
    seconds = sections["evaluation"]["seconds"]
    return markdown([["quick evaluation", *seconds], ["seconds", *(f"{each:.1f}" for each in seconds.values())]])


def held(sections: Mapping[str, Any]) -> str:
    """The memory of runs at their marks."""
    if "memory" not in sections:
        return ""
    names = {
        "imports": "`import torch, lightning`",
        "built": "command, network and trainer built",
        "data": "data opened",
        "step": "after a step",
        "peak": "peak",
    }
    rows = [["resident MiB", *names.values()]]
    return markdown([*rows, *([name, *(mib(each[key]) for key in names)] for name, each in sections["memory"]["held"].items())])


def exponents(sections: Mapping[str, Any]) -> str:
    """The exponents of time, operations and memory by axis."""
    if "growth" not in sections:
        return ""
    rows = [["a step against", "grid", "exponent of time", "of operations", "of memory kept for the backward pass"]]
    for name, axis in sections["growth"].items():
        grid = {int(size): Turns.of(each) for size, each in axis["turns"].items()}
        counted = (slope(list(grid), [axis[key][str(size)] for size in grid]) for key in ("flops", "kept"))
        points = f"{', '.join(map(str, grid))} {axis['unit']}"
        rows.append([name, points, spread(slopes(grid)), *(f"{each:.2f}" for each in counted)])
    return markdown(rows)


def runs(sections: Mapping[str, Any]) -> str:
    """The runs of a staged study and of a fixed design."""
    if "study" not in sections:
        return ""
    rows = [["better candidate, d_z", "power", "error", "seeds", "runs", "staged / fixed"]]
    for each in sections["study"]["outcomes"]:
        rows.append(
            [
                f"{each['effect']:g}",
                f"{each['power']:.2f}; fixed {each['fixed_power']:.2f}",
                f"{each['error']:.3f}; fixed {each['fixed_error']:.3f}",
                f"{each['looks'][-1]} at most; fixed {each['seeds']}",
                f"{each['runs']:.0f}; fixed {each['fixed_runs']:.0f}",
                f"{each['runs'] / each['fixed_runs']:.2f}",
            ]
        )
    return f"`{sections['study']['file']}`:\n\n{markdown(rows)}"


def turns_of(section: Mapping[str, Any]) -> dict[str, Turns]:
    return {name: Turns.of(each) for name, each in section["turns"].items()}


def spread(found: Spread) -> str:
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"


def milliseconds(value: float) -> str:
    return f"{1e3 * value:.0f} ms"


def seconds(value: float) -> str:
    return f"{value:.1f} s"


def mib(value: float) -> str:
    return f"{value / 2**20:,.0f}"


ROWS = (
    Row("training step of MAE-ViT, 192 wide, 6 deep, 32 px, batch 64, over a peer's", "vit", OURS, "", ".90", milliseconds),
    Row("speed of the trainer over that of bare steps, CNN of size test", "trainer", "bare", "trainer", ".98", milliseconds),
    Row("quick evaluation over an epoch of training, CNN of size test", "evaluation", "evaluation", "epoch", ".25", seconds),
    Row("memory of MAE-ViT of size test, batch 128, in a bare loop, over a peer's", "memory", OURS, "", "1.0", mib),
    Row("memory of `semconv fit` with it, over a peer's bare loop", "memory", "semconv run mae_vit", "", "1.0", mib),
    Row("shell to the end of the first step, over `import torch, lightning`", "start", "first step", "imports", "4 s", seconds),
)


def describe() -> dict[str, Any]:
    """The machine, as the head of the tables names it."""
    import torch

    return {
        "machine": f"{platform.system()} on {platform.machine()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "images": "CIFAR-10 (JPEG q75)" if has_cifar() else "synthetic, of the shape of CIFAR-10",
    }


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, help="rounds of each part, in place of its own number")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file of the figures")
    given = parser.parse_args(words)
    keep_freed_memory()
    parts: dict[str, Any] = {}
    if given.only and given.json.is_file():
        parts = json.loads(given.json.read_text(encoding="utf-8"))["parts"]
    for name in given.only or PARTS:
        begin = time.perf_counter()
        parts[name] = PARTS[name](given.rounds or ROUNDS[name])
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
    figures = json.loads(json.dumps({**describe(), "parts": parts}))  # sizes as keys become text
    given.json.parent.mkdir(parents=True, exist_ok=True)
    write_text(given.json, json.dumps(figures, indent=1) + "\n")
    print(text(figures))


if __name__ == "__main__":
    main()
