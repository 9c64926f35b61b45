"""Errors of sources that cannot be read."""


class SourceMissing(ValueError):
    """The data of a source are missing; another source may have them."""


class BadImage(ValueError):
    """An image exists but cannot be read.

    Args:
        reason: what is wrong, with the image's name.
        remedy: what can be done about it where images are read for training; part of the message.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason}: {remedy}" if remedy else reason)
        self.reason = reason
