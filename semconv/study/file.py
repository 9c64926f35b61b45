"""Study files, read and validated."""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from semconv import shipped
from semconv.comparison.declared import DECLARATIONS, MOST_LOOKED_AT, WIDE, Looks, control_file, declared_by
from semconv.configuration import BUDGET, bare, epochs_lifted, flatten, nearest, put
from semconv.metrics import PRIMARY, find
from semconv.yaml_files import read_yaml

KEYS = (
    *("description", "protocol", "options", "settings", "plain", "family", "references", "controls", "extra_controls"),
    *("endpoints", "negligible", "tune", "screen", "confirm"),
)
BASELINE = "cnn_plain"
LAST_SEED = 2**32 - 1
OWN_OPTIONS = ("config", "c", "seed_everything", "experiment", "runs", "resume", "ckpt_path")  # of a study
CONTROL_FILES = {name: f"experiments/{control_file(name)}.yaml" for name in (WIDE, "zero", "constant", "fixed", "shuffled")}
ONLY = ""  # name of the setting of a study that declares none
Files = tuple[str, ...]


@dataclass(frozen=True)
class Tune:
    """The search for the value of one key, the same for every network.

    Args:
        key: dotted key.
        values: the grid, rising.
        seeds: used by nothing else.
        metric: what is optimised, on validation images.
        extensions: number of times that a best value at the edge of the grid extends the grid.
        halving: successive halving: all values at a fraction of the budget, then the best 1 / halving of them at `halving` times as
            much, up to the whole budget; None: all values at the whole budget.
    """

    key: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    metric: str = "val/masked_mse"
    extensions: int = 3
    halving: int | None = None


@dataclass(frozen=True)
class Screen:
    """A first comparison with plain on few seeds.

    Args:
        seeds: used by nothing else.
        keep: number of candidates that go on, at most.
    """

    seeds: tuple[int, ...]
    keep: int


@dataclass(frozen=True)
class Confirm:
    """The comparison that verdicts rest on.

    Args:
        looks: numbers of seeds at which it looks at the results, and the spending of errors.
        first_seed: its seeds count up from this one.
    """

    looks: Looks
    first_seed: int

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.first_seed, self.first_seed + self.looks.seeds[-1]))


@dataclass(frozen=True)
class Study:
    """A study, as its file describes it.

    Args:
        name: name of the file, without its suffix.
        content: content of the file.
        protocol: configuration files that all runs share.
        options: further options of all runs by dotted key, such as the budget.
        settings: configuration files of each setting in which the question is asked, such as a fill.
        values: the values of each setting, by whole dotted key, that it gives beside its files.
        plain: configuration files of the baseline.
        family: configuration files of each candidate.
        references: configuration files of other networks, which are compared with plain.
        controls: configuration file of each kind of control.
        extra_controls: kinds of control of a candidate that are trained beside those that it has to beat.
        endpoints: metrics that candidates are judged by.
        negligible: share of the margin up to which a gain or loss is called negligible.
        tune: None: every network keeps the value of the protocol.
        screen: None: all candidates are confirmed.
        confirm: the confirmation.
    """

    name: str
    content: Mapping[str, Any]
    protocol: Files
    options: Mapping[str, Any]
    settings: Mapping[str, Files]
    values: Mapping[str, Mapping[str, Any]]
    plain: Files
    family: Mapping[str, Files]
    references: Mapping[str, Files]
    controls: Mapping[str, str]
    extra_controls: Mapping[str, tuple[str, ...]]
    endpoints: tuple[str, ...]
    negligible: float
    tune: Tune | None
    screen: Screen | None
    confirm: Confirm

    @cached_property
    def varied(self) -> list[str]:
        """The keys that settings set."""
        return sorted({key for values in self.factors.values() for key in values})

    @cached_property
    def budget(self) -> dict[str, int]:
        """The budget of a run: `trainer.max_steps`, `trainer.max_epochs`, or both."""
        levels = [*(_values((file,)) for file in self.protocol), self.options]
        given = {key: value for values in levels for key, value in values.items() if key in BUDGET}
        if epochs_lifted(levels):
            del given["trainer.max_epochs"]
        return {key: amount for key, value in given.items() if (amount := _amount(value)) > 0}

    @cached_property
    def factors(self) -> dict[str, dict[str, Any]]:
        """The values that settings give to the protocol and the decoder: by setting and bare dotted key."""
        return {
            name: {
                **_values(files),
                **{bare(key): None for key in self.values[name]},  # where it is null
                **{bare(key): value for key, value in flatten(nested(self.values[name])).items()},
            }
            for name, files in self.settings.items()
        }


