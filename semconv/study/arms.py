"""Arms of a study: the networks that are trained, each in a setting, and their runs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from semconv.comparison.declared import WIDE
from semconv.comparison.run import FinishedRun
from semconv.configuration import bare, put
from semconv.files import write_text
from semconv.study.file import BASELINE, ONLY, Study, nested
from semconv.sweeping.points import NO_SETTING, OF_STUDY
from semconv.yaml_files import to_yaml


class Arm(NamedTuple):
    """A network in a setting.

    Args:
        setting: name of the setting.
        variant: its name in the family or among the references; `cnn_plain` is the baseline.
        control: kind of control of the variant that it is; empty: the variant itself.
    """

    setting: str
    variant: str
    control: str = ""

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.variant, self.control)))

    @property
    def label(self) -> str:
        return f"{self.name} ({self.setting})" if self.setting else self.name

    @property
    def tuned_as(self) -> "Arm":
        """The arm whose tuned value it takes: plain of equal compute has its own, a control that of its variant."""
        return self if self.control in ("", WIDE) else self._replace(control="")


class Point(NamedTuple):
    """A run but for its seed: an arm, the value of its tuned key, and its budget as a share of the whole (1 / fraction)."""

    arm: Arm
    value: float | None = None
    fraction: int = 1


def files_of(study: Study, arm: Arm) -> tuple[str, ...]:
    """The configuration files of an arm after those of the protocol."""
    own = study.plain if arm.variant == BASELINE else {**study.references, **study.family}[arm.variant]
    return (*study.settings[arm.setting], *own, *([study.controls[arm.control]] if arm.control else []))


def config_of(study: Study, point: Point, folder: Path) -> str:
    """The files of a point as one value of a sweep's `config`; those that a study needs beside the user's are written.

    Args:
        study: the study.
        point: the point.
        folder: folder of the study.
    """
    content: dict[str, Any] = {"experiment": point.arm.variant, **nested(study.values[point.arm.setting])}
    name = point.arm.name
    if study.tune is not None and point.value is not None:
        put(content, study.tune.key, point.value)
        name += f"@{point.value!r}"
    if point.fraction > 1:
        for key, amount in study.budget.items():
            put(content, key, amount // point.fraction)
        name += f"@1in{point.fraction}"
    path = folder / OF_STUDY / (point.arm.setting or NO_SETTING) / f"{name}.yaml"
    text = to_yaml(content)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return ",".join((*files_of(study, point.arm), path.as_posix()))


def point_of(study: Study, run: FinishedRun) -> Point | None:
    """The point that a finished run belongs to; None where it is none of the study's."""
    own, variant = run.settings, str(run.summary["experiment"])
    fitting = [name for name, values in study.factors.items() if all(own.get(key) == value for key, value in values.items())]
    if not fitting or variant not in (BASELINE, *study.family, *study.references):
        return None
    setting = max(fitting, key=lambda name: len(study.factors[name]))  # without values a setting fits everything
    value = own.get(bare(study.tune.key)) if study.tune else None
    return Point(Arm(setting, variant, str(run.summary.get("control") or "")), value)


def by_point(study: Study, runs: Iterable[FinishedRun]) -> dict[Point, dict[int, FinishedRun]]:
    """Runs of one round by point, without its budget, and by seed; of two runs of a seed the later one."""
    found: dict[Point, dict[int, FinishedRun]] = {}
    for run in sorted(runs, key=lambda run: run.time):
        point = point_of(study, run)
        if point is not None:
            found.setdefault(point, {})[run.summary["seed"]] = run
    return found


def main_arms(study: Study) -> list[Arm]:
    """Plain, candidates and references in every setting."""
    return [Arm(setting, variant) for setting in study.settings for variant in (BASELINE, *study.family, *study.references)]


def candidates(study: Study) -> list[Arm]:
    return [Arm(setting, variant) for setting in study.settings for variant in study.family]


def shown(setting: str) -> str:
    """A setting in words, as the end of a title."""
    return "" if setting == ONLY else f" under {setting}"
