"""The tables of studies that are kept in results/."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from results.pages import short
from semconv.comparison.grouping import Variant
from semconv.comparison.recorded import load
from semconv.comparison.result import Comparison, Judged
from semconv.comparison.run import FinishedRun
from semconv.comparison.statistics import Paired
from semconv.study.arms import point_of
from semconv.study.file import ONLY, Study, read_study
from semconv.study.stages import compared

ROOT = Path(__file__).parent.parent
STUDIES, RESULTS = ROOT / "sweeps" / "studies", ROOT / "results"


@dataclass(frozen=True, eq=False)
class Table:
    """The table of a study: its runs by stage, and the candidates that it confirms."""

    study: Study
    runs: dict[str, list[FinishedRun]]
    family: Sequence[str]

    @cached_property
    def comparison(self) -> Comparison | None:
        """The comparison of the confirmation; None before there is one."""
        return compared(self.study, self.runs["confirm"], self.family) if "confirm" in self.runs else None

    @property
    def candidates(self) -> list[Judged]:
        """The judged networks of the family; a reference that declares controls has none trained beside it, and no verdict."""
        return [each for each in self.comparison.judged if each.variant.experiment in self.study.family] if self.comparison else []


@cache
def table(name: str) -> Table | None:
    """The table of a study; None where nothing has been measured yet."""
    path = RESULTS / f"{name}.csv"
    if not path.is_file():
        return None
    stages = dict.fromkeys(line.partition(",")[0] for line in path.read_text(encoding="utf-8").splitlines()[1:])
    found = {stage: load(path, stage) for stage in stages}
    study = read_study(STUDIES / f"{name}.yaml")
    family = found["confirm"].declared.family if "confirm" in found else ()
    return Table(study, {stage: each.runs for stage, each in found.items()}, family)


def unmeasured(name: str) -> str:
    return f"Not yet measured: `semconv study sweeps/studies/{name}.yaml --jobs 2`."


def setting_of(study: Study, variant: Variant) -> str:
    point = point_of(study, variant.first)
    return point.arm.setting if point else ""


def under(study: Study, variant: Variant) -> str:
    name = setting_of(study, variant)
    return f" ({name})" if name != ONLY else ""


def gained(found: Paired | None) -> str:
    if found is None:
        return ""
    interval = "" if found.low is None or found.high is None else f" ({short(found.low, '+')} to {short(found.high, '+')})"
    return f"{short(found.difference, '+')}{interval}"
