"""`semconv list`: variants, parts and metrics. Imports no torch."""

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

from semconv.commands.errors import fail
from semconv.metrics import METRICS
from semconv.shipped import folders
from semconv.yaml_files import parse_yaml

PACKAGE = Path(__file__).parents[1]
# parts by the class that they extend
PARTS = {
    "mechanisms": "Mechanism",
    "indicators": "Indicator",
    "maskers": "Masker",
    "corruptions": "Corruption",
    "fills": "Fill",
    "encoders": "Encoder",
    "decoders": "Decoder",
    "controls": "Control",
    "baselines": "ClassicalBaseline",
}
KINDS = ("variants", *PARTS, "metrics")


def main(arguments: list[str]) -> None:
    """Print one line for each variant and each part."""
    parser = argparse.ArgumentParser(prog="semconv list", description="List variants, the parts they are made of, and metrics.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; default: all.")
    parser.add_argument(
        "--experiments", type=Path, metavar="DIR", help="Folder of the variants' files (those of semconv, and experiments here)."
    )
    given = parser.parse_args(arguments)
    unknown = [kind for kind in given.kinds if kind not in KINDS]
    if unknown:
        fail(f"there is no kind {unknown[0]}: choose among {', '.join(KINDS)}")
    places = [given.experiments] if given.experiments else folders("experiments")
    found = dict(list_classes())
    for kind in given.kinds or KINDS:
        if kind == "metrics":
            rows = [(metric.key, "; needs ".join(filter(None, (metric.axis, metric.needs)))) for metric in METRICS]
        else:
            rows = list_variants(*places) if kind == "variants" else found[PARTS[kind]]
        width = max(len(name) for name, _ in rows)
        print("\n".join([f"{kind}:", *(f"  {name:<{width}}  {line}" for name, line in rows), ""]))


def list_variants(*places: Path) -> list[tuple[str, str]]:
    """List each variant's name and its question, the second line of its file; base.yaml is no variant.

    Args:
        places: folders; of two files of one name, the one in the later folder counts.
    """
    files = {path.name: path for place in places for path in place.glob("*.yaml")}
    rows = []
    for _, path in sorted(files.items()):
        try:
            text = path.read_text(encoding="utf-8")
            content = parse_yaml(text)
        except ValueError:
            continue  # a folder of that name may hold anything
        name = content.get("experiment") if isinstance(content, dict) else None
        if isinstance(name, str) and name != "unnamed":
            comments = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
            rows.append((name, comments[1] if len(comments) > 1 else ""))
    if not rows:
        fail(f"there is no variant in {', '.join(map(str, places))}: give the folder of the variants' files by --experiments")
    return rows


def list_classes() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """For each kind of part, its classes as class path and first line of the docstring, without the classes that name a kind."""
    classes = [
        (f"semconv.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}.{node.name}", node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name not in PARTS.values()
    ]
    for kind in PARTS.values():
        yield (
            kind,
            [
                (_shortest(path), (ast.get_docstring(node) or "").partition("\n")[0])
                for path, node in classes
                if any(isinstance(base, ast.Name) and base.id == kind for base in node.bases)
            ],
        )


def _shortest(path: str) -> str:
    """A class path without its module where the package above exports the class."""
    package, _, name = path.rpartition(".")
    above = package.rpartition(".")[0]
    exports = PACKAGE.parent.joinpath(*above.split("."), "__init__.py")
    exported = above != "semconv" and f'"{name}"' in exports.read_text(encoding="utf-8")
    return f"{above}.{name}" if exported else path
