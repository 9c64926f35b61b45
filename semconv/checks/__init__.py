"""Checks of any experiment, a user's own classes included: leakage and visibility."""
