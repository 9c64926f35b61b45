"""Tables of the documents."""

import re
from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, the first row of which is its head."""
    head, *body = rows
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in row) for row in (head, ["---"] * len(head), *body))


def short(value: float, sign: str = "", digits: int = 4) -> str:
    """A number without its leading zero."""
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.{digits}f}")
