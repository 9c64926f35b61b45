"""The report as a page."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape

from semconv.comparison.finished import headlines, notes_on
from semconv.comparison.grouping import setting
from semconv.comparison.report.sections import Section, make
from semconv.comparison.result import Comparison
from semconv.comparison.tables import Sheet, is_number
from semconv.comparison.verdicts import Word
from semconv.version import __version__

SIGNS: dict[Word, str] = {"beneficial": "✓", "harmful": "✗", "equivalent": "≈", "inconclusive": "?"}
NAMED = 6  # variants of one verdict, at the head of the page


class Finding(NamedTuple):
    """A verdict and the variants that it applies to."""

    sign: str
    word: Word
    text: str  # the word, and whether it is negligible
    what: str
    names: str


def render(comparison: Comparison, notes: list[str], more: Sequence[Section] = ()) -> str:
    """A whole page. Names from outside are text on it, whatever they contain, and the page forbids scripts.

    Args:
        comparison: what the page shows.
        notes: lines at its head.
        more: sections that stand after the results.
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
    return environment.get_template("template.html").render(
        sections=make(comparison, more),
        notes=notes,
        findings=findings(comparison),
        headlines=list(headlines(comparison)),
        endpoints=[endpoint.key for endpoint in comparison.endpoints],
        num_runs=sum(len(variant.runs) for variant in variants),
        num_variants=len({variant.label for variant in variants}),
        baseline=comparison.baseline,
        made=time.strftime("%Y-%m-%d"),
        version=__version__,
    )


def inline(comparison: Comparison) -> str:
    """The page in a frame, for a notebook: its styles stay inside of it."""
    page = escape(render(comparison, notes_on(comparison)))
    return f'<iframe srcdoc="{page}" title="semconv: report" style="width: 100%; height: 40rem; border: 0"></iframe>'


def findings(comparison: Comparison) -> list[Finding]:
    """The verdicts in short: for each endpoint, word and corruption the variants that it applies to."""
    found = []
    for endpoint in comparison.endpoints:
        for word, sign in SIGNS.items():
            names: dict[tuple[str, str], list[str]] = {}
            for each in comparison.judged:
                if each.endpoint == endpoint and each.verdict and each.verdict.word == word:
                    names.setdefault((each.verdict.text, setting(each.variant.first)), []).append(each.variant.title)
            for (text, under), named in names.items():
                more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
                what = f"{'to plain ' if word == 'equivalent' else ''}for {endpoint.name}{f' under {under}' if under else ''}"
                found.append(Finding(sign, word, text, what, ", ".join(named[:NAMED]) + more))
    return found


def right(sheet: Sheet) -> list[bool]:
    """True for each column of a table that holds numbers, which are aligned right."""
    return [all(is_number(row[number]) for row in sheet.rows) for number in range(len(sheet.columns))]
