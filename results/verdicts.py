"""What the confirmations, the screenings and the searches of studies say, as tables and as parts of sentences."""

import itertools
import statistics
from collections import Counter
from typing import NamedTuple

from results import tables
from results.pages import markdown, short
from results.tables import Table, gained, setting_of, table, under, unmeasured
from semconv.comparison.grouping import Variant, setting
from semconv.comparison.result import Comparison, Judged, classical, is_opponent, operations_of, plain_of
from semconv.comparison.run import FinishedRun
from semconv.comparison.sequential import level_of
from semconv.comparison.statistics import Paired, paired
from semconv.comparison.verdicts import PLAIN
from semconv.configuration import bare
from semconv.metrics import Metric
from semconv.study.arms import Arm, by_point, shown
from semconv.study.file import BASELINE, ONLY, Study
from semconv.study.results import screening_sheet, tuning_sheet
from semconv.study.stages import Screened, screened, searched
from semconv.tracking.facts import dataset

CONTROLS = {
    "zero": "zeros: a control",
    "plain_wide": "nothing, at equal FLOPs",
    "gradual_none": "as its variant, without attention",
    "gradual_whole": "as its variant, by attention alone",
    "gradual_reversed": "as its variant, with shares of attention that fall with depth",
    "gradual_learned": "as its variant, with learned shares of attention",
}


class Question(NamedTuple):
    """A part of the project's question."""

    text: str
    studies: tuple[str, ...]
    networks: tuple[str, ...]


FILLS, OTHERS = ("cifar10", "cifar10_zero"), ("cifar10_others", "cifar10_zero")  # one study for each fill
QUESTIONS = (
    Question("Values at the end of the convolution", FILLS, ("cnn_appended",)),
    Question("A vector over the pixels", OTHERS, ("cnn_overlay_add",)),
    Question("Another channel", OTHERS, ("cnn_mask", "cnn_position")),
    Question("Another channel", FILLS, ("cnn_channels",)),
    Question("Gradually from pixels to semantics, with attention", FILLS, ("cnn_gradual",)),
    Question("With other shares of attention", ("cifar10",), ("cnn_gradual-gradual_learned", "cnn_gradual-gradual_reversed")),
    Question("Other indicators: location-based semantic mappings", OTHERS, ("cnn_semantic_map",)),
    Question(
        "Other indicators: visible content", ("indicators",), ("cnn_visible_colour", "cnn_semantic_map", "cnn_visible_clusters")
    ),
    Question("Local semantic attention", OTHERS, ("cnn_local_attention",)),
    Question("Gates that read the indicators", FILLS, ("cnn_gated",)),
    Question("Another decoder, random crops", ("cifar10_protocol",), ("cnn_gated", "cnn_gradual")),
    Question("Larger photographs", ("imagenette",), ("cnn_gated", "cnn_gradual")),
    Question("A high mask ratio", ("mask_ratio",), ("cnn_gated", "mae_vit")),
    Question("Better features", ("representation",), ("cnn_gated", "cnn_gradual", "mae_vit")),
    Question("Convolution at visible sites alone", ("cifar10",), ("cnn_fcmae", "cnn_spark")),
    Question("What CNNs lack and ViTs have", ("cifar10",), ("mae_vit", "simmim_vit")),
    Question("What CNNs lack and ViTs have", ("cifar10_zero",), ("simmim_vit",)),
)


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
    text = f"Mean ± standard deviation over {n} seeds; readings (looks) planned after {' and '.join(map(str, looks.seeds))} seeds"
    text += ". Intervals and p are corrected for all planned looks, p also for the number of networks that are judged (Holm)"
    text += "; p is the largest p-value among the comparisons that a candidate has to win; if that one is not with plain, the"
    text += " control is named. Operations are those of a training step, over plain's"
    return f"{text}. {_chosen(found)}{_origin(found)}"


def gain(name: str) -> str:
    """The gain of the only candidate of a study, within a sentence."""
    found = table(name)
    if found is None or found.comparison is None:
        return unmeasured(name)
    (judged,) = found.comparison.judged
    against = judged.evidence.against[PLAIN]
    ends = " to ".join(short(end) for end in (against.low, against.high) if end is not None)
    return f"{short(against.difference)} (95 % interval {ends}, {_p(judged)}, n = {against.n})"


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
            f"`{each.variant.label}`{under(found.study, each.variant)} {_word(each)} for {each.endpoint.name}, {gained(against)}{n}"
        )
    return "; ".join(words)


