"""The commands of `semconv`, one module each. A module imports torch only when it is about to compute."""
