"""One HTML file of a comparison, which needs neither a network nor JavaScript."""

from semconv.comparison.report.page import render

__all__ = ["render"]
