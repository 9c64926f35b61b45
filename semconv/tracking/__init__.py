"""The records of a run: its folder, its environment, its run in W&B. Importing it loads neither torch nor Lightning nor W&B."""
