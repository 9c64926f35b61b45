"""W&B sweep files, run without the W&B server: the same file, the same command, one storage for all processes."""
