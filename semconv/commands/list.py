"""`semconv list`: variants, data, sweeps, studies, parts and metrics. Imports no torch."""

import argparse
import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from semconv.commands.errors import fail
from semconv.commands.values import user_path
from semconv.metrics import METRICS
from semconv.shipped import Kind, folders
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
# files by kind: their folder
FILES: dict[str, Kind] = {"sweeps": "sweeps", "studies": "sweeps/studies"}
KINDS = ("variants", "data", *FILES, *PARTS, "metrics")


def main(arguments: list[str]) -> None:
    """Print one line for each variant and each part."""
    given = make_parser().parse_args(arguments)
    unknown = [kind for kind in given.kinds if kind not in KINDS]
    if unknown:
        fail(f"there is no kind {unknown[0]}: choose among {', '.join(KINDS)}")
    places = [given.experiments] if given.experiments else folders("experiments")
    found = dict(list_classes())
    for kind in given.kinds or KINDS:
        if kind == "metrics":
            rows = [(metric.key, "; needs ".join(filter(None, (metric.axis, metric.needs)))) for metric in METRICS]
        else:
            rows = found[PARTS[kind]] if kind in PARTS else list_files(kind, places)
        width = max((len(name) for name, _ in rows), default=0)
        print("\n".join([f"{kind}:", *(f"  {name:<{width}}  {line}" for name, line in rows), ""]))


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(
        prog="semconv list", description="List variants, data, sweeps, studies, the parts that variants are made of, and metrics."
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; default: all.")
    parser.add_argument(
        "--experiments",
        type=user_path,
        metavar="DIR",
        help="Folder of the variants' files (those of semconv, and experiments here).",
    )
    return parser


def list_files(kind: str, places: Sequence[Path]) -> list[tuple[str, str]]:
    """List each file of a kind by the name that finds it, with the question in its header.

    Args:
        kind: variants, data, sweeps or studies.
        places: folders of experiments; of two files of one name, the one in the later folder counts.
    """
    if kind == "variants":
        return list_variants(*places)
    found = [place / "data" for place in places] if kind == "data" else folders(FILES[kind])
    files = {path.stem: path for place in found for path in place.glob("*.yaml")}
    return [(name, question) for name, path in sorted(files.items()) if (question := _read(path)[1])]


def list_variants(*places: Path) -> list[tuple[str, str]]:
    """List each variant's name and its question; base.yaml is no variant.

    Args:
        places: folders; of two files of one name, the one in the later folder counts.
    """
    files = {path.name: path for place in places for path in place.glob("*.yaml")}
    rows = []
    for _, path in sorted(files.items()):
        content, question = _read(path)
        name = content.get("experiment")
        if isinstance(name, str) and name != "unnamed":
            rows.append((name, question))
    if not rows:
        fail(f"there is no variant in {', '.join(map(str, places))}: give the folder of the variants' files by --experiments")
    return rows


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """The content of a file, and the first line of its header that is no command; empty of one that is no configuration."""
    try:
        text = path.read_text(encoding="utf-8")
        content = parse_yaml(text)
    except ValueError:
        return {}, ""  # a folder of that name may hold anything
    header = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    question = next((line for line in header if not line.startswith("semconv ")), "")
    return (content, question) if isinstance(content, dict) else ({}, "")


def list_classes() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """For each kind of part, its classes as class path and first line of the docstring, without the classes that name a kind."""
    some = re.compile(rf"^class \w+\([^)]*\b({'|'.join(PARTS.values())})\b", re.MULTILINE)  # six times as fast as to parse all
    classes = [
        (f"semconv.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}.{node.name}", node)
        for path in sorted(PACKAGE.rglob("*.py"))
        if some.search(text := path.read_text(encoding="utf-8"))
        for node in ast.parse(text).body
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
