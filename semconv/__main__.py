"""The `semconv` command."""

import sys


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
