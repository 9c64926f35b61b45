"""Tables of the documents."""

from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, the first row of which is its head."""
    head, *body = rows
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in row) for row in (head, ["---"] * len(head), *body))
