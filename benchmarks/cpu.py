"""Speed, memory and cost as ratios, into benchmarks/results/cpu.json.

    make bench                                        and the tables in docs/performance.md, by results/fill.py
    python -m benchmarks.cpu --only vit growth        some parts anew, the others as they stand in the file

Every ratio is of values that were measured in turns (benchmarks/pairs.py): of steps in one process, or of whole processes that take
turns. CIFAR-10 is read from $SEMCONV_DATA/cifar10; without it, synthetic images of its shape stand in. Peers are those of
benchmarks/requirements.txt that are installed.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.pairs import Spread, Turns, fastest, ratio, slope, slopes
from benchmarks.parts import OPERATORS, OURS, PARTS, ROOT, ROUNDS, has_cifar
from results.pages import markdown
from semconv.files import write_text
from semconv.memory import keep_freed_memory

RESULTS = ROOT / "benchmarks" / "results" / "cpu.json"
PEERS = ("transformers", "lightly")
MARKS = {
    "imports": "`import torch, lightning`",
    "built": "command, network and trainer built",
    "data": "data opened",
    "step": "after a step",
    "peak": "peak",
}


class Row(NamedTuple):
    """A line of the table of ratios."""

    what: str
    section: str  # of the figures
    one: str  # name of the turns
    other: str  # likewise; empty: the peer of the least median
    goal: str
    shown: Callable[[float], str]


def text(figures: Mapping[str, Any]) -> str:
    """Markdown: the ratios, where time and memory go, exponents, and the runs of a study."""
    head = (
        f"{figures['machine']}, {figures['threads']} threads, torch {figures['torch']}; images: {figures['images']}. "
        "Ratios are medians over n pairs, with quartiles in brackets."
    )
    parts = figures["parts"]
    sections = {**parts, **parts.get("processes", {})}
    tables = [ratios(sections), *(make(sections) for make in (operators, evaluation, start, held, exponents, runs))]
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


def evaluation(sections: Mapping[str, Any]) -> str:
    """The seconds of the parts of the quick evaluation."""
    if "evaluation" not in sections:
        return ""
    seconds = sections["evaluation"]["seconds"]
    return markdown([["quick evaluation", *seconds], ["seconds", *(f"{each:.1f}" for each in seconds.values())]])


def held(sections: Mapping[str, Any]) -> str:
    """The memory of runs at their marks."""
    if "memory" not in sections:
        return ""
    rows = [[name, *(mib(each[key]) for key in MARKS)] for name, each in sections["memory"]["held"].items()]
    return markdown([["resident", *MARKS.values()], *rows])


def start(sections: Mapping[str, Any]) -> str:
    """The seconds from the shell to each mark."""
    if "start" not in sections:
        return ""
    passed = sections["start"]["seconds"]
    return markdown(
        [["seconds from the shell", *(MARKS[key] for key in passed)], ["", *(f"{each:.1f}" for each in passed.values())]]
    )


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
    return f"{value / 2**20:,.0f} MiB"


ROWS = (
    Row("training step of MAE-ViT, 192 wide, 6 deep, 32 px, batch 64, over a peer's", "vit", OURS, "", ".90", milliseconds),
    Row("speed of the trainer over that of bare steps, CNN of size test", "trainer", "bare", "trainer", ".98", milliseconds),
    Row("quick evaluation over an epoch of training, CNN of size test", "evaluation", "evaluation", "epoch", ".25", seconds),
    Row("memory of MAE-ViT of size test, batch 128, in a bare loop, over a peer's", "memory", OURS, "", "1.0", mib),
    Row("memory of `semconv fit` with it, over a peer's bare loop", "memory", "semconv fit mae_vit", "", "1.0", mib),
    Row("shell to the end of the first step, over `import torch, lightning`", "start", "first step", "imports", "4 s", seconds),
)


def describe() -> dict[str, Any]:
    """The machine, as the head of the tables names it."""
    import torch

    cores = f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores"
    return {
        "machine": cores,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "images": "CIFAR-10 (JPEG q75)" if has_cifar() else "synthetic, of the shape of CIFAR-10",
    }


def _measure(name: str, rounds: int) -> dict[str, Any]:
    return PARTS[name](rounds)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, help="rounds of each part, in place of its own number")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file of the figures")
    given = parser.parse_args(words)
    keep_freed_memory()
    figures: dict[str, Any] = {**describe(), "parts": {}}
    if given.only and given.json.is_file():
        before = json.loads(given.json.read_text(encoding="utf-8"))
        if wrong := [key for key, value in describe().items() if before.get(key) != value]:
            parser.error(f"{given.json} holds figures of {wrong[0]} {before.get(wrong[0])}: measure all parts anew")
        figures["parts"] = before["parts"]
    given.json.parent.mkdir(parents=True, exist_ok=True)
    for name in given.only or PARTS:
        begin = time.perf_counter()
        with ProcessPoolExecutor(1, get_context("fork")) as process:  # of its own: no part finds memory as another has left it
            measured = process.submit(_measure, name, given.rounds or ROUNDS[name]).result()
        figures["parts"][name] = json.loads(json.dumps(measured))  # sizes, as keys, become text
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
        write_text(given.json, json.dumps(figures, indent=1) + "\n")
    print(text(figures))


if __name__ == "__main__":
    main()
