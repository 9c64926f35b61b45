"""Errors of sources that cannot be read."""


class SourceMissing(ValueError):
    """The data of a source are missing; another source may have them."""


class BadImage(ValueError):
    """An image exists but cannot be read."""
