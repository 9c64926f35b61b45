"""Fill the marked places of the documents, and the headers of study files, with what results/*.csv and benchmarks/results/*.json
say: python -m results.fill

A place stands between `<!-- results: KIND STUDY -->` and `<!-- end of results -->`; KIND is a function below. In a study file it is
the line `# Came out: …`. Verdicts are those of `semconv compare` on the same table.
"""

import itertools
import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from results.pages import markdown
from semconv.comparison.grouping import Variant, setting
from semconv.comparison.recorded import load
from semconv.comparison.report import plots
from semconv.comparison.report.svg import WIDTH
from semconv.comparison.result import Comparison, Judged, classical
from semconv.comparison.run import FinishedRun
from semconv.comparison.statistics import Paired, paired
from semconv.comparison.verdicts import PLAIN
from semconv.files import write_text
from semconv.metrics import Metric
from semconv.study.arms import Arm, by_point, main_arms, point_of, shown
from semconv.study.file import ONLY, Study, read_study
from semconv.study.file import PLAIN as BASELINE
from semconv.study.results import screening_sheet, tuning_sheet
from semconv.study.stages import compared, screened, searched

ROOT = Path(__file__).parent.parent
STUDIES, RESULTS, FIGURES = ROOT / "sweeps" / "studies", ROOT / "results", ROOT / "benchmarks" / "results"
DOCUMENTS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
PLACE = re.compile(r"(<!-- results: (\w+)(?: (\w+))? -->)(.*?)(<!-- end of results -->)", re.DOTALL)
CAME_OUT = re.compile(r"^# Came out: .*\n", re.MULTILINE)
STYLE = (
    "svg{background:#fff}text{fill:#1b1b1f;font:11px system-ui,sans-serif}.strong{font-weight:600}.grid{stroke:#d9dbe0}"
    ".axis{stroke:#5c5f66}.margin{fill:#1b1b1f;opacity:.09}.reach{stroke:#0055e2;stroke-width:1.6}.mark{fill:#0055e2}"
)
PICTURED = ("cifar10", "cifar10_zero", "controls", "demo")
CONTROLS = {"zero": "zeros: a control", "plain_wide": "nothing, at equal FLOPs"}


class Question(NamedTuple):
    """A part of the project's question."""

    text: str
    studies: tuple[str, ...]
    networks: tuple[str, ...]


FILLS = ("cifar10", "cifar10_zero")  # one study for each
QUESTIONS = (
    Question("Values at the end of the convolution", FILLS, ("cnn_appended",)),
    Question("A vector over the pixels", FILLS, ("cnn_overlay_add",)),
    Question("Another channel", FILLS, ("cnn_mask", "cnn_position", "cnn_channels")),
    Question("Gradually from pixels to semantics, with attention", FILLS, ("cnn_gradual",)),
    Question("Other indicators: location-based semantic mappings", FILLS, ("cnn_semantic_map",)),
    Question("Local semantic attention", FILLS, ("cnn_local_attention",)),
    Question("Gates that read the indicators", FILLS, ("cnn_gated",)),
    Question("Another decoder, random crops", ("cifar10_protocol",), ("cnn_gated", "cnn_gradual")),
    Question("Larger photographs", ("imagenette",), ("cnn_gated", "cnn_gradual")),
    Question("A high mask ratio", ("mask_ratio",), ("cnn_gated", "mae_vit")),
    Question("Better features", ("representation",), ("cnn_gated", "cnn_gradual", "mae_vit")),
    Question("What CNNs lack and ViTs have", ("cifar10",), ("mae_vit", "simmim_vit")),
)


@dataclass(frozen=True, eq=False)
class Table:
    """The table of a study: its runs by stage."""

    study: Study
    runs: dict[str, list[FinishedRun]]

    @cached_property
    def comparison(self) -> Comparison | None:
        """The comparison of the confirmation; None before there is one."""
        return compared(self.study, self.runs["confirm"]) if "confirm" in self.runs else None

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
    return Table(read_study(STUDIES / f"{name}.yaml"), {stage: load(path, stage).runs for stage in stages})


def verdicts(name: str) -> str:
    """A table of all networks of the confirmation for each endpoint."""
    found = table(name)
    if found is None or (comparison := found.comparison) is None:
        return unmeasured(name)
    return "\n\n".join(_verdicts(found.study, comparison, endpoint) for endpoint in comparison.endpoints)


