"""Elements of SVG drawings. All text is escaped."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT = 400, 270
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 28, 42
COLOURS, SHAPES, DASHES = 7, 6, 4  # classes c0 to c6 and d0 to d3 in template.html


class Scale(NamedTuple):
    """A map from values to places on the page."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """About `count` round values within the scale."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1,) if len(powers) > 5 else (1, 3) if len(powers) > 3 else (1, 2, 5)
            return [step * 10.0**power for power in powers for step in steps if self.low <= step * 10.0**power <= self.high]
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / count))
        for size in (10, 5, 2, 1, 0.5):  # the widest step that gives three at least
            step = size * power
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            if last - first + 1 >= 3:
                break
        return [round(number * step, 12) for number in range(first, last + 1)]


def scale(values: Iterable[float], start: float, end: float, log: bool = False, room: float = 0.05) -> Scale:
    """A scale that holds all values, with some room at either end."""
    held = list(values)
    low, high = min(held), max(held)
    if log:
        factor = (high / low) ** room if high > low else 2.0
        return Scale(low / factor, high * factor, start, end, True)
    more = (high - low) * room or abs(high) * 0.1 or 1.0
    return Scale(low - more, high + more, start, end)


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element: `tag("text", "a < b", text_anchor="end")`. None leaves an attribute out."""
    given = Markup(" ").join(
        Markup('{}="{}"').format(key.rstrip("_").replace("_", "-"), f"{value:.5g}" if isinstance(value, float) else value)
        for key, value in attributes.items()
        if value is not None
    )
    opening = Markup("<{}{}{}>").format(Markup(name), Markup(" ") if given else "", given)
    closing = Markup("") if name == "img" else Markup("</{}>").format(Markup(name))
    return opening + Markup("").join(map(escape, children)) + closing


def picture(title: str, description: str, height: float, *children: object) -> Markup:
    """A whole drawing, with title and description for screen readers."""
    words = (tag("title", title), tag("desc", description))
    return tag("svg", *words, *children, viewBox=f"0 0 {WIDTH} {height:g}", role="img", xmlns="http://www.w3.org/2000/svg")


def axes(x: Scale, y: Scale, x_name: str, y_name: str, x_ticks: Sequence[float] | None = None) -> Markup:
    """Grid lines, tick labels and the names of both axes; the name of y is above."""
    parts = []
    for value, words in labels(y.ticks()):
        place = y(value)
        parts.append(tag("line", x1=x.start, x2=x.end, y1=place, y2=place, class_="grid"))
        parts.append(tag("text", words, x=x.start - 6, y=place + 4, text_anchor="end"))
    parts += [x_axis(x, y.start, x_name, x_ticks), tag("text", y_name, x=4, y=14)]
    return Markup("").join(parts)


def x_axis(x: Scale, y: float, name: str, ticks: Sequence[float] | None = None) -> Markup:
    """The horizontal axis at a height, with its ticks and name."""
    parts = [tag("line", x1=x.start, x2=x.end, y1=y, y2=y, class_="axis")]
    for value, words in labels(x.ticks() if ticks is None else ticks):
        parts.append(tag("line", x1=x(value), x2=x(value), y1=y, y2=y + 4, class_="axis"))
        parts.append(tag("text", words, x=x(value), y=y + 17, text_anchor="middle"))
    return Markup("").join([*parts, tag("text", name, x=(x.start + x.end) / 2, y=y + 35, text_anchor="middle")])


def polyline(points: Iterable[tuple[float, float]], series: int) -> Markup:
    """A line in a series' colour and dashes."""
    return tag("polyline", points=_joined(points), class_=f"line c{series % COLOURS} d{dash(series)}")


def band(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], series: int) -> Markup:
    """The area between two lines."""
    return tag("polygon", points=_joined([*upper, *reversed(lower)]), class_=f"band c{series % COLOURS}")


def mark(x: float, y: float, series: int, title: str = "", size: float = 4.5, hollow: bool = False) -> Markup:
    """A point, whose colour and shape each identify the series; a hollow one has its shape alone."""
    look = "hollow" if hollow else f"mark c{series % COLOURS}"
    words = tag("title", title) if title else ""
    match series % SHAPES:
        case 0:
            return tag("circle", words, cx=x, cy=y, r=size, class_=look)
        case 1:
            corners = [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]
        case 2:
            corners = [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)]
        case 3:
            corners = [(0, -1.2), (1.15, 0.85), (-1.15, 0.85)]
        case 4:
            corners = [(0, 1.2), (1.15, -0.85), (-1.15, -0.85)]
        case _:
            corners = [(-1.2, -0.4), (1.2, -0.4), (1.2, 0.4), (-1.2, 0.4)]
    return tag("polygon", words, points=_joined((x + size * dx, y + size * dy) for dx, dy in corners), class_=look)


def dash(series: int) -> int:
    """The dashes of a series; series of one colour differ in them."""
    return series // COLOURS % DASHES


def labels(values: Sequence[float]) -> list[tuple[float, str]]:
    """Values with short texts, all different."""
    for digits in range(3, 7):
        words = [short(value, digits) for value in values]
        if len(set(words)) == len(words):
            break
    return list(zip(values, words, strict=True)) if values else []


def short(value: float, digits: int = 3) -> str:
    """A number in short: 0.05, 250, 12k, 3.4M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def cut(text: str, most: int) -> str:
    """A name, shortened to fit."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _joined(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
