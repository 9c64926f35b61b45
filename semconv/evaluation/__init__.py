"""The evaluation at the end of every run: reconstruction, probes of features, what they know, and what it cost."""
