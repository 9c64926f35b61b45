"""The results of a study: its report, and its runs as a table."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from semconv.comparison.declared import declared_by
from semconv.comparison.recorded import CONTINUED, STAGES, Row, load, row_of, save
from semconv.comparison.report import plots
from semconv.comparison.report.sections import Figure, Section
from semconv.comparison.run import FinishedRun
from semconv.comparison.tables import Sheet
from semconv.configuration import bare
from semconv.metrics import find
from semconv.study.arms import Arm, shown
from semconv.study.continuation import same_run
from semconv.study.file import Study, rungs
from semconv.study.rounds import MEASURE, Rounds, description
from semconv.study.stages import Screened, Tuned, screened_by
from semconv.yaml_files import read_yaml


def save_runs(rounds: Rounds, path: Path, is_over: bool = False) -> int:
    """Write all finished runs of a study, and those of the table that it continues, as a table.

    Args:
        rounds: the study's rounds.
        path: the table.
        is_over: rows that no round has asked for are left out; else only those of stages that are over, as others may still be
            asked for.

    Returns:
        the number of rows that were left out.
    """
    study = rounds.study
    confirms = rounds.stage == STAGES[-1]
    found = {
        same_run(row): (row, run)
        for row, run in rounds.recorded
        if run.folder in rounds.used or not (is_over or (confirms and row["stage"] != rounds.stage))
    }
    found |= _own(rounds)
    if found:
        rows = sorted(found.values(), key=lambda each: STAGES.index(each[0]["stage"]))
        save(path, rows, study.tune.key if study.tune else None, description(study, _family(rounds), confirms=True))
    return sum(same_run(row) not in found for row, _ in rounds.recorded)


def keep_recorded(rounds: Rounds) -> None:
    """Keep, in the study's folder, the rows of its table whose runs are not there, so that the table need not be given again."""
    study, own = rounds.study, _own(rounds)
    rounds.recorded = [(row, run) for row, run in rounds.recorded if same_run(row) not in own]
    if rounds.recorded:
        tuned = study.tune.key if study.tune else None
        save(rounds.folder / CONTINUED, rounds.recorded, tuned, description(study, _family(rounds), confirms=True))


def _family(rounds: Rounds) -> Sequence[str]:
    """The candidates that are confirmed: those of the round at hand, of an earlier confirmation, or of the table that is continued;
    all before there is one."""
    confirmed = sorted(rounds.folder.glob(f"{STAGES[-1]}-*/sweep.yaml"))
    tables = [run.folder.rpartition(":")[0] for row, run in rounds.recorded if row["stage"] == STAGES[-1]]
    if rounds.family:
        return rounds.family
    if confirmed:
        return declared_by(read_yaml(confirmed[0])).family
    return load(Path(tables[0])).declared.family if tables else list(rounds.study.family)


def _own(rounds: Rounds) -> dict[tuple[Any, ...], tuple[Row, FinishedRun]]:
    """The finished runs in the study's folder, by what makes them the same."""
    study = rounds.study
    found: dict[tuple[Any, ...], tuple[Row, FinishedRun]] = {}
    fractions = [rung.fraction for rung in rungs(study)] if study.tune else []
    for folder in sorted(rounds.folder.glob("*/sweep.yaml"), key=lambda path: path.stat().st_mtime):
        name = folder.parent.name
        stage = name.partition("-")[0]
        if stage == MEASURE:
            continue
        rung = re.fullmatch(r"tune(?:-wide)?-(\d+)", name)
        fraction = fractions[int(rung[1]) - 1] if rung else 1
        for point, runs in rounds.finished(name).items():
            value = point.value if study.tune else None
            rows = [(row_of(run, stage, point.arm.setting, value, fraction), run) for _, run in sorted(runs.items())]
            found |= {same_run(row): (row, run) for row, run in rows}
    return found


