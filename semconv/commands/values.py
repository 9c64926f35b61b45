"""Values of options, for argparse."""

import argparse
import math
from pathlib import Path


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return number


def user_path(text: str) -> Path:
    """A path; ~ is the home folder also behind =, where no shell replaces it."""
    return Path(text).expanduser()


def share(text: str) -> float:
    """A share of one, or a whole number."""
    number = float(text)
    if not (0 <= number <= 1 or (number > 1 and math.isfinite(number) and number.is_integer())):
        raise argparse.ArgumentTypeError("give a whole number, or a share between 0 and 1")
    return number