def margins(name: str) -> str:
    """What each candidate gains over its controls and plain at equal FLOPs by the first endpoint, within a sentence."""
    found = table(name)
    if found is None or found.comparison is None:
        return unmeasured(name)
    words = []
    for each in found.candidates:
        if each.endpoint.key != found.study.endpoints[0]:
            continue
        gains = [f"{gained(difference)} over {other}" for other, difference in each.evidence.against.items() if other != PLAIN]
        words += [f"`{each.variant.label}`{under(found.study, each.variant)} gains {', '.join(gains)}"] if gains else []
    return "; ".join(words)


def screening(name: str) -> str:
    """The table of a screening."""
    found = table(name)
    judged = _screened(found) if found else {}
    if found is None or not judged:
        return unmeasured(name)
    sheet = screening_sheet(found.study, judged)
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


def control_gains(name: str) -> str:
    """The gains over plain of the controls that the candidates of a study have to beat, within a sentence."""
    found = table(name)
    if found is None or found.comparison is None:
        return unmeasured(name)
    return "; ".join(
        f"`{control.label}`{under(found.study, control)} {gained(gain)}, n = {gain.n}"
        for control, gain, _ in _controls(found.study, found.comparison)
        if gain and is_opponent(control.control or "")
    )


def extra_gains(name: str) -> str:
    """The gains of the extra controls of a study over plain and over their variant, within a sentence."""
    found = table(name)
    if found is None or found.comparison is None:
        return unmeasured(name)
    words = []
    for control, gain, over in _controls(found.study, found.comparison):
        if gain and over and not is_opponent(control.control or ""):
            gains = f"{gained(gain)} over plain, {gained(over)} over `{control.experiment}`"
            words.append(f"`{control.label}`{under(found.study, control)} {gains}, n = {gain.n}")
    return "; ".join(words)


def state() -> str:
    """The number of runs of every study, by stage, and of the design that screens nothing."""
    rows = [["study", "tune", "screen", "confirm", "runs / runs of a fixed design", "commit"]]
    for path in sorted(tables.STUDIES.glob("*.yaml")):
        found = table(path.stem)
        counts = [str(len(found.runs.get(stage, []))) if found else "0" for stage in ("tune", "screen", "confirm")]
        rows.append([f"`sweeps/studies/{path.name}`", *counts, *([_share(found), _commits(found)] if found else ["", ""])])
    return markdown(rows)


def answers() -> str:
    """A table of the verdicts on the project's question, part by part."""
    return _table_of_answers(judged=True)


def other_answers() -> str:
    """A table of what else is known of the question: screenings, references, extra controls, and what is not measured."""
    return _table_of_answers(judged=False)


def _table_of_answers(judged: bool) -> str:
    rows = [["part of the question", "network", "verdict", "better than plain by (95 % interval)", "than with zeros by", "n"]]
    rows[0] += ["fill, protocol", "study"]
    for question in QUESTIONS:
        for network, study in itertools.product(question.networks, question.studies):
            cells = _answers(found, network) if (found := table(study)) else []
            for is_judged, *each in cells or [(False, "not yet measured", "", "", "", "")]:
                rows += [[question.text, f"`{network}`", *each, f"`{study}`"]] if is_judged == judged else []
    return markdown(rows)


