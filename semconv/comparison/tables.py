"""A comparison as tables: for the terminal, Markdown and CSV."""

import csv
import io
import re
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from semconv.comparison.grouping import Variant, setting
from semconv.comparison.result import COSTS, Comparison, against_baseline, by_level, classical, unsteady
from semconv.comparison.statistics import Paired
from semconv.comparison.verdicts import PLAIN, Verdict
from semconv.metrics import CLASSICAL, MASKED_MSE, MEAN_FILL, Metric

SHOWN_COSTS = [cost for cost in COSTS if cost.key != "cost/peak_memory_bytes"]  # which the CSV file and the report show


class Sheet(NamedTuple):
    """A table without a format."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def sheets(comparison: Comparison) -> list[Sheet]:
    """Results, verdicts, the comparisons behind them, interactions, and quality against cost; empty ones are left out."""
    made = [results(comparison), *(verdicts(comparison, endpoint) for endpoint in comparison.endpoints)]
    made += [details(comparison, endpoint) for endpoint in comparison.endpoints]
    made += [interactions(comparison), pareto(comparison)]
    return [sheet for sheet in made if sheet.rows]


def to_rich(sheet: Sheet) -> Table:
    """A table for the terminal, without its title; text on the left, numbers on the right."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, column in enumerate(sheet.columns):
        right = all(is_number(row[number]) for row in sheet.rows)
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in sheet.rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    return table


def is_number(cell: str) -> bool:
    """True for a cell of a column of numbers."""
    return not cell or cell[0] in "+-0123456789.<"


