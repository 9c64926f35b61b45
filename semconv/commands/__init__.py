"""What `semconv check`, `export` and `predict` print and ask for; each imports what computes when it is about to compute."""
