"""Tables of what tests have noticed, and the same mutants under two suites."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KILLED = ("killed", "timed out")
WANTED = 0.9  # share of killed mutants


def rate(verdicts: Sequence[dict[str, Any]]) -> float:
    """The share of killed mutants."""
    return sum(one["status"] in KILLED for one in verdicts) / len(verdicts)


def table(verdicts: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each file, then the survivors."""
    files: dict[str, list[dict[str, Any]]] = {}
    for one in verdicts:
        files.setdefault(one["name"].partition(" | ")[0], []).append(one)
    rows = [_row(file, found) for file, found in sorted(files.items())]
    survivors = [f"- `{one['name']}` ({one['status']}, {one['tests']} tests)" for one in verdicts if one["status"] not in KILLED]
    head = ["| file | mutants | killed | |", "|---|--:|--:|--:|"]
    return "\n".join([*head, *rows, _row("all", verdicts), *(["", "Survivors:", ""] if survivors else []), *survivors])


def compare(before: Path, after: Path) -> tuple[str, bool]:
    """What is printed of two runs, and whether the second is strong enough: no mutant lost, and 90 % killed.

    Raises:
        ValueError: the mutants are not the same.
    """
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    if first["sources"] != second["sources"] or [one["name"] for one in first["mutants"]] != [
        one["name"] for one in second["mutants"]
    ]:
        raise ValueError(
            f"{before} and {after} are of different mutants: run both on one version of the package, by one seed and size"
        )
    lost = [
        f"- `{old['name']}`, which {old['test']} has killed"
        for old, new in zip(first["mutants"], second["mutants"], strict=True)
        if old["status"] in KILLED and new["status"] not in KILLED
    ]
    rates = [f"{path.name}: {rate(run['mutants']):.1%} killed" for path, run in ((before, first), (after, second))]
    said = [*rates, *(["", "Killed before, and no longer:", "", *lost] if lost else [])]
    return "\n".join(said), not lost and rate(second["mutants"]) >= WANTED


def _row(name: str, verdicts: Sequence[dict[str, Any]]) -> str:
    killed = sum(one["status"] in KILLED for one in verdicts)
    return f"| {name} | {len(verdicts)} | {killed} | {killed / len(verdicts):.0%} |"
