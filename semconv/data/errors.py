"""What is said about sources that cannot be read."""


class SourceMissing(ValueError):
    """The data are not there; another source may be."""


def one_line(error: Exception) -> str:
    """An error's message on one line, without its last full stop."""
    return " ".join(f"{error}".split()).rstrip(".") or type(error).__name__


class BadImage(ValueError):
    """An image is there, but cannot be read."""
