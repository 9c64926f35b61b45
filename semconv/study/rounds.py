"""Rounds of a study: each is an ordinary W&B sweep in a folder of its own, run here or by anything that runs sweeps."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from semconv.comparison.recorded import Row
from semconv.comparison.run import FinishedRun, leave_out
from semconv.comparison.runs import find_runs
from semconv.configuration import bare
from semconv.files import write_text
from semconv.shipped import PACKAGE
from semconv.study.arms import Arm, Point, by_point, config_of
from semconv.study.file import Study
from semconv.sweeping.file import Sweep, sweep_problem
from semconv.tracking.environment import code_of
from semconv.tracking.folder import RunFolder
from semconv.yaml_files import read_yaml, to_yaml

MEASURE = "measure"  # rounds of a few steps of each network, and of one step of each control
Runs = dict[int, FinishedRun]  # by seed
# runs a sweep in its folder, but for points with the given parts, and gives the exit code
RunSweep = Callable[[Sweep, Path, Sequence[Mapping[str, Any]]], int]


class Unfinished(Exception):
    """A round has ended before all its runs had.

    Args:
        code: exit code of the sweep.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Rounds:
    """The rounds of a study.

    Args:
        study: the study.
        folder: its folder.
        run_sweep: runs the sweep of a round.
        recorded: rows of a table of the study, whose runs are not run again.
        accepts: tells whether a run of plain can have the value of a point, which is beyond the grid of the search.

    Attributes:
        used: lines of the table whose runs a round has asked for.
        stage: that of the latest round.
        family: the candidates that it confirms, if it does.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        run_sweep: RunSweep,
        recorded: Sequence[tuple[Row, FinishedRun]] = (),
        accepts: Callable[[Point], bool] = lambda point: True,
    ) -> None:
        self.study, self.folder, self.run_sweep, self.recorded, self.accepts = study, folder, run_sweep, recorded, accepts
        self.used: set[str] = set()
        self.stage = ""
        self.family: Sequence[str] = ()
        self._left_out: set[tuple[str, str]] = set()

    def run(
        self,
        name: str,
        points: Sequence[Point],
        seeds: Sequence[int],
        options: Mapping[str, Any] | None = None,
        family: Sequence[str] = (),
    ) -> dict[Point, Runs]:
        """Run every point with every seed, but for a round that is complete; give the finished runs.

        Args:
            name: name of the round.
            points: its points.
            seeds: its seeds.
            options: replace options of the study.
            family: all candidates that are confirmed, where verdicts rest on its runs.

        Raises:
            Unfinished: not all runs have finished.
        """
        folder, self.stage, self.family = self.folder / name, _stage(name), family
        content = self.sweep(folder, points, seeds, options or {})
        if (folder / "sweep.yaml").exists() and _read(folder / "sweep.yaml") != content:
            raise ValueError(
                f"{folder} holds a round of other runs, as results before it, or semconv, have changed: give another --output, and "
                f"--resume --table {self.folder / 'results.csv'} to keep the runs"
            )
        found = self._found(name, points, seeds)
        if any(set(seeds) - set(runs) for runs in found.values()):
            done = [
                {"config": config_of(self.study, point, self.folder), "seed_everything": seed}
                for point, runs in found.items()
                for seed in runs
            ]
            code = self.run_sweep(Sweep(f"{self.study.name}-{name}", content), folder, done)
            found = self._found(name, points, seeds)
            missing = [point.arm for point, runs in found.items() if set(seeds) - set(runs)]
            if missing and not code:
                raise ValueError(self._lacks(folder, missing[0], {run.folder for runs in found.values() for run in runs.values()}))
            if missing:
                raise Unfinished(code)
        self.used |= {run.folder for runs in found.values() for run in runs.values()}
        return found

    def finished(self, name: str) -> dict[Point, Runs]:
        """The finished runs of a round in its folder."""
        folder = self.folder / name
        return by_point(self.study, self._runs(folder)) if folder.is_dir() else {}

    def of_other_code(self) -> list[str]:
        """The rounds, in their order, with runs that were trained by other code than that of now."""
        now, found = code_of(PACKAGE), []
        for sweep in sorted(self.folder.glob("*/sweep.yaml"), key=lambda path: path.stat().st_mtime):
            environments = sweep.parent.glob("*/*/environment.json")
            sessions = [RunFolder(path.parent).environment.get("sessions") or [{}] for path in environments]
            if any(session.get("code", now) != now for each in sessions for session in each):
                found.append(sweep.parent.name)
        return found

    def _found(self, name: str, points: Sequence[Point], seeds: Sequence[int]) -> dict[Point, Runs]:
        """The finished runs of each point, by seed: those of the table, and those of the folder."""
        stage, fraction = _stage(name), points[0].fraction
        rows = [run for row, run in self.recorded if (row["stage"], row["fraction"]) == (stage, fraction)]
        found: dict[Point, Runs] = {point: {} for point in points}
        for each in (by_point(self.study, rows), self.finished(name)):
            for known, runs in each.items():
                for point in points:
                    if known.arm == point.arm and point.value in (None, known.value):
                        found[point] |= {seed: runs[seed] for seed in seeds if seed in runs}
        return found

    def _runs(self, folder: Path) -> list[FinishedRun]:
        """The finished runs in a folder; one that is left out is named once, however often the folder is read."""

        def name(run: str, reason: str) -> None:
            if (run, reason) not in self._left_out:
                self._left_out.add((run, reason))
                leave_out(run, reason)

        return find_runs([str(folder)], name).runs

    def _lacks(self, folder: Path, arm: Arm, known: Collection[str]) -> str:
        """What to say when all runs of a round have finished, and one of an arm is not among the `known` ones."""
        others = [run for run in self._runs(folder) if run.folder not in known]
        if not others:
            return (
                f"a run of {arm.label} in {folder} has finished, and is deleted or damaged: restore it, or give another --output, "
                f"and --resume --table {self.folder / 'results.csv'} to keep the others"
            )
        runs = [run for run in others if run.summary["experiment"] == arm.variant]
        controls = {str(run.summary["control"]) for run in runs if run.summary.get("control")} if not arm.control else set()
        why = (
            f"one of its files makes it a control ({', '.join(sorted(controls))}), which is no baseline, candidate or reference"
            if controls
            else "one of its files sets what its setting sets, or the setting sets more than the protocol and the decoder"
        )
        return f"all runs of {folder} are finished, and none counts as {arm.label}: {why}"

    def sweep(self, folder: Path, points: Sequence[Point], seeds: Sequence[int], options: Mapping[str, Any]) -> dict[str, Any]:
        """The sweep of a round in its folder."""
        study, names = self.study, self.family or [point.arm.variant for point in points]
        given = {**study.options, **options, "runs": folder.as_posix()}
        if any(point.fraction > 1 for point in points):  # their own files have a share of it, and an option would win
            given = {key: value for key, value in given.items() if key not in study.budget}
        content = {
            "description": description(study, names, confirms=bool(self.family)),
            "program": "semconv",
            "command": ["${env}", "semconv", "run", *(word for file in study.protocol for word in ("-c", file)), "${args}"],
            "method": "grid",
            "parameters": {
                "config": {"values": [config_of(study, point, self.folder) for point in points]},
                "seed_everything": {"values": list(seeds)},
                **{key: {"value": value} for key, value in given.items()},
            },
        }
        if problem := sweep_problem(content):
            raise ValueError(problem)
        return content


def _stage(name: str) -> str:
    """The stage that a round belongs to, by the round's name."""
    return name.partition("-")[0]


