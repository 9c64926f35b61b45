"""The sections of a report: each has its figures and tables, or says which runs would give them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from semconv.comparison.grouping import Level, Variant, controls_of, differences, show_level
from semconv.comparison.report import plots, strips
from semconv.comparison.report.sources import Curve, Spread, curve, environments, is_local, keys_below, spread
from semconv.comparison.result import COSTS, Comparison, plain_at
from semconv.comparison.statistics import Paired
from semconv.comparison.tables import Sheet, details, interactions, pareto, results, verdicts
from semconv.comparison.verdicts import PLAIN, WIDE, Endpoint
from semconv.configuration import flatten

CURVES = ("val/masked_mse", "train/loss")
SETTLING = 0.15  # of a training, in which curves may be far above where they end
RATIO = "full/masked_mse/ratio_"
KNOWN = {
    "probe/position_r2/stage_": ("where a site is", "position R²"),
    "probe/mask_auc/stage_": ("whether it is masked", "mask AUC"),
    "probe/rgb_r2/stage_": ("what colours are there", "RGB R²"),
}
HOW = ("zeroed", "shuffled", "another_mask")
COST_NAMES = {
    "cost/encoder_parameters": "encoder parameters",
    "cost/flops": "operations per image",
    "cost/train_images_per_second": "training images per second (more is better)",
    "cost/peak_memory_bytes": "peak memory, bytes",
}
CANDIDATE, SLOW = 1, "plain_slow"
AGAINST = {PLAIN: 0, "zero": 2, "constant": 3, "fixed": 4, "shuffled": 5, WIDE: 6, SLOW: 7}  # looks beside a candidate's


class Figure(NamedTuple):
    """A drawing with its caption."""

    drawing: Markup
    caption: str
    wide: bool = False


class Section(NamedTuple):
    """A part of the page."""

    anchor: str
    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    more: Sequence[Figure] = ()  # folded, with a legend of their own
    sheets: Sequence[Sheet] = ()
    folded: Sequence[Sheet] = ()
    legend: Sequence[tuple[Markup, str]] = ()
    more_legend: Sequence[tuple[Markup, str]] = ()
    missing: str = ""  # what is not there, and which runs would give it


def make(comparison: Comparison) -> list[Section]:
    """All sections, in the order in which they are read."""
    return [
        _verdicts(comparison),
        _forest(comparison),
        _results(comparison),
        _curves(comparison),
        _costs(comparison),
        _ratios(comparison),
        _known(comparison),
        _importance(comparison),
        _pictures(comparison),
        _configurations(comparison),
        _environment(comparison),
    ]


def looks(variants: Sequence[Variant]) -> dict[str, int]:
    """A number for each label, which fixes colour, shape and dashes; plain's is 0 and drawn in the text's colour."""
    shown = [variant for variant in variants if variant.kind != "control"]
    ordered = sorted(shown, key=lambda variant: variant.kind != "baseline")
    return {label: number for number, label in enumerate(dict.fromkeys(variant.label for variant in ordered))}


def _verdicts(comparison: Comparison) -> Section:
    made = [verdicts(comparison, endpoint) for endpoint in comparison.endpoints]
    made = [sheet for sheet in [*made, interactions(comparison)] if sheet.rows]
    text = (
        "Beneficial is what beats, on the same seeds, plain, each of its controls and plain of the same training operations; p "
        "is the largest of these comparisons', corrected over the family by Holm. Equivalent to plain is what lies within the "
        "margin by two one-sided tests. All else is inconclusive."
    )
    missing = "" if made else f"Nothing is judged: give runs of {comparison.baseline} and of a network that is told something."
    return Section("verdicts", "Verdicts", text if made else "", sheets=made, missing=missing)


def _forest(comparison: Comparison) -> Section:
    figures = []
    for endpoint in comparison.endpoints:
        for level, _ in _by_level(comparison):
            groups = _against(comparison, endpoint, level)
            if groups:
                caption = (
                    f"{endpoint.key}{at(level)}, paired by seed: mean differences with 95 % t intervals; right is better. "
                    "Shaded: the margin of equivalence to plain. An arrow says that an interval goes on. n is the number of seeds."
                )
                drawing = plots.dots(f"Differences in {endpoint.key}{at(level)}", groups, f"{endpoint.key}: better by")
                figures.append(Figure(drawing, caption))
    tables = [sheet for sheet in (details(comparison, endpoint) for endpoint in comparison.endpoints) if sheet.rows]
    missing = "" if figures else f"No seed is common to {comparison.baseline} and another variant: run both with the same seeds."
    return Section("differences", "Paired differences", figures=figures, folded=tables, missing=missing)


def _results(comparison: Comparison) -> Section:
    whole, short = results(comparison), results(comparison, controls=False)
    folded = [whole._replace(title="The same, with controls")] if whole != short else []
    return Section("results", "Results", sheets=[short], folded=folded)


def _curves(comparison: Comparison) -> Section:
    numbers = looks(comparison.groups.variants)
    for key in CURVES:
        found = {id(variant): made for variant in comparison.groups.variants if (made := curve(variant, key)) is not None}
        if found:
            break
    else:
        missing = (
            "No run at hand has two rows of val/masked_mse or train/loss in its metrics.jsonl: train for longer, or log more often."
        )
        return Section("curves", "Learning curves", missing=missing)
    figures = []
    for level, shown in _by_level(comparison):
        series = [_curve_line(variant, found[id(variant)], numbers[variant.label]) for variant in shown if id(variant) in found]
        if series:
            ns = _ns(found[id(variant)].n for variant in shown if id(variant) in found)
            caption = f"{key} against samples seen{at(level)}: mean over {ns}, and its range."
            figures.append(
                Figure(plots.lines(f"{key}{at(level)}", series, "samples seen", key, marked=False, settling=SETTLING), caption)
            )
    more = [figure for variant in comparison.groups.variants if (figure := _beside_controls(variant, comparison, found, key))]
    there = {variant.control for variant in comparison.groups.variants if id(variant) in found} | {PLAIN}
    looks_beside = {"the variant itself": CANDIDATE, **{name: _look_of(name) for name in sorted(filter(None, there), key=_look_of)}}
    beside = [(plots.swatch(number), name) for name, number in looks_beside.items()]
    return Section("curves", "Learning curves", figures=figures, more=more, legend=_legend(comparison, numbers), more_legend=beside)


def _beside_controls(variant: Variant, comparison: Comparison, found: dict[int, Curve], key: str) -> Figure | None:
    """A candidate's curve with those of plain and of its controls."""
    controls = controls_of(variant, comparison.groups.variants) if variant.kind == "candidate" else {}
    named = {name: control for name, control in controls.items() if id(control) in found}
    if not named or id(variant) not in found:
        return None
    plain = plain_at(variant.level, comparison.groups.variants)
    shown = {**({PLAIN: plain} if plain and id(plain) in found else {}), **named}
    series = [_curve_line(other, found[id(other)], _look_of(name)) for name, other in shown.items()]
    series.append(_curve_line(variant, found[id(variant)], CANDIDATE))
    ns = _ns(found[id(other)].n for other in (variant, *shown.values()))
    caption = f"{_label(variant)} beside {', '.join(shown)}: {key} against samples seen, mean over {ns}, and its range."
    return Figure(
        plots.lines(f"{key} of {_label(variant)} and its controls", series, "samples seen", key, marked=False, settling=SETTLING),
        caption,
    )


