"""Fill the marked places of the documents, and the headers of study files, with what results/*.csv and benchmarks/results/*.json
say: python -m results.fill

A place stands between `<!-- results: KIND STUDY … -->` and `<!-- end of results -->`; KIND is one of `KINDS`. In a study file it is
the line `# Came out: …`. Verdicts are those of `semconv compare` on the same table.
"""

import itertools
import json
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from results import reasons, tables, verdicts
from results.tables import ROOT, table, under
from semconv.comparison.declared import WIDE
from semconv.comparison.grouping import setting
from semconv.comparison.report import plots
from semconv.comparison.report.svg import WIDTH
from semconv.comparison.result import Judged
from semconv.comparison.verdicts import PLAIN
from semconv.files import write_text

FIGURES = ROOT / "benchmarks" / "results"
DOCUMENTS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
PLACE = re.compile(r"(<!-- results: (\w+)((?: \w+)*) -->)(.*?)(<!-- end of results -->)", re.DOTALL)
CAME_OUT = re.compile(r"^# Came out: .*\n", re.MULTILINE)
STYLE = (
    "svg{background:#fff}text{fill:#1b1b1f;font:11px system-ui,sans-serif}.strong{font-weight:600}.grid{stroke:#d9dbe0}"
    ".axis{stroke:#5c5f66}.reach{stroke:#0055e2;stroke-width:1.6}.mark{fill:#0055e2}"
)
PICTURED = ("cifar10", "cifar10_others", "cifar10_zero")


def figures(name: str) -> str:
    """The figures of a benchmark: `make gpu` or `make bench`."""
    path = FIGURES / f"{name}.json"
    if not path.is_file():
        return f"Not measured yet: `python -m benchmarks.{name}`."
    return import_module(f"benchmarks.{name}").text(json.loads(path.read_text(encoding="utf-8")))


KINDS: dict[str, Callable[..., str]] = {
    each.__name__: each
    for each in (
        *(verdicts.verdicts, verdicts.caption, verdicts.gain, verdicts.outcome, verdicts.screening, verdicts.search),
        *(verdicts.control_gains, verdicts.extra_gains, verdicts.margins, verdicts.state, verdicts.answers, verdicts.other_answers),
        *(reasons.features, reasons.distance, reasons.importance, reasons.mask_auc, reasons.position_r2, reasons.layers),
        figures,
    )
}


def filled(text: str) -> str:
    """A document with its places filled anew; a place of one line stays within its line."""

    def fill(match: re.Match[str]) -> str:
        content = KINDS[match[2]](*match[3].split())
        return f"{match[1]}{content}{match[5]}" if "\n" not in match[4] else f"{match[1]}\n\n{content}\n\n{match[5]}"

    return PLACE.sub(fill, text)


def headed(text: str, name: str) -> str:
    """A study file with what came out at the end of its header."""
    lines = CAME_OUT.sub("", text).splitlines(keepends=True)
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "".join([*lines[:end], came_out(name), *lines[end:]])


def came_out(name: str) -> str:
    """A line for the header of a study file; empty before the confirmation."""
    found = table(name)
    return "" if found is None or found.comparison is None else f"# Came out: {verdicts.outcome(name).replace('`', '')}.\n"


def renewed() -> dict[Path, str]:
    """All documents and study files, with what they should say."""
    pages = {ROOT / name: filled((ROOT / name).read_text(encoding="utf-8")) for name in DOCUMENTS}
    pages[ROOT / "docs" / "findings.svg"] = picture()
    return pages | {path: headed(path.read_text(encoding="utf-8"), path.stem) for path in sorted(tables.STUDIES.glob("*.yaml"))}


def picture() -> str:
    """What every confirmed candidate of the studies of `PICTURED` gains over all that it has to beat, as a drawing."""
    drawings = []
    for found in filter(None, map(table, PICTURED)):
        groups = [
            (f"{each.variant.label}{under(found.study, each.variant)}, {setting(each.variant.first)}", _dots(each), 0.0)
            for each in found.candidates
            if each.endpoint.key == found.study.endpoints[0]
        ]
        drawings += [plots.dots(f"Gains in {found.study.name}", groups, "masked MSE lower by")] if groups else []
    # one below the other, each with an axis of its own: gains of different fills differ by their size
    heights = [float(re.findall(r'viewBox="0 0 \d+ ([\d.]+)"', drawing)[0]) for drawing in drawings]
    parts = [
        drawing.replace("<svg ", f'<svg y="{y:g}" width="{WIDTH}" height="{height:g}" ', 1)
        for drawing, y, height in zip(map(str, drawings), itertools.accumulate(heights, initial=0.0), heights, strict=False)
    ]
    head = f'<svg viewBox="0 0 {WIDTH} {sum(heights):g}" xmlns="http://www.w3.org/2000/svg">'
    return f"{head}<style>{STYLE}</style><title>Gains of each confirmed candidate</title>{''.join(parts)}</svg>\n"


def _dots(judged: Judged) -> list[plots.Dot]:
    against = sorted(judged.evidence.against.items(), key=lambda item: item[0] != PLAIN)
    return [plots.Dot(f"than {_name(name)}", 0, each.difference, each.low, each.high) for name, each in against]


def _name(control: str) -> str:
    return {WIDE: "wide plain", "zero": "with zeros", "shuffled": "with shuffled"}.get(control, control)


def main() -> None:
    """Write what has changed."""
    for path, text in renewed().items():
        if not path.is_file() or text != path.read_text(encoding="utf-8"):
            write_text(path, text)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
