"""A study that goes on from the table of its runs, whose folders are gone."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from semconv.comparison.declared import WIDE
from semconv.comparison.recorded import CONTINUED, UNKNOWN, Row, load, load_rows
from semconv.comparison.run import LATER, FinishedRun
from semconv.configuration import BUDGET, bare
from semconv.shipped import PACKAGE
from semconv.study.arms import Arm, point_of
from semconv.study.file import Study
from semconv.study.rounds import has_begun
from semconv.tracking.environment import code_of

Rows = list[tuple[Row, FinishedRun]]
SAME_RUN = ("stage", "setting", "variant", "control", "seed", "value", "fraction")


def read_rows(study: Study, folder: Path, table: Path | None, accepted: Sequence[str] = ()) -> Rows:
    """The rows that a study continues.

    Args:
        study: the study.
        folder: its folder, which keeps them.
        table: a table to be continued; None: the one that the folder keeps, if it does.
        accepted: hashes of code that computes, for these rows, what the code of now does.

    Raises:
        ValueError: it is no table, it holds a run twice, other code has trained its runs, its confirmation had another plan, the
            folder keeps another one, or it holds a table of runs that are not there.
    """
    kept, results = folder / CONTINUED, folder / "results.csv"
    if table is None and not kept.exists():
        if results.exists() and not has_begun(folder):
            raise ValueError(
                f"{results} has runs whose folders are not there: give --resume --table {results} to keep them, or delete it"
            )
        return []
    path = table or kept
    rows = load_rows(path)
    lines: dict[tuple[Any, ...], str] = {}
    for row, run in rows:
        if (before := lines.setdefault(same_run(row), run.folder)) != run.folder:
            raise ValueError(f"{run.folder} is the run of {before.rpartition(':')[2]} again: restore the table")
    known = {code_of(PACKAGE), *chain.from_iterable(each.split("+") for each in accepted)}
    others: dict[str, str | None] = {}
    for row, _ in rows:
        *earlier, latest = (row["code"] or UNKNOWN).split("+")  # the commit is that of the latest
        others |= {
            code: commit for code, commit in ({**dict.fromkeys(earlier), latest: row["commit"]}).items() if code not in known
        }
    if others:
        named = " and ".join(f"{code} of commit {commit}" if commit else code for code, commit in others.items())
        raise ValueError(
            f"{path} has runs of other code, {named}: continue it by that code, {_instead(path)}, or give --accept-code "
            f"{' '.join([*accepted, *others])} if what has changed since changes no number of its runs"
        )
    if any(row["stage"] == "confirm" for row, _ in rows) and (changed := _changed_plan(study, path)):
        raise ValueError(f"{path} {changed}: a plan stays as it is once results were seen. Restore it, or {_instead(path)}")
    if table is not None and kept.exists() and not {same_run(row) for row, _ in load_rows(kept)} <= lines.keys():
        raise ValueError(f"{folder} continues another table already: leave out --table, or give another --output")
    return rows


def check_rows(
    study: Study,
    rows: Sequence[tuple[Row, FinishedRun]],
    measured: Mapping[Arm, FinishedRun],
    controls: Mapping[Arm, Sequence[str]],
) -> None:
    """Refuse rows of a table that the study, as its files are now, would not give.

    Args:
        study: the study.
        rows: the rows.
        measured: a short run of each network.
        controls: those of each candidate.

    Raises:
        ValueError: there is such a row.
    """
    for row, run in rows:
        problem = _misplaced(study, row, run, controls) or _different(study, row, run, measured)
        if problem:
            raise ValueError(f"{run.folder} {problem}; {_instead(Path(run.folder.rpartition(':')[0]))}")


def same_run(row: Row) -> tuple[Any, ...]:
    """What two rows of one run share."""
    return tuple(row[key] for key in SAME_RUN)


def _misplaced(study: Study, row: Row, run: FinishedRun, controls: Mapping[Arm, Sequence[str]]) -> str:
    """Say why a row belongs to no round of the study; empty where it does."""
    found = point_of(study, run)
    if found is None or found.arm.setting != row["setting"]:
        return "is no run of the study"
    candidate = found.arm._replace(control="")
    if found.arm.control and found.arm.control not in controls.get(candidate, ()):
        return f"is a control that {candidate.variant} does not have"
    stage = {"tune": study.tune, "screen": study.screen, "confirm": study.confirm}[row["stage"]]
    if stage is None or row["seed"] not in stage.seeds:
        return f"has seed {row['seed']}, which is none of the study's {row['stage']}"
    return ""


def _different(study: Study, row: Row, run: FinishedRun, measured: Mapping[Arm, FinishedRun]) -> str:
    """Say in what a run differs from those of the study's files; empty where it does not."""
    found = point_of(study, run)
    assert found is not None
    now = measured[found.arm._replace(control="")]
    ours, theirs = ({**each.protocol, "variant": {**each.summary["variant"], "control": None}} for each in (now, run))
    if found.arm.control in (WIDE, *study.extra_controls.get(found.arm.variant, ())):  # a network of its own
        ours["variant"] = theirs["variant"]
    apart = {*BUDGET, *([bare(study.tune.key)] if study.tune else [])}
    ours = {key: value for key, value in ours.items() if key not in apart}
    ours |= {bare(key): amount // row["fraction"] for key, amount in study.budget.items()}
    for key in [*ours, *(key for key in theirs if key not in apart and key.partition(".")[0] not in LATER)]:
        if theirs.get(key) != ours.get(key):
            return f"and the study as its files are now differ in {key}: {theirs.get(key)!r} there, {ours.get(key)!r} now"
    return ""


def _changed_plan(study: Study, path: Path) -> str:
    """Say in what the plan of the confirmation that a table holds differs from the study's; empty where it does not."""
    plan, looks = load(path).declared, study.confirm.looks
    if plan.looks and plan.looks != looks:
        ours, theirs = (f"{' '.join(map(str, each.seeds))} ({each.spending})" for each in (looks, plan.looks))
        return f"was confirmed with looks at {theirs}, and the study has {ours}"
    if plan.negligible is not None and f"{plan.negligible:g}" != f"{study.negligible:g}":
        return f"was confirmed with negligible: {plan.negligible:g}, and the study has {study.negligible:g}"
    if plan.endpoints and plan.endpoints != tuple(study.endpoints):
        return f"was confirmed by {' '.join(plan.endpoints)}, and the study has {' '.join(study.endpoints)}"
    return ""


def _instead(path: Path) -> str:
    """What to do in place of continuing a table."""
    return f"delete {path} to run all of it anew" if path.name == CONTINUED else "leave out --table to run all of it anew"