def _costs(comparison: Comparison) -> Section:
    numbers, figures = looks(comparison.groups.variants), []
    for endpoint in comparison.endpoints:
        for cost in COSTS:
            best = comparison.undominated[(endpoint.key, cost)]
            for level, _ in _by_level(comparison):
                points = [
                    _point(variant, both, numbers, any(variant is other for other in best))
                    for variant in comparison.groups.variants
                    if variant.level == level and (both := _cost_and_quality(variant, cost, endpoint))
                ]
                if points:
                    name = f"{endpoint.key} against {COST_NAMES[cost]}{at(level)}"
                    better = "higher" if endpoint.sign > 0 else "lower"
                    drawing = plots.scatter(name, points, COST_NAMES[cost], f"{endpoint.key} ({better} is better)")
                    ns = _ns(len(v.runs) for v in comparison.groups.variants if v.level == level)
                    figures.append(
                        Figure(drawing, f"{name}: means over {ns}, and their range. Ringed: not dominated. Hollow: controls.")
                    )
    missing = "" if figures else "No run has both an endpoint and a cost: train and test with the callbacks of semconv run."
    table = pareto(comparison)
    folded = [table] if table.rows else []
    return Section(
        "costs", "Quality against cost", figures=figures, folded=folded, legend=_legend(comparison, numbers), missing=missing
    )


