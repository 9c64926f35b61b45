"""docs/mechanisms.md names what exists."""

import re
from pathlib import Path

from semconv import mechanisms

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "mechanisms.md").read_text(encoding="utf-8")


def test_every_test_that_it_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) >= 12
    assert [f"{file}::{name}" for file, name in named if f"\ndef {name}(" not in (ROOT / file).read_text(encoding="utf-8")] == []


def test_every_mechanism_has_its_row():
    assert [name for name in mechanisms.__all__ if name != "Mechanism" and f"\n| `{name}` |" not in PAGE] == []
