"""Mutation testing: small faults are put into the package, one at a time, and the tests have to notice them."""
