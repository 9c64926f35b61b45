"""Put a sample of faults into the package, one at a time, and see which of them the tests notice.

    python -m tests.mutants --output after.json                        # the tests that stand here
    python -m tests.mutants --output before.json --tests OTHER/tests   # other tests, on the same package
    python -m tests.mutants --compare before.json after.json

First it measures which tests run which lines, which takes as long as the tests do; files of tests that have not changed since are
not measured again. Then each mutant meets the tests that run its line.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.mutants.comparison import WANTED, compare, rate, table
from tests.mutants.lines import Measured, digests, measure, probe
from tests.mutants.sites import Mutant, draw, find_files, find_mutants
from tests.mutants.suite import WARM, copy_project
from tests.mutants.trial import Verdict, choose, try_mutant

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "mutants"


def main() -> None:
    options = _parse()
    if options.compare:
        said, strong = compare(*options.compare)
        print(said)
        sys.exit(not strong)
    sources = {file: (ROOT / "semconv" / file).read_text(encoding="utf-8") for file in find_files(ROOT / "semconv")}
    sample = draw([mutant for file, source in sources.items() for mutant in find_mutants(source, file)], options.size, options.seed)
    sample = [mutant for mutant in sample if options.only in mutant.name]
    if options.output is None:
        print("\n".join(mutant.name for mutant in sample))
        return
    for name in WARM:
        import_module(name)
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(options.jobs, get_context("fork")) as pool:
        project = Path(folder) / "project"
        copy_project(ROOT, options.tests, project)
        record = Record(options.output, _digest(sources), _digest(digests(project)))
        missing = [mutant for mutant in sample if mutant.name not in record.known]
        _try_all(pool, project, missing, _measure_all(pool, project) if missing else {}, options.budget, record)
    verdicts = record.write([mutant.name for mutant in sample])
    print(table(verdicts))
    sys.exit(rate(verdicts) < WANTED)


class Record:
    """The output: written after each mutant, so that a run which was stopped goes on where it was.

    Args:
        path: the file.
        sources: a hash of what is mutated; a file of another one is begun anew.
        tests: a hash of the tests, likewise.
    """

    def __init__(self, path: Path, sources: str, tests: str) -> None:
        self.path, self.head = path, {"sources": sources, "tests": tests}
        self.known: dict[str, dict[str, Any]] = {}
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if {**before, "mutants": []} == {**self.head, "mutants": []}:
            self.known = {one["name"]: one for one in before["mutants"]}

    def add(self, verdict: Verdict) -> None:
        self.known[verdict.name] = verdict._asdict()
        self.write(list(self.known))

    def write(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Write the verdicts on some mutants, in this order, and return them."""
        found = [self.known[name] for name in names]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({**self.head, "mutants": found}, indent=1), encoding="utf-8")
        return found


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="JSON of what became of each mutant; without it, the sample is listed")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests", help="the folder of tests")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time (default: one per core)")
    parser.add_argument("--size", type=int, default=150, help="mutants of the sample (default: 150)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--only", default="", metavar="TEXT", help="those of the sample whose name holds this text")
    parser.add_argument("--budget", type=float, default=600, help="seconds of tests for each mutant (default: 600)")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="compare two outputs")
    return parser.parse_args()


def _measure_all(pool: Executor, project: Path) -> dict[str, Measured]:
    """Measure each file of tests, or read what is known of it."""
    KEPT.mkdir(parents=True, exist_ok=True)
    probed = project.parent / "probed"
    shutil.copytree(project, probed)
    probe(probed)
    known = {file: KEPT / f"{digest}.json" for file, digest in digests(project).items()}
    missing = [file for file, path in known.items() if not path.exists()]
    jobs = {pool.submit(measure, project, probed, file, project.parent / f"seen-{i}"): file for i, file in enumerate(missing)}
    for number, job in enumerate(as_completed(jobs), 1):
        file, measured = jobs[job], job.result()
        known[file].write_text(json.dumps(measured), encoding="utf-8")
        left_out = f", left out: {', '.join(measured.left_out)}" if measured.left_out else ""
        print(f"{number}/{len(jobs)} {file}: {len(measured.tests)} tests{left_out}", flush=True)
    return {file: Measured(*json.loads(path.read_text(encoding="utf-8"))) for file, path in known.items()}


def _try_all(
    pool: Executor, project: Path, sample: Sequence[Mutant], measured: Mapping[str, Measured], budget: float, record: Record
) -> None:
    jobs = [pool.submit(try_mutant, project, mutant, choose(mutant, measured), budget) for mutant in sample]
    for number, job in enumerate(as_completed(jobs), 1):
        one = job.result()
        record.add(one)
        print(f"{number}/{len(jobs)} {one.status} {one.seconds} s {one.test or one.tests} {one.name}", flush=True)


def _digest(value: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    main()