def _ratios(comparison: Comparison) -> Section:
    keys = sorted(keys_below(comparison.groups.variants, RATIO))
    places = [float(key.removeprefix(RATIO)) for key in keys]
    return _over(
        comparison,
        Section("ratios", "Other mask ratios", "Trained at one ratio (the dashed line), tested at others."),
        {"full/masked_mse": (keys, places, "share of cells hidden in the test", "masked MSE")},
        "No run was evaluated at other mask ratios: give --evaluation full.",
        _training_ratio(comparison),
    )


def _known(comparison: Comparison) -> Section:
    panels = {}
    for prefix, (what, name) in KNOWN.items():
        keys = sorted(
            (key for key in keys_below(comparison.groups.variants, prefix) if key.removeprefix(prefix).isdigit()),
            key=lambda key: int(key.removeprefix(prefix)),
        )
        panels[f"{name}: {what}"] = (keys, [float(key.removeprefix(prefix)) for key in keys], "stage", name)
    text = "What a linear map reads off the features of a site, stage by stage: 0 is the first."
    return _over(
        comparison, Section("known", "What is known where", text), panels, "No run was evaluated: leave --evaluation at quick."
    )


def _over(
    comparison: Comparison,
    section: Section,
    panels: dict[str, tuple[list[str], list[float], str, str]],
    missing: str,
    guide: float | None = None,
) -> Section:
    """Figures of keys that stand for places on an axis, and their numbers as tables."""
    numbers = looks(comparison.groups.variants)
    figures, tables = [], []
    for title, (keys, places, x_name, y_name) in panels.items():
        for level, shown in _by_level(comparison):
            rows = [(variant, [spread(variant, key) for key in keys]) for variant in shown]
            rows = [(variant, found) for variant, found in rows if any(found)]
            if not rows:
                continue
            series = [_line(variant.label, numbers[variant.label], places, found) for variant, found in rows]
            ticks = places if len(places) < 8 else None
            drawing = plots.lines(f"{title}{at(level)}", series, x_name, y_name, x_ticks=ticks, guide=guide)
            ns = _ns(each.n for _, found in rows for each in found if each)
            figures.append(Figure(drawing, f"{title}{at(level)}: means over {ns}, and their range."))
            cells = [[variant.label, *("" if each is None else f"{each.mean:.4f}" for each in found)] for variant, found in rows]
            tables.append(Sheet(f"{title}{at(level)}: means", ["variant", *(f"{place:g}" for place in places)], cells))
    if not figures:
        return section._replace(text="", missing=missing)
    return section._replace(figures=figures, folded=tables, legend=_legend(comparison, numbers))


