"""Values of options, for argparse."""

import argparse
import math
from pathlib import Path

from semconv import files


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return number


def user_path(text: str) -> Path:
    """A path; ~ is the home folder also behind =, where no shell replaces it."""
    try:
        return files.user_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def share(text: str) -> float:
    """A share of one, or a whole number."""
    number = float(text)
    if not (0 <= number <= 1 or (number > 1 and math.isfinite(number) and number.is_integer())):
        raise argparse.ArgumentTypeError("give a whole number, or a share between 0 and 1")
    return number