def description(study: Study, names: Sequence[str], confirms: bool) -> str:
    """The description of a sweep of some networks, with the lines that `semconv compare` reads."""
    family, looks = [name for name in study.family if name in names], study.confirm.looks
    lines = [
        (study.content.get("description") or "A study.").strip(),
        *([f"family: {' '.join(family)}"] if family else []),
        *([f"factors: {' '.join(study.varied)}"] if study.varied else []),
        *([f"tuned: {bare(study.tune.key)}"] if study.tune else []),
        f"negligible: {study.negligible:g}",
        *([f"looks: {' '.join(map(str, looks.seeds))}", f"spending: {looks.spending}"] if confirms else []),
        *([f"endpoints: {' '.join(study.endpoints)}"] if confirms else []),
    ]
    return "\n".join(lines) + "\n"


def check_folder(study: Study, folder: Path, resume: bool) -> None:
    """Refuse the folder of something else.

    Raises:
        ValueError: the folder holds another study, or this one and `resume` is False.
    """
    copy = folder / "study.yaml"
    if copy.exists() and _read(copy) != study.content:
        raise ValueError(f"{folder} holds another study, or this one before it was changed: give another --output")
    if copy.exists() and not resume and has_begun(folder):
        raise ValueError(f"{folder} holds this study already: continue it by --resume, or give another --output")


def has_begun(folder: Path) -> bool:
    """True if the folder of a study has rounds beyond those that measure."""
    return any(not path.parent.name.startswith(MEASURE) for path in folder.glob("*/sweep.yaml"))


def keep_study(study: Study, folder: Path) -> None:
    """Keep the content of a study in its folder."""
    if not (folder / "study.yaml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "study.yaml", to_yaml(dict(study.content)))


def _read(path: Path) -> Any:
    try:
        return read_yaml(path)
    except ValueError as error:
        raise ValueError(f"{error}: delete it, and --resume writes it anew") from error
