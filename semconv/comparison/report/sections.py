"""The sections of a report: each has figures and tables, or says which runs would give them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from semconv.comparison.declared import WIDE
from semconv.comparison.grouping import Level, Variant, at, controls_of, differences
from semconv.comparison.report import plots, strips
from semconv.comparison.report.sources import Curve, Spread, curve, environments, is_local, keys_of, spread
from semconv.comparison.result import (
    COSTS,
    PARAMETERS,
    Comparison,
    against_baseline,
    beside_baseline,
    by_level,
    classical,
    plain_of,
)
from semconv.comparison.statistics import Paired
from semconv.comparison.tables import Sheet, details, interactions, pareto, results, verdicts
from semconv.comparison.verdicts import PLAIN
from semconv.configuration import flatten
from semconv.metrics import CONDITIONED, FULL, QUICK, Metric, find, of_section, parts

SETTLING = 0.15  # of a training, in which curves may be far above where they end
CANDIDATE, SLOW = 1, "plain_slow"
AGAINST = {PLAIN: 0, "zero": 2, "constant": 3, "fixed": 4, "shuffled": 5, WIDE: 6, SLOW: 7}  # looks beside a candidate's
AGAINST |= {"untrained": 8, "from scratch": 8}


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
    missing: str = ""  # which runs would give data where there are none


def make(comparison: Comparison, more: Sequence[Section] = ()) -> list[Section]:
    """All sections, in the order in which they are read; `more` after the results."""
    return [
        _verdicts(comparison),
        _forest(comparison),
        _results(comparison),
        *more,
        _curves(comparison),
        _costs(comparison),
        _ratios(comparison),
        _probes(comparison),
        _importance(comparison),
        _pictures(comparison),
        _configurations(comparison),
        _environment(comparison),
    ]


def looks(variants: Sequence[Variant]) -> dict[str, int]:
    """A number for each label, which fixes colour, shape and dashes; 0, in the colour of the text, is plain's."""
    shown = [variant for variant in variants if variant.kind != "control"]
    ordered = sorted(shown, key=lambda variant: variant.kind != "baseline")
    return {label: number for number, label in enumerate(dict.fromkeys(variant.label for variant in ordered))}


def _verdicts(comparison: Comparison) -> Section:
    made = [verdicts(comparison, endpoint) for endpoint in comparison.endpoints]
    made = [sheet for sheet in [*made, interactions(comparison)] if sheet.rows]
    text = (
        "A variant is beneficial if it beats, on the same seeds, plain, each of its controls and plain at equal training FLOPs (p "
        "is the largest p value of these comparisons); harmful if it is worse than plain; equivalent to plain if two one-sided "
        "tests place the difference within the margin. Each is corrected over the family by Holm. Every other result is "
        "inconclusive. A gain or loss within the margin is called negligible."
    )
    missing = "" if made else f"No verdict: give runs of {comparison.baseline} and of a conditioned network."
    return Section("verdicts", "Verdicts", text if made else "", sheets=made, missing=missing)


def _forest(comparison: Comparison) -> Section:
    figures = []
    for endpoint in comparison.endpoints:
        for level, _ in _by_level(comparison):
            groups = _against(comparison, endpoint, level)
            if groups:
                caption = (
                    f"{endpoint.key}{at(level)}, paired by seed: mean differences with 95 % t intervals; right is better. "
                    "Shaded: the margin of equivalence to plain. Arrow: the interval goes on. n is the number of seeds."
                )
                drawing = plots.dots(f"Differences in {endpoint.key}{at(level)}", groups, f"{endpoint.label}: better by")
                figures.append(Figure(drawing, caption))
    tables = [sheet for sheet in (details(comparison, endpoint) for endpoint in comparison.endpoints) if sheet.rows]
    missing = "" if figures else f"No seed is common to {comparison.baseline} and another variant: run both with the same seeds."
    return Section("differences", "Paired differences", figures=figures, folded=tables, missing=missing)


def _results(comparison: Comparison) -> Section:
    whole, short = results(comparison), results(comparison, controls=False)
    folded = [whole._replace(title="Results with controls")] if whole != short else []
    return Section("results", "Results", sheets=[short], folded=folded)


