"""How the command speaks of errors."""

import sys
from typing import NoReturn


def fail(message: str) -> NoReturn:
    """Print one line and exit with code 2."""
    print("semconv: error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
