"""Sweep files in W&B's schema, read and validated."""

import hashlib
import itertools
import json
import os
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semconv.configuration import is_number, nearest
from semconv.metrics import METRICS, find
from semconv.sweeping.distributions import SHARES, all_values, grid_size, grid_values, problem, quantile
from semconv.sweeping.hyperband import brackets
from semconv.sweeping.macros import DEFAULT, MACROS, expand, own_command
from semconv.yaml_files import read_yaml

METHODS = ("grid", "random", "bayes")
KEYS = (
    *("method", "parameters", "metric", "early_terminate", "run_cap", "command", "program", "name", "description"),
    *("project", "entity", "kind", "apiVersion", "controller"),
)
OF_SERVER = ("scheduler", "metrics", "job", "image_uri")  # other searches, and W&B Launch
MOST = 100_000  # points of a grid
# the value that a bayes search takes for a trial that has none; W&B's default, which comes first, is semconv's only way
IMPUTED = {"impute": ("worst", "best", "latest"), "impute_while_running": ("false", "worst", "best", "latest")}
METRIC_KEYS = ("name", "goal", "target", *IMPUTED)
BAND_KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")
GOALS = {"lower": "minimize", "higher": "maximize"}
ON_TEST_IMAGES = {metric.key.partition("/")[0] for metric in METRICS if metric.split == "test"}