def _amount(value: Any) -> int:
    """A budget as a number, which options may give as text; 0 where it is none."""
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return 0


class Rung(NamedTuple):
    """A round of a search.

    Args:
        fraction: divides the whole budget.
        values: number of values of each arm.
    """

    fraction: int
    values: int


def rungs(study: Study) -> list[Rung]:
    """The rounds of the search: (4, 5), (2, 3), (1, 2) where five values are halved; one without halving."""
    assert study.tune is not None
    halving, found = study.tune.halving, [Rung(1, len(study.tune.values))]
    while halving and found[-1].values > 2:
        found = [rung._replace(fraction=rung.fraction * halving) for rung in found]
        found.append(Rung(1, max(2, math.ceil(found[-1].values / halving))))
    return found


def read_study(path: Path) -> Study:
    """Read a study file.

    Raises:
        ValueError: the file is missing, or is no study.
    """
    if not path.is_file():
        raise ValueError(f"there is no study file {path}: give one such as sweeps/studies/demo.yaml")
    content = read_yaml(path)
    try:
        return _study(path.stem, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _study(name: str, content: Any) -> Study:
    if not isinstance(content, dict):
        raise ValueError("it holds no study: a study has keys such as protocol, family and confirm")
    _refuse_unknown(content, KEYS, "a study")
    for key in ("protocol", "plain", "family", "confirm"):
        if not content.get(key):
            raise ValueError(f"it has no {key}: see sweeps/studies/demo.yaml")
    settings, values = _settings(content.get("settings") or {ONLY: []})
    _refuse_declarations(content.get("description"))
    endpoints = tuple(_list(content.get("endpoints", [metric.key for metric in PRIMARY]), str, "endpoints"))
    if not endpoints or len(set(endpoints)) < len(endpoints):
        raise ValueError(f"endpoints are {list(endpoints)}: give at least one, and each once")
    for endpoint in endpoints:
        metric = find(endpoint)
        if metric is None or metric.direction is None:
            similar = nearest(endpoint, [known.key for known in PRIMARY])
            advice = f": did you mean {similar}?" if similar else "; semconv list metrics names them"
            raise ValueError(f"endpoints: {endpoint} is no metric of which higher or lower is better{advice}")
    extra = {
        candidate: tuple(_list(kinds, str, f"extra_controls.{candidate}"))
        for candidate, kinds in _mapping(content.get("extra_controls") or {}, "extra_controls").items()
    }
    extra_files = {kind: f"experiments/{control_file(kind)}.yaml" for kinds in extra.values() for kind in kinds}
    study = Study(
        name,
        content,
        _files(content["protocol"], "protocol"),
        _options(content.get("options") or {}, content.get("tune")),
        settings,
        values,
        _files(content["plain"], "plain"),
        _networks(content["family"], "family"),
        _networks(content.get("references") or {}, "references"),
        {**extra_files, **CONTROL_FILES, **_mapping(content.get("controls") or {}, "controls", str)},
        extra,
        endpoints,
        _share(content.get("negligible", 1.0)),
        _tune(content["tune"]) if content.get("tune") else None,
        _screen(content["screen"]) if content.get("screen") else None,
        _confirm(content["confirm"]),
    )
    _refuse_shared_seeds(study)
    _refuse_names(study)
    _refuse_settings(study)
    _refuse_extra_controls(study)
    _refuse_budget(study)
    return study


def _tune(given: Any) -> Tune:
    given = _mapping(given, "tune")
    _refuse_unknown(given, ("key", "values", "seeds", "metric", "extensions", "halving"), "tune")
    key, values = str(given.get("key", "")), _list(given.get("values"), (int, float), "tune.values")
    first, dot, rest = key.partition(".")
    if first in ("model", "data") and dot and ".init_args." not in key and "." not in rest:
        key = f"{first}.init_args.{rest}"  # of an argument of the task or of the data
    elif not dot or (first in ("model", "data") and ".init_args." not in key):
        raise ValueError(f"tune.key is {key!r}: give model.base_lr, or another whole dotted key with its init_args")
    if len(values) < 2 or sorted(set(values)) != values or not all(0 < value <= sys.float_info.max for value in values):
        raise ValueError(f"tune.values are {values}: give two or more rising numbers above 0")
    metric, halving = str(given.get("metric", Tune.metric)), given.get("halving")
    known = find(metric)
    if known is None or known.split != "validation" or known.direction is None:
        raise ValueError(f"tune.metric is {metric}: give a metric of validation images, such as val/masked_mse")
    if halving is not None and (not isinstance(halving, int) or halving < 2):
        raise ValueError(f"tune.halving is {halving}: give a whole number from 2 on")
    extensions = _whole(given.get("extensions", Tune.extensions), "tune.extensions", 0, 10)
    return Tune(key, tuple(values), _seeds(given.get("seeds"), "tune.seeds"), metric, extensions, halving)


def _screen(given: Any) -> Screen:
    given = _mapping(given, "screen")
    _refuse_unknown(given, ("seeds", "keep"), "screen")
    seeds = _seeds(given.get("seeds"), "screen.seeds")
    if len(seeds) < 2:
        raise ValueError(f"screen.seeds are {list(seeds)}: give at least two, as an interval needs")
    return Screen(seeds, _whole(given.get("keep"), "screen.keep", 1))


def _confirm(given: Any) -> Confirm:
    given = _mapping(given, "confirm")
    _refuse_unknown(given, ("looks", "first_seed", "spending"), "confirm")
    looks = _list(given.get("looks"), int, "confirm.looks")
    first_seed = _whole(given.get("first_seed"), "confirm.first_seed", 0, LAST_SEED - MOST_LOOKED_AT)
    return Confirm(Looks.of(looks, given.get("spending", "obrien_fleming")), first_seed)


def _refuse_shared_seeds(study: Study) -> None:
    used: dict[int, str] = {}
    for stage in ("tune", "screen", "confirm"):
        for seed in getattr(getattr(study, stage), "seeds", ()):
            if seed in used:
                raise ValueError(f"seed {seed} is used by {used[seed]} and by {stage}: give each stage seeds of its own")
            used[seed] = stage


def _refuse_names(study: Study) -> None:
    if both := [name for name in study.references if name in study.family]:
        raise ValueError(f"{both[0]} is in the family and among the references: give it one name and one place")
    names = [*study.family, *study.references, *(name for name in study.settings if name != ONLY)]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,99}", name, flags=re.ASCII) or name == BASELINE:
            raise ValueError(
                f"{name!r} is no name for a network or a setting: give letters, digits and . _ + -, and not {BASELINE}"
            )