def to_markdown(sheet: Sheet) -> str:
    """A Markdown table below a heading."""
    lines = [sheet.columns, ["---"] * len(sheet.columns), *sheet.rows]
    body = ("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)
    return "\n".join([f"## {sheet.title}", "", *body, ""])


def _escaped(cell: str) -> str:
    """A cell as text, whatever a run calls itself: no further cell, no HTML, no link."""
    text = re.sub(r"([|\\`]|\](?=\())", r"\\\1", cell.replace("\n", " "))
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def _no_formula(value: object) -> object:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def to_csv(comparison: Comparison) -> str:
    """One row per variant and level, as `as_rows` gives them."""
    rows = as_rows(comparison)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    names = ("variant", "kind", *comparison.groups.factors)
    writer.writerows({key: _no_formula(value) if key in names else value for key, value in row.items()} for row in rows)
    return text.getvalue()


def as_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per variant and level: values of tuned keys, n, mean and deviation of each endpoint, verdicts, costs."""
    rows = []
    for variant in comparison.groups.variants:
        row = {"variant": variant.label, "kind": variant.kind, **dict(variant.level), **_tuned(variant, comparison)}
        row["n"] = len(variant.runs)
        for endpoint in comparison.endpoints:
            values = list(variant.values(endpoint.key).values())
            against, verdict = _found(comparison, variant, endpoint)
            found = {
                "mean": variant.mean(endpoint.key),
                "sd": statistics.stdev(values) if len(values) > 1 else None,
                "n": len(values),
                **dict(
                    zip(
                        ("difference", "low", "high", "seeds compared"),
                        (against.difference, against.low, against.high, against.n) if against else (None,) * 4,
                        strict=True,
                    )
                ),
                "p": verdict.p if verdict else None,
                "verdict": verdict.text if verdict else None,
            }
            row |= {f"{endpoint.key} {what}": value for what, value in found.items()}
            if endpoint.baseline:
                row[f"{endpoint.key} {endpoint.baseline_name}"] = variant.mean(endpoint.baseline)
        rows.append(row | {cost.key: variant.mean(cost.key) for cost in COSTS})
    return rows


def _tuned(variant: Variant, comparison: Comparison) -> dict[str, Any]:
    """The values of the keys that each variant has at its own value."""
    return {key: value for key, value in variant.chosen if key in comparison.groups.tuned}


def _found(comparison: Comparison, variant: Variant, endpoint: Metric) -> tuple[Paired | None, Verdict | None]:
    """A variant against plain, and the verdict on it."""
    for judged in comparison.judged:
        if judged.variant is variant and judged.endpoint == endpoint:
            return judged.evidence.against.get(PLAIN), judged.verdict
    for other, of, found in comparison.references:
        if other is variant and of == endpoint:
            return found, None
    return None, None


def results(comparison: Comparison, controls: bool = True) -> Sheet:
    """Every variant by every endpoint, with its cost, the best first; without controls where these are not wanted."""
    keys = [endpoint.key for endpoint in comparison.endpoints]
    tuned = comparison.groups.tuned
    columns = ["variant", *comparison.groups.factors, *(key.rpartition(".")[2] for key in tuned), "n", *keys]
    columns += [cost.head for cost in SHOWN_COSTS]
    rows = []
    for level, here in by_level(comparison.groups.variants).items():
        shown = [variant for variant in here if controls or variant.kind != "control"]
        for variant in sorted(shown, key=lambda variant: _rank(variant, comparison.endpoints[0])):
            values = [str(value) for value in _tuned(variant, comparison).values()]
            count = _count(variant, comparison.endpoints)
            rows.append([_marked(variant), *_level(variant), *values, count, *_numbers(variant, keys)])
            below = _baselines(variant, comparison.endpoints) if variant.kind != "control" else ()
            rows += [[name, *_level(variant), *[""] * len(tuned), *cells] for name, cells in below]
        means, free = [classical(key, here) for key in keys], ["" if cost.direction == "higher" else "0" for cost in SHOWN_COSTS]
        for name in CLASSICAL:
            cells = [f"{found[name]:.4f}" if name in found else "" for found in means]
            if any(cells):
                rows.append([name, *(str(value) for _, value in level), *[""] * len(tuned), "", *cells, *free])
    return Sheet("Results: mean ± standard deviation over seeds", columns, rows)


def _baselines(variant: Variant, endpoints: Sequence[Metric]) -> Iterator[tuple[str, list[str]]]:
    """Rows of the same network untrained, or from scratch, where a run has measured that: name, n, and a cell per endpoint."""
    for name in dict.fromkeys(endpoint.baseline_name for endpoint in endpoints if endpoint.baseline):
        found = [list(variant.values(each.baseline).values()) if each.baseline_name == name else [] for each in endpoints]
        if any(found):
            yield f"{_named(variant)}, {name}", [str(max(map(len, found))), *map(_spread, found), *[""] * len(SHOWN_COSTS)]


def _count(variant: Variant, endpoints: Sequence[Metric]) -> str:
    """The number of runs, and of those that have diverged."""
    failed = {seed for endpoint in endpoints for seed in variant.failed(endpoint.key)}
    return f"{len(variant.runs)} ({len(failed)} failed)" if failed else str(len(variant.runs))


def _numbers(variant: Variant, keys: Sequence[str]) -> list[str]:
    costs = [(cost, variant.mean(cost.key)) for cost in SHOWN_COSTS]
    return [
        *(_spread(list(variant.values(key).values())) for key in keys),
        *("" if mean is None else cost.show(mean) for cost, mean in costs),
    ]


def verdicts(comparison: Comparison, endpoint: Metric) -> Sheet:
    """The verdict on every candidate by one endpoint, and its reason."""
    columns = ["variant", *comparison.groups.factors, "n", "verdict", "better than plain by", "95 % interval", "p (Holm)", "reason"]
    rows = []
    for judged in comparison.judged:
        plain = judged.evidence.against.get(PLAIN)
        if judged.endpoint != endpoint or judged.verdict is None:
            continue
        verdict = judged.verdict
        word = verdict.text
        if verdict.word in ("beneficial", "harmful"):
            word = " under ".join(filter(None, (f"{verdict.word} for {endpoint.name}", setting(judged.variant.first))))
            word += ", but negligible" * verdict.negligible
        n = str(plain.n) if plain else "0"
        cells = [_signed(plain.difference) if plain else "", _interval(plain), _p(verdict.p), verdict.reason]
        rows.append([judged.variant.label, *_level(judged.variant), n, word, *cells])
    return Sheet(f"Verdicts on {endpoint.key}: {endpoint.name}, family of {len(comparison.family)}", columns, rows)


def details(comparison: Comparison, endpoint: Metric) -> Sheet:
    """Every paired comparison behind the verdicts, and those of references with plain."""
    columns = ["variant", *comparison.groups.factors, "against", "n", "better by", "95 % interval", "p (uncorrected)", "d_z"]
    rows = []
    for judged in comparison.judged:
        if judged.endpoint == endpoint:
            for name, found in judged.evidence.against.items():
                rows.append([judged.variant.label, *_level(judged.variant), name, *_paired(found)])
    for variant, of, found in comparison.references:
        if of == endpoint:
            rows.append([_named(variant), *_level(variant), PLAIN, *_paired(found)])
    for variant in comparison.groups.variants:
        own = against_baseline(variant, endpoint)
        if own is not None:
            rows.append([_named(variant), *_level(variant), endpoint.baseline_name, *_paired(own)])
    return Sheet(f"Comparisons on {endpoint.key}, paired by seed; positive is better", columns, rows)


def interactions(comparison: Comparison) -> Sheet:
    """Tests whether gains depend on the factors."""
    factors = ", ".join(comparison.groups.factors)
    rows = [[found.label, found.endpoint.key, f"{found.statistic:.3g}", _p(found.p)] for found in comparison.interactions]
    return Sheet(f"Does the gain over plain depend on {factors}?", ["variant", "endpoint", "F", "p (uncorrected)"], rows)


def pareto(comparison: Comparison) -> Sheet:
    """The Pareto front of each endpoint and cost."""
    rows, costs = [], {cost.key: cost for cost in COSTS}
    for (endpoint, cost), variants in comparison.undominated.items():
        ratio = unsteady(comparison.groups.variants, costs[cost])
        said = ", ".join(variant.title for variant in variants)
        if ratio:
            said = f"none: runs of one network differ by a factor of up to {ratio:.2g}"
        if said:
            rows.append([endpoint, cost.removeprefix("cost/"), said])
    return Sheet(
        "Pareto front: no other variant is better at the same cost, or as good at a lower cost; without controls",
        ["quality", "cost", "variants"],
        rows,
    )


def _marked(variant: Variant) -> str:
    error, filled = variant.mean(MASKED_MSE), variant.mean(MEAN_FILL)
    beaten = error is None or filled is None or error < filled
    return _named(variant) if beaten else f"{_named(variant)} (does not beat mean fill)"


def _named(variant: Variant) -> str:
    return f"{variant.label} (oracle: not ranked)" if variant.kind == "oracle" else variant.label


def _rank(variant: Variant, endpoint: Metric) -> tuple[bool, float]:
    """A key that sorts the best first, and oracles last."""
    mean = variant.mean(endpoint.key)
    return variant.kind == "oracle", float("inf") if mean is None else -endpoint.sign * mean


def _level(variant: Variant) -> list[str]:
    return ["none" if value is None else str(value) for _, value in variant.level]


def _paired(found: Paired) -> list[str]:
    effect = "" if found.effect is None else f"{found.effect:.2f}"
    return [str(found.n), _signed(found.difference), _interval(found), _p(found.p), effect]


def _interval(found: Paired | None) -> str:
    return "" if found is None or found.low is None or found.high is None else f"{_signed(found.low)} to {_signed(found.high)}"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _p(p: float | None) -> str:
    return "" if p is None else "<.001" if p < 0.001 else f"{p:.3f}"


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"
