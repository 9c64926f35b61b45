"""One mutant before the tests."""

import os
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tests.mutants.lines import Lines, Measured
from tests.mutants.sites import Mutant, mutate
from tests.mutants.suite import run_tests


class Verdict(NamedTuple):
    """What became of a mutant."""

    name: str
    status: str  # killed, timed out (killed by a test that hangs), survived, or unfinished: survived as long as there was time
    test: str  # that killed it
    tests: int  # that were run
    seconds: float


class Choice(NamedTuple):
    """Tests that may notice a mutant; earlier rounds are likelier to."""

    round: int
    seconds: float
    test: str
    file: str


def choose(mutant: Mutant, measured: Mapping[str, Measured]) -> list[Choice]:
    """Tests of all files that run the mutated lines.

    First come those that run them, of the file that mirrors the mutated one, then of the same folder, then all others; then
    the rest of these files, for what a test builds is often kept for the next; in each round the fastest first.
    """
    choices = []
    for file, found in measured.items():
        direct = {test for test, (_, lines) in found.tests.items() if _runs(mutant, lines)}
        if direct or _runs(mutant, found.collected):
            near = _distance(file, mutant.file)
            choices += [Choice(near if test in direct else 3, found.tests[test][0], test, file) for test in found.tests]
    return sorted(choices)


def try_mutant(project: Path, mutant: Mutant, choices: Sequence[Choice], budget: float) -> Verdict:
    """Run the tests on a copy of the project that has the fault, until one fails.

    Args:
        project: where nothing is mutated; the copy stands beside it.
        mutant: the fault.
        choices: tests, in their order.
        budget: seconds after which no further test is begun.
    """
    begun, run = time.monotonic(), 0
    copy = _copy_with(mutant, project)
    for number in sorted({choice.round for choice in choices}):
        status, test, count = _run_round(copy, [choice for choice in choices if choice.round == number], begun + budget)
        run += count
        if status:
            return Verdict(mutant.name, status, test, run, round(time.monotonic() - begun, 1))
    return Verdict(mutant.name, "survived", "", run, round(time.monotonic() - begun, 1))


def _copy_with(mutant: Mutant, project: Path) -> Path:
    """A copy for this process, always at one place, so that what is not mutated is compiled once."""
    copy = project.parent / f"mutated-{os.getpid()}"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(project, copy)
    path = copy / "semconv" / mutant.file
    path.write_text(mutate(path.read_text(encoding="utf-8"), mutant), encoding="utf-8")
    # compiled files are known by time and size: the time is the mutant's own
    os.utime(path, (0, zlib.crc32(mutant.name.encode())))
    return copy


def _run_round(project: Path, choices: Sequence[Choice], deadline: float) -> tuple[str, str, int]:
    """What ended the round (empty: all have passed), at which test, and the number of tests run."""
    order = {choice.test: number for number, choice in enumerate(choices)}
    patience = {choice.test: 30 + 10 * choice.seconds for choice in choices}
    run, test = 0, ""
    try:
        for event in run_tests(project, sorted({choice.file for choice in choices}), order, "-x", patience=patience):
            match event.kind:
                case "started":
                    run, test = run + 1, event.test
                case "failed":
                    return "killed", event.test, run
                case "hung":
                    return "timed out", test, run
                case "finished" if time.monotonic() > deadline:
                    return "unfinished", test, run
                case "died":
                    return "killed", test, run
    except RuntimeError as error:
        if "while loading conftest" not in str(error):  # which imports the mutated file
            raise
        return "killed", "conftest.py", run
    return "", "", run


def _runs(mutant: Mutant, lines: Lines) -> bool:
    first, last = mutant.lines
    return any(first <= line <= last for line in lines.get(mutant.file, ()))


def _distance(test_file: str, file: str) -> int:
    """0 for tests of the file alone, 1 for those of its folder, else 2."""
    tests, mutated = PurePosixPath(test_file), PurePosixPath("tests") / file
    if tests.parent != mutated.parent:
        return 2
    return 0 if tests.stem == f"test_{mutated.stem}" or tests.stem.startswith(f"test_{mutated.stem}_") else 1
