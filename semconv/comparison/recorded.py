"""Runs as a table that is small enough to be committed: one CSV row per run, and a YAML file with what many rows share.

A comparison of the table is the same as that of the run folders, which are no longer needed for it.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semconv.comparison.declared import declared_by
from semconv.comparison.run import FinishedRun, Found, started_at
from semconv.configuration import BUDGET, one_line
from semconv.files import write_text
from semconv.metrics import MASKED_MSE, METRICS, NUM_TEST_IMAGES, find, parts
from semconv.tracking.folder import RunFolder
from semconv.yaml_files import read_yaml, to_yaml

STAGES = ("tune", "screen", "confirm")
IDENTITY = (
    *("stage", "setting", "variant", "control", "seed", "value", "fraction", "status"),
    *("protocol", "network", "environment", "started", "commit", "code"),
)
COUNTS = ("trainer/global_step", "trainer/seconds", NUM_TEST_IMAGES)  # beside the metrics
KEPT = ("description", "tuned", "protocols", "networks", "environments")  # in the YAML file
CONTINUED = "continued.csv"  # the table that a study continues, in the study's folder
UNKNOWN = "unknown"  # code of a run whose environment was not recorded
INTEGER = re.compile(r"-?\d+")
MACHINE = ("versions", "platform", "processor", "cpu_count", "device", "num_threads", "cpu_capability")  # of an environment
SHARED = ("experiment", "control", "variant", "controls", "conveys")  # of a network, whatever its seed
# what a run is: the columns of IDENTITY but for the numbers of its protocol and its network; `environment` is what it says
Row = dict[str, Any]


def row_of(run: FinishedRun, stage: str, setting: str, value: float | None, fraction: int) -> Row:
    """What a run is, as its table says it."""
    sessions: list[dict[str, Any]] = RunFolder(run.folder).environment.get("sessions") or [{}]
    session, summary = sessions[-1], run.summary
    return {
        "stage": stage,
        "setting": setting,
        "variant": summary["experiment"],
        "control": summary.get("control"),
        "seed": summary["seed"],
        "value": value,
        "fraction": fraction,
        "status": summary["status"],
        "started": summary.get("started"),
        "environment": {key: session.get(key) for key in MACHINE},
        "commit": session.get("git_commit"),
        "code": "+".join(dict.fromkeys(str(each.get("code") or UNKNOWN) for each in sessions)),
    }


def save(path: Path, rows: Sequence[tuple[Row, FinishedRun]], tuned: str | None, description: str) -> None:
    """Write runs as a table.

    Args:
        path: the CSV file; a YAML file of the same name is written beside it.
        rows: for each run what `row_of` gives, and the run.
        tuned: dotted key of the values in the column `value`.
        description: of a sweep of these runs, with its declarations.
    """
    networks: list[Any] = []
    protocols: list[Any] = []
    environments: list[Any] = []
    measured = {key for _, run in rows for key, value in run.summary.items() if isinstance(value, int | float)}
    columns = [key for key in COUNTS if key in measured]
    columns += [key for metric in METRICS for key in sorted(parts(metric, measured).values()) if not key.startswith("trainer/")]
    columns = list(dict.fromkeys(columns))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*IDENTITY, *columns], lineterminator="\n")
    writer.writeheader()
    for row, run in rows:
        network = {key: run.summary[key] for key in SHARED if key in run.summary}
        protocol = json.loads(json.dumps(run.summary["protocol"]))
        if tuned is not None and row["value"] is not None:
            _put(protocol, tuned, None)
        numbers = {
            "network": _number(network, networks),
            "protocol": _number(protocol, protocols),
            "environment": _number(row["environment"], environments),
        }
        writer.writerow({**row, **numbers, **{key: run.summary.get(key) for key in columns}})
    lists = {"protocols": protocols, "networks": networks, "environments": environments}
    shared = {"description": description, "tuned": tuned, **lists}
    write_text(path, text.getvalue())
    write_text(path.with_suffix(".yaml"), to_yaml(shared))


def load(path: Path, stage: str | None = None) -> Found:
    """Read the runs of one stage of a table; None: of the confirmation.

    Raises:
        ValueError: it is no such table, or has no such stage.
    """
    rows, shared = _read(path)
    stage = stage or STAGES[-1]
    found = [known for known in STAGES if any(row["stage"] == known for row in rows)]
    if stage not in found:
        raise ValueError(f"{path} has no runs of {stage}: give {' or '.join(f'{path}:{known}' for known in found)}")
    runs = [_run(path, number, row, shared)[1] for number, row in enumerate(rows, 2) if row["stage"] == stage]
    declared = declared_by({"description": shared["description"]})
    if stage == "tune":  # each network at several values, and perhaps at parts of the budget
        declared = declared._replace(factors=(*declared.factors, *declared.tuned, *BUDGET), tuned=(), endpoints=())
    # the declared family is that of the confirmation, which other stages have chosen
    return Found(runs, declared if stage == "confirm" else declared._replace(looks=None, family=()))


def load_rows(path: Path) -> list[tuple[Row, FinishedRun]]:
    """Read all rows of a table, each with its run, as `save` takes them.

    Raises:
        ValueError: it is no such table.
    """
    rows, shared = _read(path)
    return [_run(path, number, row, shared) for number, row in enumerate(rows, 2)]


def _read(path: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    if path.suffix != ".csv":
        raise ValueError(f"{path} is no table of runs: give the CSV file of two, such as results.csv and results.yaml")
    for file in (path, path.with_suffix(".yaml")):
        if not file.is_file():
            raise ValueError(f"there is no {file}: a table of runs is two files, such as results.csv and results.yaml")
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        rows, columns = list(reader), reader.fieldnames or []
        shared = read_yaml(path.with_suffix(".yaml"))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} and {path.with_suffix('.yaml')} cannot be read as a table of runs: {one_line(error)}") from error
    if not rows or not set(IDENTITY) <= set(rows[0]) or not isinstance(shared, dict) or not set(KEPT) <= set(shared):
        raise ValueError(f"{path} and {path.with_suffix('.yaml')} are no table of runs as semconv study writes it")
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise ValueError(f"{path} has two columns {twice[0]}: take one out, or restore the file")
    if wrong := [number for number, row in enumerate(rows, 2) if None in row or None in row.values() or row["stage"] not in STAGES]:
        raise ValueError(f"{path}, line {wrong[0]}: it is no whole row of {', '.join(STAGES)}: restore the file")
    return rows, shared


def _run(path: Path, line: int, row: Mapping[str, str], shared: Mapping[str, Any]) -> tuple[Row, FinishedRun]:
    try:
        protocol = json.loads(json.dumps(dict(enumerate(shared["protocols"]))[int(row["protocol"])]))
        network = dict(enumerate(shared["networks"]))[int(row["network"])]
        environment = dict(enumerate(shared["environments"]))[int(row["environment"])]
        numbers = {"seed": int(row["seed"]), "fraction": int(row["fraction"])}
        value = _parsed(row["value"]) if row["value"] else None
        if value is not None:
            _put(protocol, shared["tuned"], value)
        metrics = {
            key: _parsed(text) for key, text in row.items() if text and (key in COUNTS or (key not in IDENTITY and find(key)))
        }
        summary = {**network, "seed": numbers["seed"], "status": row["status"], "protocol": protocol}
        summary |= {"environment": environment, "commit": row["commit"], **metrics}
        fits = (network["experiment"], network.get("control") or "") == (row["variant"], row["control"])
        fits = (
            fits and numbers["fraction"] > 0 and isinstance(network["variant"]["encoder"], dict) and isinstance(environment, dict)
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}, line {line}: it does not fit {path.with_suffix('.yaml')}: restore both files") from error
    if not fits:
        raise ValueError(f"{path}, line {line}: it does not fit {path.with_suffix('.yaml')}: restore both files")
    if row["status"] != "diverged" and (row["status"] != "finished" or not {"trainer/global_step", MASKED_MSE} <= set(metrics)):
        raise ValueError(f"{path}, line {line}: it is no finished run: its status is {row['status']!r}, or it lacks {MASKED_MSE}")
    identity: Row = {key: row[key] or None for key in IDENTITY if key not in ("protocol", "network")}
    identity |= {**numbers, "setting": row["setting"], "value": value, "environment": environment}
    return identity, FinishedRun(f"{path}:{line}", summary, started_at(row["started"]) or float(line))


def _put(protocol: dict[str, Any], key: str, value: Any) -> None:
    """Set a value of a protocol by its dotted key in a configuration."""
    *above, last = key.replace(".init_args", "", 1).split(".")
    for name in above:
        protocol = protocol[name]
    protocol[last] = value


def _parsed(text: str) -> float:
    """A number, whole where it is written so: a key of whole numbers takes no other."""
    return int(text) if INTEGER.fullmatch(text) else float(text)


def _number(value: Any, known: list[Any]) -> int:
    if value not in known:
        known.append(value)
    return known.index(value)
