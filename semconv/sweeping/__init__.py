"""Sweeps in Weights & Biases' schema, run without its server: the same file, the same command, one storage for all processes."""
