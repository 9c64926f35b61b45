"""The report as a page."""

import time
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from semconv.comparison.grouping import setting
from semconv.comparison.report.sections import Section, at, make
from semconv.comparison.result import Comparison
from semconv.comparison.tables import Sheet, is_number
from semconv.comparison.verdicts import Word
from semconv.version import __version__

SIGNS: dict[Word, str] = {"beneficial": "✓", "equivalent": "≈", "inconclusive": "?"}
NAMED = 6  # variants of one verdict, at the head of the page


class Finding(NamedTuple):
    """A verdict with all that it is said of."""

    sign: str
    word: Word
    what: str
    names: str


def render(comparison: Comparison, notes: list[str]) -> str:
    """A whole page. Names from outside are text on it, whatever they hold, and it may run no script.

    Args:
        comparison: what it is about.
        notes: said first.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["right"] = right
    variants = comparison.groups.variants
    sections: list[Section] = make(comparison)
    return environment.get_template("template.html").render(
        sections=sections,
        notes=notes,
        findings=findings(comparison),
        endpoints=[endpoint.key for endpoint in comparison.endpoints],
        num_runs=sum(len(variant.runs) for variant in variants),
        num_variants=len({variant.label for variant in variants}),
        baseline=comparison.baseline,
        made=time.strftime("%Y-%m-%d"),
        version=__version__,
    )


def findings(comparison: Comparison) -> list[Finding]:
    """The verdicts in short: by endpoint and by what is done to hidden cells, of whom each word is said."""
    found = []
    for endpoint in comparison.endpoints:
        for word, sign in SIGNS.items():
            names: dict[str, list[str]] = {}
            for each in comparison.judged:
                if each.endpoint == endpoint and each.verdict and each.verdict.word == word:
                    names.setdefault(setting(each.variant), []).append(f"{each.variant.label}{at(each.variant.level)}")
            for under, named in names.items():
                more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
                what = f"{'to plain ' if word == 'equivalent' else ''}for {endpoint.name}{f' under {under}' if under else ''}"
                found.append(Finding(sign, word, what, ", ".join(named[:NAMED]) + more))
    return found


def right(sheet: Sheet) -> list[bool]:
    """Which columns of a table stand on the right: those of numbers."""
    return [all(is_number(row[number]) for row in sheet.rows) for number in range(len(sheet.columns))]