def _curves(comparison: Comparison) -> Section:
    numbers, variants = looks(comparison.groups.variants), comparison.groups.variants
    metrics = [metric for metric in of_section("curves") if metric.direction]
    for metric in metrics:
        found = {variant: made for variant in variants if (made := curve(variant, metric.key)) is not None}
        if found:
            break
    else:
        named = " or ".join(metric.key for metric in metrics)
        missing = f"No run at hand has two rows of {named} in its metrics.jsonl: train for longer, or log more often."
        return Section("curves", "Learning curves", missing=missing)
    figures = _curve_figures(comparison, metric, found)
    for other in of_section("progress"):
        if probed := {variant: made for variant in variants if (made := curve(variant, other.key)) is not None}:
            figures += _curve_figures(comparison, other, probed)
    more = [
        _curve_figure(metric, series, found, f"{variant.title} and its controls: {metric.label}")
        for variant in variants
        if (series := _beside_controls(variant, comparison, found))
    ]
    there = {variant.control for variant in found} | {PLAIN}
    looks_beside = {"the variant itself": CANDIDATE, **{name: _look_of(name) for name in sorted(filter(None, there), key=_look_of)}}
    beside = [(plots.swatch(number), name) for name, number in looks_beside.items()]
    return Section("curves", "Learning curves", figures=figures, more=more, legend=_legend(numbers), more_legend=beside)


def _curve_figures(comparison: Comparison, metric: Metric, found: dict[Variant, Curve]) -> list[Figure]:
    """The curves of all variants, a figure for each level."""
    numbers, figures = looks(comparison.groups.variants), []
    for level, shown in _by_level(comparison):
        series = {variant: numbers[variant.label] for variant in shown if variant in found}
        if series:
            figures.append(_curve_figure(metric, series, found, f"{metric.label}{at(level)}"))
    return figures


def _curve_figure(metric: Metric, series: dict[Variant, int], found: dict[Variant, Curve], title: str) -> Figure:
    """Curves of some variants, each with its look."""
    drawn = [plots.Line(variant.label, number, *found[variant][:4]) for variant, number in series.items()]
    drawing = plots.lines(title, drawn, "samples seen", metric.axis, marked=False, settling=SETTLING)
    ns = _ns(found[variant].n for variant in series)
    return Figure(drawing, f"{title} ({metric.key}) against samples seen: mean over {ns}, and range.")


def _beside_controls(variant: Variant, comparison: Comparison, found: dict[Variant, Curve]) -> dict[Variant, int]:
    """Plain, the controls and the candidate itself, as far as they have curves, with their looks; empty without controls."""
    controls = controls_of(variant, comparison.groups.variants) if variant.kind == "candidate" else {}
    named = {control: _look_of(name) for name, control in controls.items() if control in found}
    if not named or variant not in found:
        return {}
    plain = plain_of(variant, comparison.groups.variants)
    return {**({plain: _look_of(PLAIN)} if plain in found else {}), **named, variant: CANDIDATE}


def _costs(comparison: Comparison) -> Section:
    numbers, figures = looks(comparison.groups.variants), []
    for endpoint in comparison.endpoints:
        for cost in COSTS:
            best = comparison.undominated.get((endpoint.key, cost.key))
            if best is None:  # matched
                continue
            for level, _ in _by_level(comparison):
                here = [variant for variant in comparison.groups.variants if variant.level == level]
                points = [
                    _point(variant, x, y, numbers, variant in best, spread(variant, endpoint.baseline))
                    for variant in here
                    if (x := spread(variant, cost.key)) and (y := spread(variant, endpoint.key))
                ]
                if points:
                    name = f"{endpoint.key} against {cost.key}{at(level)}"
                    drawing = plots.scatter(name, points, cost.axis, endpoint.axis, classical(endpoint.key, here))
                    caption = f"{name}: means over {_ns(len(variant.runs) for variant in here)}, and ranges. "
                    caption += f"{'Ringed: on the Pareto front. ' if best else ''}Hollow: controls."
                    if any(point.baseline is not None for point in points):
                        caption += f" Bar at the end of a dotted line: the same network, {endpoint.baseline_name}."
                    figures.append(Figure(drawing, caption))
    missing = "" if figures else "No run has both an endpoint and a cost: train and test with the callbacks of semconv run."
    table = pareto(comparison)
    folded = [table] if table.rows else []
    matched = figures and all(cost != PARAMETERS for _, cost in comparison.undominated)
    text = "All networks have the same number of encoder parameters, within 3 %: they are no cost that differs." if matched else ""
    return Section("costs", "Quality against cost", text, figures=figures, folded=folded, legend=_legend(numbers), missing=missing)


def _ratios(comparison: Comparison) -> Section:
    text = "Trained at one mask ratio (the dashed line), tested at others."
    section = Section("ratios", "Other mask ratios", text, missing=f"No run was evaluated at other mask ratios: give {FULL}.")
    return _over(comparison, section, "mask ratio of the test", _training_ratio(comparison))


def _probes(comparison: Comparison) -> Section:
    text = (
        "Linear probes of the features of single sites, stage by stage; stage 0 is the first. Faint lines without points: the same "
        "network, untrained."
    )
    section = Section("probes", "Linear probes per stage", text, missing=f"No run was evaluated: give {QUICK}.")
    return _over(comparison, section, "stage")