def caption(name: str) -> str:
    """How a table was found: seeds, looks, chosen values."""
    found = table(name)
    if found is None or found.comparison is None:
        return ""
    study, variants = found.study, found.comparison.groups.variants
    seeds, looks = [len(variant.runs) for variant in variants], study.confirm.looks
    n = f"n = {min(seeds)}" + (f" to {max(seeds)}" if max(seeds) > min(seeds) else "")
    text = f"Mean ± standard deviation over {n} seeds; looks planned at {' and '.join(map(str, looks.seeds))} seeds"
    text += ". Intervals and p hold for all looks together; p is that of the hardest comparison"
    return f"{text}. {_chosen(found)}{_origin(found)}"


def gain(name: str) -> str:
    """The gain of the only candidate of a study, within a sentence."""
    found = table(name)
    if found is None or found.comparison is None:
        return unmeasured(name)
    (judged,) = found.comparison.judged
    against = judged.evidence.against[PLAIN]
    ends = " to ".join(_short(end) for end in (against.low, against.high) if end is not None)
    return f"{_short(against.difference)} (95 % interval {ends}, {_p(judged)}, n = {against.n})"


def screening(name: str) -> str:
    """The table of a screening."""
    found = table(name)
    if found is None or "screen" not in found.runs:
        return unmeasured(name)
    sheet = screening_sheet(found.study, screened(found.study, by_point(found.study, found.runs["screen"])))
    return markdown([sheet.columns, *sheet.rows])


def search(name: str) -> str:
    """The table of a search, of the networks that have been trained at all values of its grid."""
    found = table(name)
    if found is None or found.study.tune is None or "tune" not in found.runs:
        return unmeasured(name)
    grid = set(found.study.tune.values)
    tuned = {arm: each for arm, each in searched(found.study, found.runs["tune"]).items() if grid <= set(each.curve)}
    sheet = tuning_sheet(found.study, tuned)
    return markdown([sheet.columns, *sheet.rows])


def importance(name: str) -> str:
    """How much worse the networks of a study reconstruct when an indicator is taken away from the trained network."""
    found, kinds = table(name), ("zeroed", "shuffled", "another_mask")
    rows = [["network", "indicator", "zeroed", "shuffled", "another mask", "n"]]
    for arm, runs in _latest(found):
        keys = {key for run in runs for key in run.metrics if key.startswith("importance/")}
        for indicator in sorted({key.split("/")[1] for key in keys}):
            cells = [_mean_of(runs, f"importance/{indicator}/{kind}", spread=True) for kind in kinds]
            rows.append([f"`{arm.label}`", f"`{indicator}`", *cells, str(len(runs))])
    return markdown(rows) if rows[1:] else unmeasured(name)


def mask_auc(name: str) -> str:
    """How well a linear probe of each stage tells masked sites from visible ones."""
    return _stages(name, "probe/mask_auc")


def position_r2(name: str) -> str:
    """How well a linear probe of each stage tells where a site lies."""
    return _stages(name, "probe/position_r2")


def features(name: str) -> str:
    """How well the features of the networks of a study classify."""
    return _probes(name, {"linear top-1": "probe/linear_top1", "k-NN top-1": "probe/knn_top1"})


