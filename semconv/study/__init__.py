"""Studies: tune every network, screen candidates, confirm a few of them, report. Imports no torch."""