def _over(comparison: Comparison, section: Section, x_name: str, guide: float | None = None) -> Section:
    """The metrics of a section whose keys end in a number, drawn over these numbers, and as tables."""
    numbers = looks(comparison.groups.variants)
    figures, tables = [], []
    for metric in of_section(section.anchor):
        found = parts(metric, keys_of(comparison.groups.variants))
        keys = sorted((float(part), key) for part, key in found.items() if part.replace(".", "", 1).isdecimal())
        places = [place for place, _ in keys]
        for level, shown in _by_level(comparison):
            rows = [(variant, [spread(variant, key) for _, key in keys]) for variant in shown]
            rows = [(variant, spreads) for variant, spreads in rows if any(spreads)]
            if not rows:
                continue
            title = f"{metric.label}{at(level)}"
            series = [_line(variant.label, numbers[variant.label], places, spreads) for variant, spreads in rows]
            faint = _untrained_lines([variant for variant, _ in rows], [key for _, key in keys], places, numbers)
            ticks = places if len(places) < 8 else None
            drawing = plots.lines(title, series, x_name, metric.axis, x_ticks=ticks, guide=guide, faint=faint)
            ns = _ns(each.n for _, spreads in rows for each in spreads if each)
            figures.append(Figure(drawing, f"{title} ({metric.key}): means over {ns}, and ranges."))
            cells = [
                [variant.label, *("" if each is None else metric.show(each.mean) for each in spreads)] for variant, spreads in rows
            ]
            tables.append(Sheet(f"{title}: means", ["variant", *(f"{place:g}" for place in places)], cells))
    if not figures:
        return section._replace(text="")
    return section._replace(missing="", figures=figures, folded=tables, legend=_legend(numbers))


def _importance(comparison: Comparison) -> Section:
    title = "Permutation importance of an indicator"
    groups, ns = [], []
    for variant in comparison.groups.variants:
        dots: dict[str, list[plots.Dot]] = {}
        if variant.kind not in ("candidate", "reference"):
            continue
        for number, metric in enumerate(of_section("importance"), start=1):
            for indicator, key in parts(metric, keys_of([variant])).items():
                if found := spread(variant, key):
                    name = key.rpartition("/")[2].replace("_", " ")
                    dots.setdefault(indicator, []).append(plots.Dot(name, number, found.mean, found.low, found.high))
                    ns.append(found.n)
        groups += [(f"{variant.title}: {indicator}", rows, 0.0) for indicator, rows in dots.items()]
    if not groups:
        return Section("importance", title, missing=f"No run has it: give {CONDITIONED}.")
    caption = (
        f"Rise of test/masked_mse if one indicator is replaced, in trained networks: means over {_ns(ns)}, and ranges. Zeroed: by "
        "0; shuffled: by its values on another image; another mask: by its values on the mask of one image, for all images."
    )
    drawing = plots.dots(title, groups, "masked MSE rises by")
    return Section("importance", title, figures=[Figure(drawing, caption)])


def _pictures(comparison: Comparison) -> Section:
    title = "Reconstructions of the same images"
    order = {"baseline": 0, "candidate": 1, "control": 1, "reference": 2, "oracle": 3}
    levels = [level for level, _ in _by_level(comparison)]
    ordered = sorted(
        comparison.groups.variants,
        key=lambda variant: (levels.index(variant.level), order[variant.kind], variant.experiment, variant.label),
    )
    found = strips.gather(ordered)
    if not found.strips:
        return Section(
            "pictures", title, missing="No run at hand has pictures in media/test: semconv run and semconv test save them."
        )
    caption = (
        f"The same test images (numbers {', '.join(map(str, found.numbers))} of the set) under the same masks: the reconstruction "
        f"of each variant, in the first of its seeds, pasted into the hidden cells. {found.size / 1000:,.0f} kB of pictures."
    )
    if any(variant.first.protocol.get("model.objective.normalise") for variant in ordered):
        caption += " Targets are normalised: each reconstructed patch has the true mean and contrast."
    if found.left_out:
        caption += f" Not shown, as pictures are missing, of other images, or too many: {', '.join(found.left_out)}."
    return Section("pictures", title, figures=[Figure(strips.draw(found), caption, wide=True)])


def _configurations(comparison: Comparison) -> Section:
    variants = comparison.groups.variants
    flat = {variant: flatten(variant.first.summary["variant"]) for variant in variants}
    keys = list(differences(flat.values()))
    labels = dict.fromkeys((variant.label, *(config.get(key) for key in keys)) for variant, config in flat.items())
    rows = [["" if value is None else str(value) for value in row] for row in labels]
    sheets = [Sheet("Differences between variants", ["variant", *keys], rows)] if keys else []
    varied = {**comparison.groups.factors, **comparison.groups.allowed}
    protocol = {key: value for key, value in variants[0].first.protocol.items() if key not in varied}
    shared = [[key, str(value)] for key, value in protocol.items()]
    named = {"factor": comparison.groups.factors, "allowed to differ": comparison.groups.allowed}
    keys_varied = [[key, ", ".join(map(str, values)), role] for role, found in named.items() for key, values in found.items()]
    if keys_varied:
        sheets.append(Sheet("Differences in the protocol", ["key", "values", "role"], keys_varied))
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
    return Section("environment", "Environment", sheets=[Sheet("Software and hardware of the runs", ["part", "value"], rows)])