def tuning_sheet(study: Study, tuned: Mapping[Arm, Tuned]) -> Sheet:
    """Each arm's chosen value, and the metric by value."""
    assert study.tune is not None
    values = sorted({value for each in tuned.values() for value in each.curve})
    columns = [
        "network",
        *_setting(study, "setting"),
        bare(study.tune.key),
        *(f"{value:g}" for value in values),
    ]
    rows = []
    for arm, each in tuned.items():
        means = {value: sum(by_seed.values()) / len(by_seed) for value, by_seed in each.curve.items()}
        cells = [f"{means[value]:.4f}" if value in means else "" for value in values]
        name = arm._replace(setting="").label
        chosen = f"{each.value:g}{' (edge)' if each.at_edge else ''}"
        rows.append([name, *_setting(study, arm.setting), chosen, *cells])
    n = len(study.tune.seeds)
    return Sheet(f"Chosen values: mean {study.tune.metric} by value, n = {n}", columns, rows)


def screening_sheet(study: Study, screened: Mapping[Arm, Screened]) -> Sheet:
    """The gain of each candidate over plain in the screening."""
    rows = []
    for arm, each in screened.items():
        found = each.against_plain
        interval = "" if found.low is None or found.high is None else f"{found.low:+.4f} to {found.high:+.4f}"
        cells = [str(found.n), f"{found.difference:+.4f}", interval, "yes" if each.kept else "no"]
        rows.append([arm._replace(setting="").label, *_setting(study, arm.setting), *cells])
    head = [
        "candidate",
        *_setting(study, "setting"),
        "n",
        "better than plain by",
        "95 % interval",
        "kept",
    ]
    return Sheet(f"Screening on {screened_by(study)}", head, rows)


def sections(study: Study, tuned: Mapping[Arm, Tuned], screened: Mapping[Arm, Screened]) -> list[Section]:
    """The sections that a study adds to the report of its confirmation."""
    made = []
    if study.tune:
        metric = find(study.tune.metric)
        figures: list[Figure] = []
        legend: list[tuple[Markup, str]] = []
        for setting in study.settings:
            here = {arm: each for arm, each in tuned.items() if arm.setting == setting}
            lines = [line for number, (arm, each) in enumerate(here.items()) if (line := _line(arm, each, number)).x]
            title = f"{study.tune.metric} by {bare(study.tune.key)}{shown(setting)}"
            axis = metric.axis if metric else study.tune.metric
            figures.append(Figure(plots.lines(title, lines, bare(study.tune.key), axis, log=True), title, wide=True))
            legend += [(plots.swatch(line.series), line.name) for line in lines if line.name not in {name for _, name in legend}]
        text = (
            "Every network has the same search, on validation images and on seeds that nothing else uses. Controls take the value "
            "of their variant. A best value at the edge of the grid extends the grid; the table says where it is still at the edge."
        )
        made.append(Section("tuning", "Tuning", text, figures=figures, sheets=[tuning_sheet(study, tuned)], legend=legend))
    if study.screen:
        text = f"The {study.screen.keep} candidates of the largest mean gains go on, without those whose interval lies below zero."
        made.append(Section("screening", "Screening", text, sheets=[screening_sheet(study, screened)]))
    return made


def _setting(study: Study, cell: str) -> list[str]:
    """A cell of the column of settings, which a table of one setting does not have."""
    return [cell] if len(study.settings) > 1 else []


def _line(arm: Arm, tuned: Tuned, number: int) -> plots.Line:
    """The metric by value, without values at which a run has diverged."""
    found = {value: list(each.values()) for value, each in sorted(tuned.curve.items())}
    finite = {value: each for value, each in found.items() if all(map(math.isfinite, each))}
    means = [sum(each) / len(each) for each in finite.values()]
    low, high = ([choose(each) for each in finite.values()] for choose in (min, max))
    return plots.Line(arm._replace(setting="").label, number, list(finite), means, low, high)