def _importance(comparison: Comparison) -> Section:
    groups, ns = [], []
    for variant in comparison.groups.variants:
        parts: dict[str, list[plots.Dot]] = {}
        for key in keys_below([variant], "importance/"):
            _, _, rest = key.partition("/")
            indicator, _, how = rest.rpartition("/")
            found = spread(variant, key)
            if found and how in HOW:
                dot = plots.Dot(how.replace("_", " "), 1 + HOW.index(how), found.mean, found.low, found.high)
                parts.setdefault(indicator, []).append(dot)
                ns.append(found.n)
        if variant.kind == "candidate" or variant.kind == "reference":
            groups += [(f"{_label(variant)}: {indicator}", dots, 0.0) for indicator, dots in parts.items()]
    if not groups:
        missing = "No run of a network that is told something was evaluated: leave --evaluation at quick."
        return Section("importance", "Importance of what is told", missing=missing)
    caption = (
        f"By how much test/masked_mse grows when one indicator lies, in trained networks: means over {_ns(ns)}, and their range. "
        "Zeroed: it says 0; shuffled: what is true of another image; another mask: one image's, for all."
    )
    drawing = plots.dots("Importance of indicators", groups, "masked MSE grows by")
    return Section("importance", "Importance of what is told", figures=[Figure(drawing, caption)])


def _pictures(comparison: Comparison) -> Section:
    variants = comparison.groups.variants
    order = {"baseline": 0, "candidate": 1, "control": 1, "reference": 2, "oracle": 3}
    levels = [level for level, _ in _by_level(comparison)]
    ordered = sorted(
        variants, key=lambda variant: (levels.index(variant.level), order[variant.kind], variant.experiment, variant.label)
    )
    found = strips.gather(ordered)
    if not found.strips:
        return Section(
            "pictures", "The same images", missing="No run at hand has media/test.png: semconv run and semconv test write it."
        )
    numbers = f" (numbers {', '.join(map(str, found.numbers))} of the set)" if found.numbers else ""
    caption = (
        f"The same test images{numbers} under the same masks: what each variant, in the first of its seeds, pastes into the hidden "
        f"cells{': ' + found.note if found.note else ''}. {found.size / 1000:,.0f} kB of pictures."
    )
    if found.left_out:
        caption += (
            f" Not shown, as the pictures are not at hand, are of other images, or would be too many: {', '.join(found.left_out)}."
        )
    return Section("pictures", "The same images", figures=[Figure(strips.draw(found), caption, wide=True)])


def _configurations(comparison: Comparison) -> Section:
    variants = comparison.groups.variants
    flat = {id(variant): flatten(next(iter(variant.runs.values())).summary["variant"]) for variant in variants}
    keys = list(differences(flat.values()))
    labels = {(variant.label, tuple(flat[id(variant)].get(key) for key in keys)): variant for variant in variants}
    rows = [[label, *("" if value is None else str(value) for value in values)] for label, values in labels]
    sheets = [Sheet("What differs between variants", ["variant", *keys], rows)] if keys else []
    varied = {**comparison.groups.factors, **comparison.groups.allowed}
    protocol = {key: value for key, value in next(iter(variants[0].runs.values())).protocol.items() if key not in varied}
    shared = [[key, str(value)] for key, value in protocol.items()]
    told = [[key, ", ".join(map(str, values)), "factor"] for key, values in comparison.groups.factors.items()]
    told += [[key, ", ".join(map(str, values)), "allowed to differ"] for key, values in comparison.groups.allowed.items()]
    if told:
        sheets.append(Sheet("What differs in the protocol", ["key", "values", "as"], told))
    return Section(
        "configurations",
        "Configurations",
        sheets=sheets,
        folded=[Sheet("The protocol that all runs share", ["key", "value"], shared)],
        missing="" if sheets else "All variants have one configuration.",
    )


def _environment(comparison: Comparison) -> Section:
    runs = [run for variant in comparison.groups.variants for run in variant.runs.values()]
    found = environments(runs)
    if not found:
        missing = "No run at hand has an environment.json: runs from W&B carry theirs in their configuration there."
        return Section("environment", "Environment", missing=missing)
    rows = []
    for name, values in found.items():
        alike = len(values) == 1 and values.total() == sum(map(is_local, runs))
        rows.append([name, "; ".join(value if alike else f"{value} ({count} runs)" for value, count in values.most_common())])
    return Section("environment", "Environment", sheets=[Sheet("What the runs were made with", ["what", "value"], rows)])


