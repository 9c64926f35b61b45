"""From finished runs to verdicts. Imports no torch."""