def control_gains(name: str) -> str:
    """The gains of the controls of a study over plain, each with its own interval, within a sentence."""
    found = table(name)
    if found is None or found.comparison is None:
        return unmeasured(name)
    endpoint, variants = found.comparison.endpoints[0], found.comparison.groups.variants
    plain = {variant.level: variant.values(endpoint.key) for variant in variants if variant.experiment == BASELINE}
    words = []
    for control in (variant for variant in variants if variant.control):
        ours, theirs = control.values(endpoint.key), plain[control.level]
        differences = [endpoint.sign * (ours[seed] - theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
        words.append(f"`{control.label}`{_under(found.study, control)} {_gain(paired(differences))}, n = {len(differences)}")
    return "; ".join(words)


def state(_: str) -> str:
    """The number of runs of every study, by stage, and of the design that screens nothing."""
    rows = [["study", "tune", "screen", "confirm", "runs / runs of a fixed design", "commit"]]
    for path in sorted(STUDIES.glob("*.yaml")):
        found = table(path.stem)
        counts = [str(len(found.runs.get(stage, []))) if found else "0" for stage in ("tune", "screen", "confirm")]
        rows.append([f"`sweeps/studies/{path.name}`", *counts, *([_share(found), _commits(found)] if found else ["", ""])])
    return markdown(rows)


def answers(_: str) -> str:
    """A table of the project's question, part by part."""
    rows = [["part of the question", "network", "verdict", "better than plain by (95 % interval)", "n", "file"]]
    for question in QUESTIONS:
        for network, study in itertools.product(question.networks, question.studies):
            cells = _answers(found, network) if (found := table(study)) else []
            file = f"`sweeps/studies/{study}.yaml`"
            rows += [[question.text, f"`{network}`", *each, file] for each in cells or [["not yet measured", "", ""]]]
    return markdown(rows)


def figures(name: str) -> str:
    """The figures of a benchmark: `make gpu` or `make bench`."""
    path = FIGURES / f"{name}.json"
    if not path.is_file():
        return f"Not measured yet: `python -m benchmarks.{name}`."
    return import_module(f"benchmarks.{name}").text(json.loads(path.read_text(encoding="utf-8")))


def outcome(name: str) -> str:
    """The verdicts of a study, within a sentence."""
    found = table(name)
    if found is None or found.comparison is None:
        return f"not yet measured (`sweeps/studies/{name}.yaml`)"
    words = []
    for each in found.candidates:
        against = each.evidence.against.get(PLAIN)
        n = f", n = {against.n}" if against else ""
        words.append(
            f"`{each.variant.label}`{_under(found.study, each.variant)} {_word(each)} for {each.endpoint.name}, {_gain(against)}{n}"
        )
    return "; ".join(words)


def came_out(name: str) -> str:
    """A line for the header of a study file; empty before the confirmation."""
    found = table(name)
    return "" if found is None or found.comparison is None else f"# Came out: {outcome(name).replace('`', '')}.\n"


OF_STUDIES = (verdicts, caption, gain, outcome, screening, search, control_gains, features, importance, mask_auc, position_r2)
KINDS: dict[str, Callable[[str], str]] = {each.__name__: each for each in (*OF_STUDIES, state, answers, figures)}


def filled(text: str) -> str:
    """A document with its places filled anew; a place of one line stays within its line."""

    def fill(match: re.Match[str]) -> str:
        content = KINDS[match[2]](match[3] or "")
        return f"{match[1]}{content}{match[5]}" if "\n" not in match[4] else f"{match[1]}\n\n{content}\n\n{match[5]}"

    return PLACE.sub(fill, text)


def headed(text: str, name: str) -> str:
    """A study file with what came out at the end of its header."""
    lines = CAME_OUT.sub("", text).splitlines(keepends=True)
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "".join([*lines[:end], came_out(name), *lines[end:]])


def renewed() -> dict[Path, str]:
    """All documents and study files, with what they should say."""
    pages = {ROOT / name: filled((ROOT / name).read_text(encoding="utf-8")) for name in DOCUMENTS}
    pages[ROOT / "docs" / "findings.svg"] = picture()
    return pages | {path: headed(path.read_text(encoding="utf-8"), path.stem) for path in sorted(STUDIES.glob("*.yaml"))}


def picture() -> str:
    """The gain of every confirmed candidate over plain, of the first study of `PICTURED` that has some, as a drawing."""
    found, comparison = next((known, compared) for name in PICTURED if (known := table(name)) and (compared := known.comparison))
    places: dict[str, list[Judged]] = {}
    for judged in found.candidates:
        if judged.endpoint == comparison.endpoints[0] and PLAIN in judged.evidence.against:
            places.setdefault(_under(found.study, judged.variant), []).append(judged)
    drawings = []
    for place, here in places.items():
        name, margin = f"{found.study.name}{place}: {here[0].endpoint.label}", max(each.evidence.margin for each in here)
        drawings.append(plots.dots(f"Gain over plain{place}", [(name, list(map(_dot, here)), margin)], "better than plain by"))
    # one below the other, each with an axis of its own: gains of different settings differ by their size
    heights = [float(re.findall(r'viewBox="0 0 \d+ ([\d.]+)"', drawing)[0]) for drawing in drawings]
    parts = [
        drawing.replace("<svg ", f'<svg y="{y:g}" width="{WIDTH}" height="{height:g}" ', 1)
        for drawing, y, height in zip(map(str, drawings), itertools.accumulate(heights, initial=0.0), heights, strict=False)
    ]
    head = f'<svg viewBox="0 0 {WIDTH} {sum(heights):g}" xmlns="http://www.w3.org/2000/svg">'
    return f"{head}<style>{STYLE}</style><title>Gain over plain of each confirmed candidate</title>{''.join(parts)}</svg>\n"


def unmeasured(name: str) -> str:
    return f"Not yet measured: `semconv study sweeps/studies/{name}.yaml --jobs 2`."


def _latest(found: Table | None) -> list[tuple[Arm, list[FinishedRun]]]:
    """The runs of each network, controls aside, at its chosen value: of the confirmation, or else of the screening."""
    latest: dict[Arm, list[FinishedRun]] = {}
    if found is not None:
        for stage in ("screen", "confirm"):
            for point, by_seed in by_point(found.study, found.runs.get(stage, [])).items():
                latest[point.arm] = [run for run in by_seed.values() if not run.has_diverged]
    return [(arm, latest[arm]) for arm in (main_arms(found.study) if found else []) if latest.get(arm)]


def _stages(name: str, metric: str) -> str:
    """A probe of each stage of the trained networks, and of the same networks before training."""
    keys = {key for _, runs in _latest(table(name)) for run in runs for key in run.metrics if key.startswith(f"{metric}/stage_")}
    return _probes(name, {f"stage {key.rpartition('_')[2]}": key for key in sorted(keys)})


def _probes(name: str, columns: Mapping[str, str]) -> str:
    """Metrics by their titles, of the trained networks and, in brackets, of the same networks before training."""
    rows = []
    for arm, runs in _latest(table(name)):
        pairs = [(_mean_of(runs, key), _mean_of(runs, f"untrained/{key}")) for key in columns.values()]
        cells = [f"{after} ({before})" if before else after for after, before in pairs]
        rows += [[f"`{arm.label}`", *cells, str(len(runs))]] if any(cells) else []
    return markdown([["network", *columns, "n"], *rows]) if rows else unmeasured(name)


def _mean_of(runs: Sequence[FinishedRun], key: str, spread: bool = False) -> str:
    """The mean of a metric over runs, with their deviation if asked for; empty where one of them has none."""
    values = [run.metrics[key] for run in runs if key in run.metrics]
    if len(values) < len(runs):
        return ""
    deviation = f" ± {_short(statistics.stdev(values), digits=3)}" if spread and len(values) > 1 else ""
    return f"{_short(statistics.fmean(values), '+' if spread else '', digits=3)}{deviation}"


def _verdicts(study: Study, comparison: Comparison, endpoint: Metric) -> str:
    several = len(study.settings) > 1
    value = f"{endpoint.label} {'↓' if endpoint.sign < 0 else '↑'}"
    rows = [["variant", *["setting"] * several, "conditioned on", value, "n", "gain over plain (95 % interval)", "verdict"]]

    def rank(variant: Variant) -> tuple[str, float]:
        return _setting(study, variant), -endpoint.sign * (variant.mean(endpoint.key) or 0)

    for variant in sorted(comparison.groups.variants, key=rank):
        gain, word = _judged(comparison, variant, endpoint)
        cells = [f"`{variant.label}`", *[_setting(study, variant)] * several, _conditions(variant), _spread(variant, endpoint)]
        rows.append([*cells, str(len(variant.values(endpoint.key))), _gain(gain), word])
    means = {} if several else classical(endpoint.key, comparison.groups.variants)
    rows += [[label, "classical baseline", _short(value), "", "", ""] for label, value in means.items()]
    return markdown(rows)


def _answers(found: Table, network: str) -> list[list[str]]:
    """The cells of one network: verdict, gain and n of each endpoint and setting; of the screening, where it was not confirmed."""
    rows, comparison, seen = [], found.comparison, set()
    if comparison is not None:
        for judged in comparison.judged:
            if judged.variant.experiment == network:
                seen.add(_setting(found.study, judged.variant))
                against = judged.evidence.against.get(PLAIN)
                under = f"{setting(judged.variant)}{_under(found.study, judged.variant)}"
                word = f"{_word(judged)} for {judged.endpoint.name} under {under}"
                rows.append([word, _gain(against), str(against.n if against else 0)])
        for variant, endpoint, against in comparison.references:
            if variant.experiment == network:
                word = f"a reference, no verdict: {endpoint.label} under {setting(variant)}{_under(found.study, variant)}"
                rows.append([word, _gain(against), str(against.n)])
    if "screen" in found.runs and network in found.study.family:
        for arm, each in screened(found.study, by_point(found.study, found.runs["screen"])).items():
            if arm.variant == network and arm.setting not in seen:
                name = f" under {arm.setting}" if arm.setting != ONLY else ""
                word = f"screened{name}, no verdict; {'to be confirmed' if each.kept else 'not kept'}"
                rows.append([word, _gain(each.against_plain), str(each.against_plain.n)])
    return rows


def _judged(comparison: Comparison, variant: Variant, endpoint: Metric) -> tuple[Paired | None, str]:
    for judged in comparison.judged:
        if judged.variant is variant and judged.endpoint == endpoint:
            p = _p(judged)
            return judged.evidence.against.get(PLAIN), f"{_word(judged)} ({p})" if p else _word(judged)
    for other, of, against in comparison.references:
        if other is variant and of == endpoint:
            return against, ""
    return None, ""


def _word(judged: Judged) -> str:
    return judged.verdict.text if judged.verdict else "no verdict"


def _dot(judged: Judged) -> plots.Dot:
    against = judged.evidence.against[PLAIN]
    return plots.Dot(judged.variant.label.removeprefix("cnn_"), 0, against.difference, against.low, against.high)


def _p(judged: Judged) -> str:
    p = judged.verdict.p if judged.verdict else None
    return "" if p is None else "p < .001" if p < 0.001 else f"p = {_short(p)}"


def _conditions(variant: Variant) -> str:
    """What a network is conditioned on, and how."""
    if variant.control:
        return CONTROLS.get(variant.control, f"{variant.control} signals: a control")
    conveys = variant.first.summary.get("conveys") or []
    mechanism = ((variant.first.summary["variant"]["encoder"].get("init_args") or {}).get("mechanism") or {}).get("class_path", "")
    by = f", by `{mechanism.rpartition('.')[2]}`" if mechanism else ""
    return f"{' and '.join(conveys)}{by}" if conveys else "nothing"


def _setting(study: Study, variant: Variant) -> str:
    point = point_of(study, variant.first)
    return point.arm.setting if point else ""


def _under(study: Study, variant: Variant) -> str:
    name = _setting(study, variant)
    return f" ({name})" if name != ONLY else ""


def _spread(variant: Variant, endpoint: Metric) -> str:
    values = list(variant.values(endpoint.key).values())
    deviation = f" ± {_short(statistics.stdev(values))}" if len(values) > 1 else ""
    baseline = variant.mean(endpoint.baseline) if endpoint.baseline else None
    beside = "" if baseline is None else f" ({endpoint.baseline_name} {_short(baseline)})"
    return f"{_short(statistics.fmean(values))}{deviation}{beside}" if values else "failed"


def _gain(found: Paired | None) -> str:
    if found is None:
        return ""
    interval = "" if found.low is None or found.high is None else f" ({_short(found.low, '+')} to {_short(found.high, '+')})"
    return f"{_short(found.difference, '+')}{interval}"


def _chosen(found: Table) -> str:
    """The value of the tuned key of each confirmed network, controls aside, and whether smaller and larger ones were tried."""
    tried = searched(found.study, found.runs["tune"]) if "tune" in found.runs else {}
    values: dict[str, str] = {}
    for point in by_point(found.study, found.runs["confirm"]):
        if not point.arm.control and point.value is not None and point.arm in tried:
            grid = tried[point.arm].curve
            ends = {min(grid): "the smallest tried", max(grid): "the largest tried"}
            end = f" ({ends[point.value]})" if point.value in ends else ""
            values[f"{point.arm.variant}{shown(point.arm.setting)}"] = f"{point.value:g}{end}"
    if len(values) > 2 and len(set(values.values())) == 1:
        return f"Chosen by the search: {next(iter(values.values()))}, for all of them. "
    return f"Chosen by the search: {'; '.join(map(' '.join, values.items()))}. " if values else ""


def _share(found: Table) -> str:
    """The runs of a study over those of a fixed design: the same search, and every candidate of the family, with as many controls
    as those that were confirmed, for as many seeds as plain. References are left out of both."""
    study, confirmed = found.study, by_point(found.study, found.runs.get("confirm", []))
    if not confirmed:
        return ""
    controls = Counter(point.arm._replace(control="") for point in confirmed if point.arm.control)
    each = 1 + len(study.family) * (1 + max(controls.values(), default=0))
    fixed = len(found.runs.get("tune", [])) + len(study.settings) * each * max(map(len, confirmed.values()))
    runs = sum(map(len, found.runs.values())) - sum(
        len(seeds) for point, seeds in confirmed.items() if point.arm.variant in study.references
    )
    return f"{runs} / {fixed:,} = {_short(runs / fixed, digits=2)}"


def _origin(found: Table) -> str:
    return f"Trained by commit {_commits(found)}."


def _commits(found: Table) -> str:
    commits = Counter(run.summary["commit"][:7] for runs in found.runs.values() for run in runs if run.summary.get("commit"))
    return ", ".join(commits)


def _short(value: float, sign: str = "", digits: int = 4) -> str:
    """A number without its leading zero."""
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.{digits}f}")


def main() -> None:
    """Write what has changed."""
    for path, text in renewed().items():
        if not path.is_file() or text != path.read_text(encoding="utf-8"):
            write_text(path, text)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
