"""Values of options, for argparse."""

import argparse
import math
from pathlib import Path

from semconv import files


def positive(text: str) -> int:
    """A whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number, 1 or more")
    return number


def user_path(text: str) -> Path:
    """A path; ~ is the home folder also behind =, where no shell replaces it."""
    try:
        return files.user_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def share(text: str) -> float:
    """A share of one, or a whole number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (0 <= number <= 1 or (number > 1 and number.is_integer())):
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number, or a share between 0 and 1")
    return number