def _refuse_settings(study: Study) -> None:
    """Refuse settings that a run could not be told by."""
    values = list(study.factors.values())
    keys = {key for each in values for key in each}
    if len(values) > 1 and any(set(each) != keys for each in values):
        raise ValueError(f"settings do not all set the same keys, {', '.join(sorted(keys))}: set each of them in every setting")
    tuned = [study.tune.key] if study.tune else []
    if twice := [key for key in (*tuned, *study.options) if bare(key) in keys]:
        raise ValueError(
            f"settings set {twice[0]}, and so {'does tune' if twice[0] in tuned else 'do the options'}: set it in one place"
        )
    if any(one == other for number, one in enumerate(values) for other in values[:number]):
        raise ValueError("two settings set the same values: take one out")


def _refuse_extra_controls(study: Study) -> None:
    """Refuse controls of what is no candidate, and those without a file."""
    for candidate, kinds in study.extra_controls.items():
        if candidate not in study.family:
            raise ValueError(f"extra_controls: {candidate} is not in the family, which has {', '.join(study.family)}")
        for kind in kinds:
            if not shipped.look(study.controls[kind], "experiments"):
                raise ValueError(f"extra_controls.{candidate}: there is no file {study.controls[kind]}: name one under controls")


def _refuse_budget(study: Study) -> None:
    """Refuse a budget that has too few steps or epochs for the first round of a search."""
    if study.tune and study.tune.halving and not study.budget:
        raise ValueError("tune.halving takes a part of the budget, and there is none: give trainer.max_steps or trainer.max_epochs")
    fraction = rungs(study)[0].fraction if study.tune else 1
    for key, amount in study.budget.items():
        if amount < fraction:
            raise ValueError(
                f"{key} is {amount}, and the first round of tune takes 1/{fraction} of it: give {fraction} or more, or "
                "trainer.max_epochs -1 and the budget in trainer.max_steps"
            )