def _against(comparison: Comparison, endpoint: Endpoint, level: Level) -> list[tuple[str, list[plots.Dot], float]]:
    """Each candidate's comparisons, and each reference's with plain, as groups of rows."""
    groups = []
    for judged in comparison.judged:
        evidence = judged.evidence
        if judged.endpoint == endpoint and judged.variant.level == level and evidence.against:
            word = f": {judged.verdict.word}" if judged.verdict else ""
            n = _ns(found.n for found in evidence.against.values())
            rows = [_dot(name, found) for name, found in evidence.against.items()]
            groups.append((f"{judged.variant.label}{word}, {n}", rows, evidence.margin if PLAIN in evidence.against else 0.0))
    for variant, of, found in comparison.references:
        if of == endpoint and variant.level == level:
            groups.append((f"{variant.label} (reference), {_ns([found.n])}", [_dot(PLAIN, found)], 0.0))
    return groups


def _dot(name: str, found: Paired) -> plots.Dot:
    return plots.Dot(name, _look_of(name), found.difference, found.low, found.high)


def _cost_and_quality(variant: Variant, cost: str, endpoint: Endpoint) -> tuple[Spread, Spread] | None:
    price, quality = spread(variant, cost), spread(variant, endpoint.key)
    if price is None or quality is None:
        return None
    return price, quality


def _point(variant: Variant, both: tuple[Spread, Spread], numbers: dict[str, int], best: bool) -> plots.Point:
    number = _look_of(variant.control) if variant.control else numbers[variant.label]
    x, y = ((found.low, found.mean, found.high) for found in both)
    return plots.Point(variant.label, number, x, y, best, variant.control is not None)


def _look_of(control: str) -> int:
    """The look of a control; controls of a user's own share one."""
    return AGAINST.get(control, len(AGAINST) + 1)


def _curve_line(variant: Variant, found: Curve, number: int) -> plots.Line:
    return plots.Line(variant.label, number, found.places, found.mean, found.low, found.high)


def _line(name: str, number: int, places: Sequence[float], found: Sequence[Spread | None]) -> plots.Line:
    there = [(place, each) for place, each in zip(places, found, strict=True) if each is not None]
    return plots.Line(
        name,
        number,
        [place for place, _ in there],
        [each.mean for _, each in there],
        [each.low for _, each in there],
        [each.high for _, each in there],
    )


def _by_level(comparison: Comparison) -> list[tuple[Level, list[Variant]]]:
    """The variants that are no controls, by level."""
    levels: dict[Level, list[Variant]] = {}
    for variant in comparison.groups.variants:
        levels.setdefault(variant.level, [])
        if variant.kind != "control":
            levels[variant.level].append(variant)
    return list(levels.items())


def _training_ratio(comparison: Comparison) -> float | None:
    ratios = {run.protocol.get("model.masker.ratio") for variant in comparison.groups.variants for run in variant.runs.values()}
    ratio = next(iter(ratios)) if len(ratios) == 1 else None
    return ratio if isinstance(ratio, int | float) else None


def _legend(comparison: Comparison, numbers: dict[str, int]) -> list[tuple[Markup, str]]:
    return [(plots.swatch(number), label) for label, number in numbers.items()]


def _label(variant: Variant) -> str:
    return f"{variant.label}{at(variant.level)}"


def at(level: Level) -> str:
    """Where factors stand, as the end of a name; empty where nothing is varied."""
    return f" at {show_level(level)}" if level else ""


def _ns(counts: Iterable[int]) -> str:
    """How many seeds means are of: `n = 3 seeds`, or a range."""
    found = sorted(set(counts))
    return (
        f"n = {found[0]}{f' to {found[-1]}' if len(found) > 1 else ''} seed{'s' if found[-1] > 1 else ''}" if found else "no seeds"
    )
