"""Try to break semconv for some minutes, and count what came of it.

    python -m tests.campaign                                   # 15 minutes, seed 0
    python -m tests.campaign --minutes 2 --only values,images  # two kinds

The same seed tries the same things in the same order; how many of them depends on the time. The exit code is 1 if any was not fine.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from unittest import mock

from tests.campaign.images import image_folders
from tests.campaign.kills import kills
from tests.campaign.leaks import leaks
from tests.campaign.mutations import mutated_input
from tests.campaign.records import damaged_runs, hostile_runs
from tests.campaign.secrets import secrets
from tests.campaign.trial import Trial, Trials
from tests.campaign.values import odd_values

# by name, each with its share of the time and its most trials
KINDS: dict[str, tuple[Trials, float, int]] = {
    "kills": (kills, 0.2, 10**9),
    "input": (mutated_input, 0.25, 2000),
    "values": (odd_values, 0.1, 10**9),
    "records": (damaged_runs, 0.15, 10**9),
    "hostile": (hostile_runs, 0.05, 10**9),
    "images": (image_folders, 0.05, 10**9),
    "secrets": (secrets, 0.05, 5000),
    "leaks": (leaks, 0.2, 10**9),
}


def main() -> None:
    options = _parse()
    names = options.only.split(",") if options.only else list(KINDS)
    if unknown := [name for name in names if name not in KINDS]:
        sys.exit(f"there are no trials of {', '.join(unknown)}: choose among {', '.join(KINDS)}")
    whole = sum(KINDS[name][1] for name in names)
    counted: dict[str, Counter[str]] = {}
    failed: list[tuple[str, Trial]] = []
    for name in names:
        trials, share, most = KINDS[name]
        found = _run(trials, options.seed, 60 * options.minutes * share / whole, most)
        counted[name] = Counter(trial.outcome for trial in found)
        failed += [(name, trial) for trial in found if not trial.fine]
        print(f"{name}: {len(found)} trials, {sum(not trial.fine for trial in found)} not fine", file=sys.stderr, flush=True)
    print(_table(counted, failed))
    if options.output:
        content = {"seed": options.seed, "counts": counted, "failed": [(name, *trial) for name, trial in failed]}
        options.output.write_text(json.dumps(content, indent=1), encoding="utf-8")
    sys.exit(int(bool(failed)))


def _run(trials: Trials, seed: int, seconds: float, most: int) -> list[Trial]:
    """Trials of one kind, as many as there is time for; the first is always made."""
    found: list[Trial] = []
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        generator = trials(Random(seed), Path(folder))
        while not found or (time.monotonic() < end and len(found) < most):
            said = io.StringIO()
            try:
                with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                    found.append(next(generator))
            except SystemExit as stopped:  # of what a trial prepares
                raise RuntimeError(said.getvalue()) from stopped
            if not found[-1].fine:
                print(f"not fine: {found[-1].outcome}: {found[-1].case}\n{found[-1].said}", file=sys.stderr, flush=True)
    return found


def _table(counted: dict[str, Counter[str]], failed: list[tuple[str, Trial]]) -> str:
    rows = ["| kind | trials | not fine | outcomes |", "|---|--:|--:|---|"]
    for name, outcomes in counted.items():
        wrong = sum(kind == name for kind, _ in failed)
        said = ", ".join(f"{outcome}: {count:,}" for outcome, count in outcomes.most_common())
        rows.append(f"| {name} | {outcomes.total():,} | {wrong} | {said} |")
    return "\n".join(rows)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No W&B, warnings and log, and a cache of its own; then all is as before."""
    with (
        tempfile.TemporaryDirectory() as cache,
        mock.patch.dict(os.environ, {"WANDB_MODE": "disabled", "XDG_CACHE_HOME": cache}),
        warnings.catch_warnings(action="ignore"),
    ):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=15, help="for all kinds together (default: 15)")
    parser.add_argument("--seed", type=int, default=0, help="of the trials (default: 0)")
    parser.add_argument("--only", default="", metavar="KIND,KIND", help=f"kinds, among {', '.join(KINDS)}")
    parser.add_argument("--output", type=Path, help="JSON of the counts, and of what was not fine")
    return parser.parse_args()


if __name__ == "__main__":
    with _quiet():
        main()
