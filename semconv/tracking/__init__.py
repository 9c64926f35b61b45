"""What a run leaves behind: its folder, its environment, its row in W&B. Imports neither torch nor Lightning nor W&B by itself."""
