"""The report as a page."""

import time
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from semconv import __version__
from semconv.comparison.report.sections import Section, make
from semconv.comparison.result import Comparison
from semconv.comparison.tables import Sheet, is_number

WORDS = {"beneficial": "✓", "equivalent": "≈", "inconclusive": "?"}


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
        judged=[found for found in comparison.judged if found.verdict],
        words=WORDS,
        endpoints=[endpoint.key for endpoint in comparison.endpoints],
        num_runs=sum(len(variant.runs) for variant in variants),
        num_variants=len({variant.label for variant in variants}),
        baseline=comparison.baseline,
        made=time.strftime("%Y-%m-%d"),
        version=__version__,
    )


def right(sheet: Sheet) -> list[bool]:
    """Which columns of a table stand on the right: those of numbers."""
    return [all(is_number(row[number]) for row in sheet.rows) for number in range(len(sheet.columns))]
