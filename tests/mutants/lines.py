"""Which tests run which lines of the files that are mutated: measured once, and kept for each file of tests."""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.mutants.sites import find_files
from tests.mutants.suite import SEEN, run_tests

# a module of the measured copy: writes a line once per process and test
PROBE = f"""
import os

written = set()


def seen(line):
    place = os.environ.get({SEEN!r})
    if place and (place, line) not in written:
        written.add((place, line))
        with open(place, "a", encoding="utf-8") as file:
            file.write(line + "\\n")
"""

Lines = dict[str, list[int]]  # by file of the package


class Measured(NamedTuple):
    """What one file of tests runs."""

    collected: Lines  # by importing it
    tests: dict[str, tuple[float, Lines]]  # seconds and lines of each test that passes
    left_out: list[str]  # tests that fail where nothing is mutated


def add_probes(source: str, file: str) -> str:
    """A source that says which of its lines are run."""
    tree = ast.parse(source)
    for node in list(ast.walk(tree)):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                setattr(node, field, list(_probed(block, file)))
    return ast.unparse(ast.fix_missing_locations(tree))


def _probed(block: list[ast.stmt], file: str) -> Iterator[ast.stmt]:
    for i, statement in enumerate(block):
        documents = i == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not documents and not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
            yield ast.parse(f"__import__('line_probe').seen({f'{file}:{statement.lineno}'!r})").body[0]
        yield statement


def probe(project: Path) -> None:
    """Put probes into a copy of the project."""
    (project / "line_probe.py").write_text(PROBE, encoding="utf-8")
    for file in find_files(project / "semconv"):
        path = project / "semconv" / file
        path.write_text(add_probes(path.read_text(encoding="utf-8"), file), encoding="utf-8")


def digests(project: Path) -> dict[str, str]:
    """For each file of tests a hash of what its lines depend on: itself, the package, experiments and what tests share."""
    files = sorted(path for path in project.rglob("*") if path.suffix in (".py", ".yaml", ".toml") and "mutants" not in path.parts)
    tests = [path for path in files if path.name.startswith("test_") and path.is_relative_to(project / "tests")]
    shared = hashlib.sha256()
    for path in files:
        if path not in tests:
            shared.update(path.relative_to(project).as_posix().encode() + path.read_bytes())
    found = {}
    for path in tests:
        own = shared.copy()
        own.update(path.read_bytes())
        found[path.relative_to(project).as_posix()] = own.hexdigest()[:24]
    return found


def measure(project: Path, probed: Path, file: str, seen: Path) -> Measured:
    """Run a file of tests in two copies of the project: what fails with probes (compiled graphs break at them) is run without.

    Args:
        project: a copy without probes.
        probed: a copy with them.
        file: the file of tests, below either.
        seen: a new folder, which the probes write to.
    """
    seen.mkdir()
    passed, failed = _run(probed, file, None, seen)
    tests = {test: (seconds, _read(seen / str(number))) for test, (number, seconds) in passed.items()}
    without, left_out = _run(project, file, dict.fromkeys(failed, 0), None) if failed else ({}, [])
    tests.update({test: (seconds, {}) for test, (_, seconds) in without.items()})
    return Measured(_read(seen / "collection"), tests, left_out)


def _run(
    project: Path, file: str, order: Mapping[str, int] | None, seen: Path | None
) -> tuple[dict[str, tuple[int, float]], list[str]]:
    """Number and seconds of the tests that pass, and the names of those that fail."""
    numbers: dict[str, int] = {}
    seconds: dict[str, float] = {}
    left: dict[str, str] = {}
    for event in run_tests(project, [file], order, seen=seen):
        if event.kind == "started":
            numbers[event.test] = len(numbers)
        elif event.kind == "finished":
            seconds[event.test] = event.seconds
        elif event.kind in ("failed", "skipped"):
            left[event.test] = event.kind
    passed = {test: (number, seconds[test]) for test, number in numbers.items() if test in seconds and test not in left}
    broken = [test for test in numbers if test not in seconds]  # its process has died of it
    return passed, [test for test, kind in left.items() if kind == "failed"] + broken


def _read(path: Path) -> Lines:
    found: dict[str, set[int]] = {}
    for line in path.read_text(encoding="utf-8").split() if path.exists() else []:
        file, _, number = line.rpartition(":")
        found.setdefault(file, set()).add(int(number))
    return {file: sorted(numbers) for file, numbers in found.items()}
