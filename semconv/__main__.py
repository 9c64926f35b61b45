"""The `semconv` command."""

import os
import sys

# OpenMP's threads wait for each other spinning, and so slow down other runs on the same cores; asleep they cost nothing
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def main() -> None:
    """Dispatch to a subcommand; only those that train import torch."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["compare"]:
        from semconv.comparison import main as compare

        compare(arguments[1:])
    else:
        from semconv.cli import main as train

        train(arguments)


if __name__ == "__main__":
    main()