@dataclass(frozen=True)
class Sweep:
    """A sweep, as its file describes it.

    Args:
        name: name of the file, without its suffix.
        content: content of the file.
    """

    name: str
    content: Mapping[str, Any]

    @property
    def method(self) -> str:
        return self.content["method"]

    @cached_property
    def parameters(self) -> dict[str, Mapping[str, Any]]:
        """Parameters by dotted key, sorted, so that `config` comes before the options of the classes that it chooses."""
        return dict(sorted(self.content["parameters"].items()))

    @property
    def metric(self) -> str | None:
        return (self.content.get("metric") or {}).get("name")

    @property
    def doubt(self) -> str:
        """A warning about a metric that semconv itself never records; empty where there is none."""
        if self.metric is None or find(self.metric):
            return ""
        similar = nearest(self.metric, [known.key for known in METRICS if known.split != "test"])
        return f"no run of semconv records {self.metric}" + (f": did you mean {similar}?" if similar else "")

    @property
    def maximise(self) -> bool:
        return (self.content.get("metric") or {}).get("goal") == "maximize"

    @property
    def target(self) -> float | None:
        return (self.content.get("metric") or {}).get("target")

    @property
    def early_terminate(self) -> Mapping[str, Any] | None:
        return self.content.get("early_terminate")

    @property
    def run_cap(self) -> int | None:
        return self.content.get("run_cap")

    @property
    def total(self) -> int | None:
        """The number of trials, where the file bounds it."""
        bounds = [bound for bound in (len(self.grid), self.run_cap) if bound]
        return min(bounds, default=None)

    @property
    def command(self) -> list[Any]:
        return list(self.content.get("command") or DEFAULT)

    @property
    def program(self) -> str:
        return self.content.get("program") or ""

    @cached_property
    def grid(self) -> list[dict[str, Any]]:
        """All points of a grid, each once, where the last key's values vary fastest; empty for other methods."""
        if self.method != "grid":
            return []
        values = {name: grid_values(spec) or [] for name, spec in self.parameters.items()}
        points = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
        return list({json.dumps(point, default=str): point for point in points}.values())

    def draw(self, number: int) -> dict[str, Any]:
        """The point of a trial of a random search: a function of the file's parameters and the trial's number only."""
        return {name: quantile(spec)(self.share(number, name)) for name, spec in self.parameters.items()}

    def share(self, number: int, name: str) -> float:
        """The share, in (0, 1), at which a random trial evaluates a parameter's quantile function."""
        return random.Random(f"{self.key}/{number}/{name}").uniform(*SHARES)

    def seed(self, number: int) -> int:
        """The random seed of a trial."""
        return random.Random(f"{self.key}/{number}").randrange(2**32)

    @cached_property
    def key(self) -> str:
        """A hash of the parameters."""
        return hashlib.sha256(json.dumps(self.parameters, sort_keys=True, default=str).encode()).hexdigest()

    def varied(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a point that differs between trials."""
        return {name: value for name, value in point.items() if "value" not in self.parameters.get(name, {"value": None})}


def own_folder(place: Path, name: str, content: Mapping[str, Any], resume: bool = True, copy: str = "sweep.yaml") -> Path:
    """The folder of a sweep or a study below a place: the one that holds it, else that of its name, numbered if that is taken.

    Args:
        place: folder of all of them.
        name: its name.
        content: its content, as the folder keeps it.
        resume: it is there already; where it is not, the folder of its name is given, whatever that holds.
        copy: name of the file that keeps the content.
    """
    found = (re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name) for path in place.glob("*"))
    for number in sorted({1, *(int(match[1]) for match in found if match)}):  # those in between may have been deleted
        if _kept(_numbered(place, name, number) / copy) == content:
            return _numbered(place, name, number)
    if resume:
        return place / name
    return next(folder for number in itertools.count(1) if not ((folder := _numbered(place, name, number)) / copy).exists())


def _numbered(place: Path, name: str, number: int) -> Path:
    return place / (name if number == 1 else f"{name}-{number}")


def _kept(copy: Path) -> Any:
    """The content of a folder's copy; None where there is none, or it is damaged, so nobody's."""
    try:
        return read_yaml(copy) if copy.exists() else None
    except ValueError:
        return None


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        ValueError: the file is missing, or W&B, or the command line that it starts, would not accept it.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError as error:
        raise ValueError(f"there is no sweep file {path}: give one such as sweeps/quickstart.yaml") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no sweep: a sweep has keys such as method and parameters")
    if (found := sweep_problem(content)) is not None:
        raise ValueError(f"{path}: {found}")
    return Sweep(path.stem, content)


def sweep_problem(content: Mapping[str, Any]) -> str | None:
    """The error in a sweep; None if there is none."""
    for key in content:
        if key in OF_SERVER:
            return f"{key} is for W&B's server, which alone can run it: start this sweep by wandb sweep, or leave it out"
        if key not in KEYS:
            similar = nearest(str(key), list(KEYS))
            return f"W&B has no key {key}" + (f": did you mean {similar}?" if similar else f": its keys are {', '.join(KEYS)}")
    if content.get("method") not in METHODS:
        return f"method is {content.get('method')}: give one of {', '.join(METHODS)}"
    if not isinstance(content.get("parameters"), dict) or not content["parameters"]:
        return "it has no parameters: give some, such as seed_everything: {values: [0, 1, 2]}"
    for name, spec in content["parameters"].items():
        if not isinstance(name, str):
            return f"{name} among the parameters is no text: write the name of an option, in quotes where YAML reads it otherwise"
        if (found := _parameter_problem(name, spec)) is not None:
            return f"{name}: {found}"
    if not isinstance(content.get("program") or "", str):
        return f"program is {content['program']}: give the name of a program, such as semconv"
    cap = content.get("run_cap", 1)
    if not isinstance(cap, int) or isinstance(cap, bool) or cap < 1:
        return f"run_cap is {cap}: give a whole number of runs"
    return _command_problem(content) or _metric_problem(content) or _method_problem(content) or _bands_problem(content)


def _command_problem(content: Mapping[str, Any]) -> str | None:
    command = content.get("command") or list(DEFAULT)
    if not isinstance(command, list) or not all(isinstance(word, str | int | float) for word in command):
        return "command is not a list of words"
    if not own_command(expand(command, "", {}, Path(os.devnull))):
        return None  # another program may read its parameters from W&B
    if not any(macro in command for macro in MACROS):
        return "command has no ${args}, so that no parameter reaches a run: add it"
    for name, spec in content["parameters"].items():
        if "${args_no_boolean_flags}" in command and any(isinstance(value, bool) for value in all_values(spec)):
            return f"{name}: ${{args_no_boolean_flags}} leaves out false, and gives true no value: give ${{args}} in command"
    return None


def _parameter_problem(name: str, spec: Any) -> str | None:
    if not isinstance(spec, dict):
        return f"give value: {spec}, or values: [...]"
    if "parameters" in spec:
        nested = spec["parameters"]
        if not isinstance(nested, dict) or not nested:
            return f"parameters is {nested}: give value, or values: [...]"
        return f"nested parameters hide a run's configuration in W&B: write the dotted key, {name}.{next(iter(nested))}"
    for value in all_values(spec) if isinstance(spec.get("values", []), list) else ():
        if value is None:
            return "W&B passes null as the text None: leave the key out, or set it in a configuration file"
        if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(part, dict) for part in value)):
            return f"{value} reaches the command line in Python's notation: write it as text, in quotes"
    return problem(spec)


def _metric_problem(content: Mapping[str, Any]) -> str | None:
    metric = content.get("metric")
    if metric is None:
        return None
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        return "metric has no name: give one such as val/masked_mse"
    if unknown := [key for key in metric if key not in METRIC_KEYS]:
        return f"metric has no {unknown[0]}: it takes {', '.join(METRIC_KEYS)}"
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        return f"metric.goal is {metric['goal']}: give minimize or maximize"
    target = metric.get("target", 0.0)
    if not is_number(target):
        return f"metric.target is {target}: give a number, or leave it out"
    for key, values in IMPUTED.items():
        if (value := metric.get(key, values[0])) not in values:
            return f"metric.{key} is {value!r}: give one of {', '.join(map(repr, values))}"
        if content["method"] == "bayes" and value != values[0]:
            return f"metric.{key} is {value}, which W&B's server alone can do: start this sweep by wandb sweep, or leave {key} out"
    if metric["name"].partition("/")[0] in ON_TEST_IMAGES:
        return f"{metric['name']} is measured on test images, which would then choose the runs that they judge: give one of val/*"
    known, goal = find(metric["name"]), metric.get("goal", "minimize")
    if known and known.direction and goal != GOALS[known.direction]:
        return f"metric.goal is {goal}, and {known.key} is better when {known.direction}: give goal: {GOALS[known.direction]}"
    return None


def _method_problem(content: Mapping[str, Any]) -> str | None:
    if content["method"] == "bayes" and content.get("metric") is None:
        return "bayes needs a metric: give metric: {name: val/masked_mse, goal: minimize}"
    if content["method"] == "grid":
        points = 1
        for name, spec in content["parameters"].items():
            size = grid_size(spec)
            if size is None:
                return f"{name}: a grid takes values, or whole numbers from min to max: give values, or method: random"
            points *= size
        if points > MOST:
            return f"the grid has {points:,} points, more than {MOST:,}: give fewer values, or method: random with a run_cap"
    return None


def _bands_problem(content: Mapping[str, Any]) -> str | None:
    given = content.get("early_terminate")
    if given is None:
        return None
    if not isinstance(given, dict) or given.get("type") != "hyperband":
        return "early_terminate.type must be hyperband"
    if unknown := [key for key in given if key not in BAND_KEYS]:
        return f"early_terminate has no {unknown[0]}: it takes {', '.join(BAND_KEYS)}"
    if content.get("metric") is None:
        return "early_terminate needs a metric: give metric: {name: val/masked_mse, goal: minimize}"
    numbers = {key: value for key, value in given.items() if key not in ("type", "strict")}
    for key, value in numbers.items():
        if not is_number(value):
            return f"early_terminate.{key} is {value!r}: give a number"
    if given.get("eta", 3) <= 1:
        return f"early_terminate.eta is {given['eta']}: give a number above 1"
    if not isinstance(given.get("strict", False), bool):
        return f"early_terminate.strict is {given['strict']!r}: give true or false"
    try:
        brackets(given)
    except ValueError as error:
        return str(error)
    return None
