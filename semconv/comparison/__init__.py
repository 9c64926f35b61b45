"""`semconv compare`: from finished runs to verdicts. Imports no torch."""

from semconv.comparison.command import main

__all__ = ["main"]
