"""What is said about sources that cannot be read."""


class SourceMissing(ValueError):
    """The data are not there; another source may be."""


class BadImage(ValueError):
    """An image is there, but cannot be read."""
