"""What every run ends with: how well it reconstructs, what its features are worth, what they know, and what it cost."""
