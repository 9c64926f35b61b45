"""The lowest versions that pyproject.toml allows, as constraints for pip: `make test-minimum` runs the tests on them.

torch is left out: it comes with torchvision, in whatever version the machine has.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lowest(project: dict) -> list[str]:
    """`name==version` of every dependency, also of extras, that has a lower bound."""
    extras = (names for group in project["optional-dependencies"].values() for names in group)
    found = (re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", name) for name in (*project["dependencies"], *extras))
    return [f"{match[1]}=={match[2]}" for match in found if match and match[1] != "torch"]


if __name__ == "__main__":
    print("\n".join(lowest(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])))
