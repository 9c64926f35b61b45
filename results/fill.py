"""Fill the marked places of the documents, and the headers of study files, with what results/*.csv and benchmarks/results/*.json
say: python -m results.fill

A place stands between `<!-- results: KIND STUDY -->` and `<!-- end of results -->`; KIND is one of `KINDS`. In a study file it is
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
from semconv.comparison.report import plots
from semconv.comparison.report.svg import WIDTH
from semconv.comparison.result import Judged
from semconv.comparison.verdicts import PLAIN
from semconv.files import write_text

FIGURES = ROOT / "benchmarks" / "results"
DOCUMENTS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
PLACE = re.compile(r"(<!-- results: (\w+)(?: (\w+))? -->)(.*?)(<!-- end of results -->)", re.DOTALL)
CAME_OUT = re.compile(r"^# Came out: .*\n", re.MULTILINE)
STYLE = (
    "svg{background:#fff}text{fill:#1b1b1f;font:11px system-ui,sans-serif}.strong{font-weight:600}.grid{stroke:#d9dbe0}"
    ".axis{stroke:#5c5f66}.margin{fill:#1b1b1f;opacity:.09}.reach{stroke:#0055e2;stroke-width:1.6}.mark{fill:#0055e2}"
)
PICTURED = ("cifar10", "cifar10_zero", "controls", "demo")


def figures(name: str) -> str:
    """The figures of a benchmark: `make gpu` or `make bench`."""
    path = FIGURES / f"{name}.json"
    if not path.is_file():
        return f"Not measured yet: `python -m benchmarks.{name}`."
    return import_module(f"benchmarks.{name}").text(json.loads(path.read_text(encoding="utf-8")))


KINDS: dict[str, Callable[[str], str]] = {
    each.__name__: each
    for each in (
        *(verdicts.verdicts, verdicts.caption, verdicts.gain, verdicts.outcome, verdicts.screening, verdicts.search),
        *(verdicts.control_gains, verdicts.state, verdicts.answers),
        *(reasons.features, reasons.importance, reasons.mask_auc, reasons.position_r2, reasons.layers),
        figures,
    )
}


def filled(text: str) -> str:
    """A document with its places filled anew; a place of one line stays within its line."""

    def fill(match: re.Match[str]) -> str:
        content = KINDS[match[2]](match[3] or "")
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
    """The gain of every confirmed candidate over plain, of the first study of `PICTURED` that has some, as a drawing."""
    found, comparison = next((known, compared) for name in PICTURED if (known := table(name)) and (compared := known.comparison))
    places: dict[str, list[Judged]] = {}
    for judged in found.candidates:
        if judged.endpoint == comparison.endpoints[0] and PLAIN in judged.evidence.against:
            places.setdefault(under(found.study, judged.variant), []).append(judged)
    drawings = []
    for place, here in places.items():
        name, margin = f"{found.study.name}{place}: {here[0].endpoint.label}", max(each.evidence.margin for each in here)
        drawings.append(plots.dots(f"Gain over plain{place}", [(name, list(map(_dot, here)), margin)], "better than plain by"))
    # one below the other, each with an axis of its own: gains of different settings differ by their size
    heights = [float(re.findall(r'viewBox="0 0 \d+ ([\d.]+)"', drawing)[0]) for drawing in drawings]
    parts = [
        drawing.replace("<svg ", f'<svg y="{y:g}" width="{WIDTH}" height="{height:g}" ', 1)
        for drawing, y, height in zip(map(str, drawings), itertools.accumulate(heights, initial=0.0), heights, strict=False)
    ]
    head = f'<svg viewBox="0 0 {WIDTH} {sum(heights):g}" xmlns="http://www.w3.org/2000/svg">'
    return f"{head}<style>{STYLE}</style><title>Gain over plain of each confirmed candidate</title>{''.join(parts)}</svg>\n"


def _dot(judged: Judged) -> plots.Dot:
    against = judged.evidence.against[PLAIN]
    return plots.Dot(judged.variant.label.removeprefix("cnn_"), 0, against.difference, against.low, against.high)


def main() -> None:
    """Write what has changed."""
    for path, text in renewed().items():
        if not path.is_file() or text != path.read_text(encoding="utf-8"):
            write_text(path, text)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