def _refuse_declarations(description: Any) -> None:
    if description is not None and not isinstance(description, str):
        raise ValueError(f"description is {description!r}: give text")
    for line in (description or "").splitlines():
        if line.partition(":")[0] in DECLARATIONS and ":" in line:
            raise ValueError(
                f"a line of the description begins with {line.partition(':')[0]}:, which declares it: word it otherwise"
            )
    declared_by({"description": description})  # refuses what is nearly a declaration


def _options(given: Any, tune: Any) -> dict[str, Any]:
    options = _mapping(given, "options")
    tuned = bare(str(tune.get("key"))) if isinstance(tune, dict) else ""
    for key, value in options.items():
        if bare(key) in (*OWN_OPTIONS, tuned):
            raise ValueError(f"options: {key} is set by the study itself: take it out")
        if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
            options[key] = json.dumps(value)  # as on a command line
        elif not isinstance(value, str | int | float):
            raise ValueError(
                f"options.{key} is {value!r}: give a number, true, false, text or a list, and the rest in a file of protocol"
            )
    return options


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key as the content of a configuration file."""
    content: dict[str, Any] = {}
    for key, value in sorted(values.items()):  # a class before its arguments
        put(content, key, value)
    return content


def _settings(given: Any) -> tuple[dict[str, Files], dict[str, dict[str, Any]]]:
    """The files and the values of each setting."""
    files: dict[str, Files] = {}
    values: dict[str, dict[str, Any]] = {}
    for name, parts in _mapping(given, "settings").items():
        parts = parts if isinstance(parts, list) else [parts]
        files[name] = _files([part for part in parts if not isinstance(part, dict)], f"settings.{name}")
        values[name] = {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}
        if wrong := [key for key in values[name] if "." not in str(key) or ".init_args." not in str(key)]:
            raise ValueError(f"settings.{name} has {wrong[0]}: give a whole dotted key, such as model.init_args.padding_mode")
    return files, values


def _values(files: Files) -> dict[str, Any]:
    """The values by bare dotted key that configuration files set."""
    values: dict[str, Any] = {}
    for file in files:
        content = read_yaml(shipped.find(file, "experiments"))
        values |= {bare(key): value for key, value in flatten(content or {}).items()}
    return values


def _networks(given: Any, what: str) -> dict[str, Files]:
    return {name: _files(files, f"{what}.{name}") for name, files in _mapping(given, what).items()}


def _files(given: Any, what: str) -> Files:
    files = _list([given] if isinstance(given, str) else given, str, what)
    for file in files:
        try:
            shipped.find(file, "experiments")
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
        if "," in file:
            raise ValueError(f"{what}: {file} has a comma in its name, which would end it: rename the file")
    return tuple(files)


def _seeds(given: Any, what: str) -> tuple[int, ...]:
    seeds = _list(given, int, what)
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= LAST_SEED:
        raise ValueError(f"{what} are {seeds}: give different whole numbers from 0 to {LAST_SEED - 1}")
    return tuple(seeds)


def _mapping(given: Any, what: str, kind: type = object) -> dict[str, Any]:
    if not isinstance(given, dict) or not all(isinstance(key, str) and isinstance(value, kind) for key, value in given.items()):
        raise ValueError(f"{what} is {given!r}: give names with their values")
    return dict(given)


def _list(given: Any, kind: type | tuple[type, ...], what: str) -> list[Any]:
    if not isinstance(given, list) or not all(isinstance(value, kind) and not isinstance(value, bool) for value in given):
        raise ValueError(f"{what} is {given!r}: give a list, such as [a, b]")
    return given


def _whole(given: Any, what: str, least: int, most: int = 10_000) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= most:
        raise ValueError(f"{what} is {given!r}: give a whole number from {least} to {most}")
    return given


def _share(given: Any) -> float:
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 <= given <= 1:
        raise ValueError(f"negligible is {given!r}: give a share of the margin, from 0 to 1")
    return float(given)


def _refuse_unknown(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for key in given:
        if key not in known:
            similar = nearest(str(key), list(known))
            raise ValueError(f"{what} has no {key}: " + (f"did you mean {similar}?" if similar else f"it takes {', '.join(known)}"))
