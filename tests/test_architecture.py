"""docs/architecture.md against the package."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def rows(section):
    """The cells of a section's first table, without its head."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")][2:]


def test_the_map_names_all_of_the_package_and_nothing_else():
    named = [row[0].strip("`/") for row in rows("Map")]
    there = {path.name for path in (ROOT / "semconv").iterdir() if path.is_dir() or path.suffix == ".py"} - {"__pycache__"}
    assert len(set(named)) == len(named)
    assert set(named) == there


def test_the_layers_are_those_of_the_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = [sorted(layer.split(" | ")) for layer in contracts[0]["layers"]]
    assert [sorted(re.findall(r"`(\w+)`", modules)) for _, modules in rows("Layers")] == layers
    assert [int(number) for number, _ in rows("Layers")] == list(range(len(layers), 0, -1))