def _controls(study: Study, comparison: Comparison) -> list[tuple[Variant, Paired | None, Paired | None]]:
    """Each control of a confirmation with its gains over plain and over its variant by the first endpoint; the intervals hold for
    all looks together, as those of the candidates do. None without a common seed."""
    endpoint, variants, looks = comparison.endpoints[0], comparison.groups.variants, study.confirm.looks
    values = {(variant.level, variant.experiment): variant.values(endpoint.key) for variant in variants if not variant.control}
    rows = []
    for control in (variant for variant in variants if variant.control):
        ours, level = control.values(endpoint.key), level_of(looks, len(control.runs))
        gains: list[Paired | None] = []
        for other in (BASELINE, control.experiment):
            theirs = values.get((control.level, other), {})
            differences = [endpoint.sign * (ours[seed] - theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
            gains.append(paired(differences, level=level) if differences else None)
        rows.append((control, gains[0], gains[1]))
    return rows


def _verdicts(study: Study, comparison: Comparison, endpoint: Metric) -> str:
    several = len(study.settings) > 1
    value = f"{endpoint.label} {'↓' if endpoint.sign < 0 else '↑'}"
    rows = [["variant", *["setting"] * several, "conditioned on", value, "n", "gain over plain (95 % interval)", "verdict"]]
    rows[0].append("operations")
    variants = comparison.groups.variants

    def rank(variant: Variant) -> tuple[str, float]:
        return setting_of(study, variant), -endpoint.sign * (variant.mean(endpoint.key) or 0)

    for variant in sorted(variants, key=rank):
        gain, word = _judged(comparison, variant, endpoint)
        n = len(variant.values(endpoint.key))
        of = f", n = {gain.n}" if gain and gain.n != n else ""
        cells = [f"`{variant.label}`", *[setting_of(study, variant)] * several, _conditions(variant), _spread(variant, endpoint)]
        rows.append([*cells, str(n), f"{gained(gain)}{of}", word, _operations(variant, plain_of(variant, variants))])
    means = {} if several else classical(endpoint.key, variants)
    rows += [[label, "classical baseline", short(value), *[""] * 4] for label, value in means.items()]
    return markdown(rows)


def _answers(found: Table, network: str) -> list[tuple[bool, str, str, str, str, str]]:
    """The cells of one network: whether there is a verdict, what is known, gains, n and protocol by the first endpoint, in each
    setting; of the screening, where it was not confirmed."""
    rows: list[tuple[bool, str, str, str, str, str]] = []
    comparison, seen = found.comparison, set()
    first = found.study.endpoints[0]
    if comparison is not None:
        for judged in comparison.judged:
            if judged.variant.experiment == network and judged.endpoint.key == first:
                seen.add(setting_of(found.study, judged.variant))
                against = judged.evidence.against.get(PLAIN)
                place = under(found.study, judged.variant)
                is_candidate = network in found.study.family
                word = f"{_word(judged)} for {judged.endpoint.name}{place}" if is_candidate else _reference(judged.endpoint, place)
                zeros, n = gained(judged.evidence.against.get("zero")), str(against.n if against else 0)
                rows.append((is_candidate, word, gained(against), zeros, n, _protocol(judged.variant.first)))
        for variant, endpoint, against in comparison.references:
            if variant.experiment == network and endpoint.key == first:
                word = _reference(endpoint, under(found.study, variant))
                rows.append((False, word, gained(against), "", str(against.n), _protocol(variant.first)))
        for control, gain, _ in _controls(found.study, comparison):
            if control.label == network and gain:
                word = f"an extra control, no verdict: {comparison.endpoints[0].label}{under(found.study, control)}"
                rows.append((False, word, gained(gain), "", str(gain.n), _protocol(control.first)))
    if network in found.study.family:
        runs = by_point(found.study, found.runs.get("screen", []))
        protocols = {point.arm: _protocol(next(iter(each.values()))) for point, each in runs.items()}
        for arm, each in _screened(found).items():
            if arm.variant == network and arm.setting not in seen:
                name = f" under {arm.setting}" if arm.setting != ONLY else ""
                word = f"screened{name}, no verdict; {'to be confirmed' if each.kept else 'not kept'}"
                rows.append((False, word, gained(each.against_plain), "", str(each.against_plain.n), protocols[arm]))
    return rows


def _screened(found: Table) -> dict[Arm, Screened]:
    """The screening of a study; {} where it has none, or not all of its runs yet."""
    screen, runs = found.study.screen, by_point(found.study, found.runs.get("screen", []))
    arms = [Arm(setting, name) for setting in found.study.settings for name in (BASELINE, *found.study.family)]
    seeds = {point.arm: by_seed.keys() for point, by_seed in runs.items()}
    if screen is None or any(set(screen.seeds) - seeds.get(arm, set()) for arm in arms):
        return {}
    return screened(found.study, runs)


def _reference(endpoint: Metric, place: str) -> str:
    return f"a reference, no verdict: {endpoint.label}{place}"


def _protocol(run: FinishedRun) -> str:
    """The fill, the images, the budget and the share of masked cells."""
    found = run.protocol
    epochs, ratio = found["trainer.max_epochs"], found.get("model.masker.ratio")
    budget = f"{epochs} epoch{'s' * (epochs > 1)}" if epochs > 0 else f"{found['trainer.max_steps']} steps"
    data = run.summary["protocol"]["data"]
    images = f"{dataset(data['source'])} at {data['size'][0]} px"
    return ", ".join([setting(run), images, budget, *([f"ratio {short(ratio, digits=2)}"] if ratio else [])])


def _judged(comparison: Comparison, variant: Variant, endpoint: Metric) -> tuple[Paired | None, str]:
    for judged in comparison.judged:
        if judged.variant is variant and judged.endpoint == endpoint:
            gain, p = judged.evidence.against.get(PLAIN), _p(judged)
            if judged.verdict is None:  # a reference that reads signals
                return gain, ""
            of_p = f"{p} against {judged.verdict.hardest}" if judged.verdict.hardest != PLAIN else p
            return gain, f"{judged.verdict.text} ({of_p})" if p else judged.verdict.text
    for other, of, against in comparison.references:
        if other is variant and of == endpoint:
            return against, ""
    return None, ""


def _word(judged: Judged) -> str:
    return judged.verdict.text if judged.verdict else ""


def _p(judged: Judged) -> str:
    p = judged.verdict.p if judged.verdict else None
    return "" if p is None else "p < .001" if p < 0.001 else f"p = {short(p)}"


def _conditions(variant: Variant) -> str:
    """What a network is conditioned on, and how."""
    if variant.control:
        return CONTROLS.get(variant.control, f"{variant.control} signals: a control")
    conveys = variant.first.summary.get("conveys") or []
    mechanism = ((variant.first.summary["variant"]["encoder"].get("init_args") or {}).get("mechanism") or {}).get("class_path", "")
    by = f", by `{mechanism.rpartition('.')[2]}`" if mechanism else ""
    return f"{' and '.join(conveys)}{by}" if conveys else "nothing"


def _spread(variant: Variant, endpoint: Metric) -> str:
    values = list(variant.values(endpoint.key).values())
    deviation = f" ± {short(statistics.stdev(values))}" if len(values) > 1 else ""
    baseline = variant.mean(endpoint.baseline) if endpoint.baseline else None
    beside = "" if baseline is None else f" ({endpoint.baseline_name} {short(baseline)})"
    return f"{short(statistics.fmean(values))}{deviation}{beside}" if values else "failed"


def _operations(variant: Variant, plain: Variant | None) -> str:
    """The operations of a network, over those of plain; empty where they are not known."""
    key = operations_of(variant.mean, plain.mean) if plain else ""
    ours, theirs = variant.mean(key), plain.mean(key) if plain else None
    return short(ours / theirs, digits=2) if ours and theirs else ""


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
    chosen = f"`{bare(found.study.tune.key)}` that the search chose" if found.study.tune else ""
    if len(values) > 2 and len(set(values.values())) == 1:
        return f"{chosen}: {next(iter(values.values()))}, for each of these networks. "
    return f"{chosen}: {'; '.join(map(' '.join, values.items()))}. " if values else ""


def _share(found: Table) -> str:
    """The runs of a study over those of a fixed design: the same search, and every candidate of the family, with as many controls
    as those that were confirmed, for as many seeds as a candidate and all its controls have. References, controls that it need not
    beat, and the runs of a look on its way are left out of both."""
    study, all_confirmed = found.study, by_point(found.study, found.runs.get("confirm", []))
    confirmed = {
        point: runs_of
        for point, runs_of in all_confirmed.items()
        if point.arm.variant not in study.references and (not point.arm.control or is_opponent(point.arm.control))
    }
    if not confirmed:
        return ""
    controls = Counter(point.arm._replace(control="") for point in confirmed if point.arm.control)
    each = 1 + len(study.family) * (1 + max(controls.values(), default=0))
    seeds: dict[Arm, int] = {}  # that a candidate and all its controls have
    for point, runs_of in confirmed.items():
        if point.arm.variant in study.family:
            arm = point.arm._replace(control="")
            seeds[arm] = min(len(runs_of), seeds.get(arm, len(runs_of)))
    tuned, most = len(found.runs.get("tune", [])), max(seeds.values(), default=0)
    if most < study.confirm.looks.seeds[0]:
        return ""
    fixed = tuned + len(study.settings) * each * most
    runs = tuned + len(found.runs.get("screen", [])) + sum(min(len(runs_of), most) for runs_of in confirmed.values())
    return f"{runs} / {fixed:,} = {short(runs / fixed, digits=2)}"


def _origin(found: Table) -> str:
    return f"Trained by commit {_commits(found)}."


def _commits(found: Table) -> str:
    commits = Counter(run.summary["commit"][:7] for runs in found.runs.values() for run in runs if run.summary.get("commit"))
    return ", ".join(commits)