def _against(comparison: Comparison, endpoint: Metric, level: Level) -> list[tuple[str, list[plots.Dot], float]]:
    """Each candidate's comparisons, and each reference's with plain, as groups of rows."""
    groups = []
    for judged in comparison.judged:
        evidence = judged.evidence
        if judged.endpoint == endpoint and judged.variant.level == level and evidence.against:
            word = f": {judged.verdict.text}" if judged.verdict else ""
            n = _ns(found.n for found in evidence.against.values())
            rows = [_dot(name, found) for name, found in evidence.against.items()] + _beside_baseline(judged.variant, endpoint)
            groups.append((f"{judged.variant.label}{word}, {n}", rows, evidence.margin if PLAIN in evidence.against else 0.0))
    for variant, of, found in comparison.references:
        if of == endpoint and variant.level == level:
            rows = [_dot(PLAIN, found), *_beside_baseline(variant, endpoint)]
            groups.append((f"{variant.label} (reference), {_ns([found.n])}", rows, 0.0))
    for plain in (each for each in comparison.groups.variants if each.kind == "baseline" and each.level == level):
        if rows := _beside_baseline(plain, endpoint):
            groups.append((f"{plain.label} (plain), {_ns([len(beside_baseline(plain, endpoint))])}", rows, 0.0))
    return groups


def _beside_baseline(variant: Variant, endpoint: Metric) -> list[plots.Dot]:
    """A row of a variant against the same network untrained, or from scratch, where that has been measured."""
    found = against_baseline(variant, endpoint)
    return [_dot(endpoint.baseline_name, found)] if found else []


def _dot(name: str, found: Paired) -> plots.Dot:
    return plots.Dot(name, _look_of(name), found.difference, found.low, found.high)


def _untrained_lines(
    variants: Sequence[Variant], keys: Sequence[str], places: Sequence[float], numbers: dict[str, int]
) -> list[plots.Line]:
    """What the networks of some variants give before training, as faint lines in their looks."""
    baselines = [metric.baseline if (metric := find(key)) else "" for key in keys]
    found = {variant: [spread(variant, key) for key in baselines] for variant in variants}
    return [
        _line(f"{variant.label}, untrained", numbers[variant.label], places, spreads)
        for variant, spreads in found.items()
        if any(spreads)
    ]


def _point(
    variant: Variant, cost: Spread, quality: Spread, numbers: dict[str, int], best: bool, baseline: Spread | None
) -> plots.Point:
    number = _look_of(variant.control) if variant.control else numbers[variant.label]
    x, y = ((found.low, found.mean, found.high) for found in (cost, quality))
    return plots.Point(variant.label, number, x, y, best, variant.control is not None, baseline.mean if baseline else None)


def _look_of(control: str) -> int:
    """The look of a control; a user's own controls share one."""
    return AGAINST.get(control, len(AGAINST) + 1)


def _line(name: str, number: int, places: Sequence[float], found: Sequence[Spread | None]) -> plots.Line:
    there = [(place, each.mean, each.low, each.high) for place, each in zip(places, found, strict=True) if each is not None]
    return plots.Line(name, number, *map(list, zip(*there, strict=True)))


def _by_level(comparison: Comparison) -> list[tuple[Level, list[Variant]]]:
    """The variants that are no controls, by level."""
    levels = by_level(comparison.groups.variants)
    return [(level, [variant for variant in here if variant.kind != "control"]) for level, here in levels.items()]


def _training_ratio(comparison: Comparison) -> float | None:
    ratios = {run.protocol.get("model.masker.ratio") for variant in comparison.groups.variants for run in variant.runs.values()}
    ratio = next(iter(ratios)) if len(ratios) == 1 else None
    return ratio if isinstance(ratio, int | float) else None


def _legend(numbers: dict[str, int]) -> list[tuple[Markup, str]]:
    return [(plots.swatch(number), label) for label, number in numbers.items()]


def _ns(counts: Iterable[int]) -> str:
    """The number of seeds behind means: `n = 3 seeds`, or a range."""
    found = sorted(set(counts))
    return (
        f"n = {found[0]}{f' to {found[-1]}' if len(found) > 1 else ''} seed{'s' if found[-1] > 1 else ''}" if found else "no seeds"
    )
