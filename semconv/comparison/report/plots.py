"""Charts of a report: lines, dot plots, scatter plots."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from semconv.comparison.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    axes,
    band,
    cut,
    mark,
    picture,
    polyline,
    scale,
    short,
    tag,
    x_axis,
)

NAMES, NUMBERS, ROW = 128, 62, 17  # widths beside the rows of a dot plot; a row's height
FAR = 4.0  # intervals are drawn up to so many times the largest difference


class Line(NamedTuple):
    """A series: means over seeds, with their range."""

    name: str
    series: int
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


class Dot(NamedTuple):
    """A row of a dot plot."""

    name: str
    series: int
    value: float
    low: float | None = None
    high: float | None = None


class Point(NamedTuple):
    """A point with ranges in both directions."""

    name: str
    series: int
    x: tuple[float, float, float]  # least, mean, most
    y: tuple[float, float, float]
    best: bool  # on the Pareto front
    control: bool
    baseline: float | None = None  # on the vertical axis: of the same network without training


def lines(
    title: str,
    series: Sequence[Line],
    x_name: str,
    y_name: str,
    marked: bool = True,
    x_ticks: Sequence[float] | None = None,
    guide: float | None = None,
    settling: float = 0.0,
    log: bool = False,
    faint: Sequence[Line] = (),
) -> Markup:
    """Means as lines and ranges as bands, of several series over one axis.

    Args:
        title: for screen readers.
        series: at least one, each with at least one point.
        x_name: of the horizontal axis.
        y_name: of the vertical one.
        marked: mark every point.
        x_ticks: places of ticks on the horizontal axis; None: round values.
        guide: place of a vertical line on the horizontal axis.
        settling: share of the horizontal axis, at its beginning, in which lines may leave the frame.
        log: logarithmic horizontal axis.
        faint: baselines of the series, in their looks: thin lines without ranges and points.
    """
    every = [*series, *faint]
    places = [place for each in every for place in each.x] + ([] if guide is None else [guide])
    x = scale(places, LEFT, WIDTH - RIGHT, log, 0.03)
    settled = min(places) + settling * (max(places) - min(places))
    held = [
        value
        for each in every
        for place, *values in zip(each.x, each.low, each.mean, each.high, strict=True)
        for value in values
        if place >= settled
    ]
    y = scale(held, HEIGHT - BOTTOM, TOP)
    parts = [axes(x, y, x_name, y_name, x_ticks)]
    if guide is not None:
        parts.append(tag("line", x1=x(guide), x2=x(guide), y1=y.start, y2=y.end, class_="guide"))
    for each in series:
        parts.append(band(_inside(each.x, each.high, x, y), _inside(each.x, each.low, x, y), each.series))
    for each in faint:
        drawn = polyline(_inside(each.x, each.mean, x, y), each.series)
        parts.append(tag("g", tag("title", each.name), drawn, class_="faint"))
    for each in series:
        points = _inside(each.x, each.mean, x, y)
        words = tag("title", each.name)
        marks = [mark(*point, each.series, size=3.2) for point in points] if marked else []
        parts.append(tag("g", words, polyline(points, each.series), *marks))
    ends = ", ".join(f"{each.name} {short(each.mean[-1])}" for each in every)
    return picture(title, f"{y_name} against {x_name}; at the right end: {ends}", HEIGHT, *parts)


def dots(title: str, groups: Sequence[tuple[str, Sequence[Dot], float]], x_name: str) -> Markup:
    """A dot plot: values with intervals, in groups, around a line at 0.

    Args:
        title: for screen readers.
        groups: each a name, its rows, and half the width of the shaded range of equivalence (0: none).
        x_name: of the axis.
    """
    x = _around_zero(groups)
    height, parts, words = 8.0, [], []
    for name, rows, margin in groups:
        parts.append(tag("text", tag("title", name), cut(name, 54), x=4, y=height + 12, class_="strong"))
        height += 20
        if margin:
            left, right = (min(max(x(sign * margin), x.start), x.end) for sign in (-1, 1))
            parts.append(tag("rect", x=left, y=height, width=right - left, height=len(rows) * ROW, class_="margin"))
        parts.append(tag("line", x1=x(0), x2=x(0), y1=height, y2=height + len(rows) * ROW, class_="axis"))
        for row in rows:
            parts.append(_row(row, x, height + ROW / 2))
            words.append(f"{name}, {row.name}: {row.value:+.4f}{_interval(row)}")
            height += ROW
        height += 6
    parts.append(x_axis(x, height, x_name))
    return picture(title, "; ".join(words), height + 42, *parts)


def scatter(title: str, points: Sequence[Point], x_name: str, y_name: str, levels: Mapping[str, float] | None = None) -> Markup:
    """Quality against cost; points on the Pareto front are ringed, and named where there is room.

    A dotted line leads from each point to a bar at its baseline.

    Args:
        title: for screen readers.
        points: at least one.
        x_name: of the horizontal axis.
        y_name: of the vertical one.
        levels: values without any network by their names, drawn as horizontal lines.
    """
    levels = levels or {}
    costs = [value for point in points for value in point.x]
    log = min(costs) > 0 and max(costs) > 5 * min(costs)
    x = scale(costs, LEFT, WIDTH - RIGHT, log, 0.08)
    starts = [point.baseline for point in points if point.baseline is not None]
    y = scale([*(value for point in points for value in point.y), *starts, *levels.values()], HEIGHT - BOTTOM, TOP, room=0.14)
    parts = [axes(x, y, x_name + (", logarithmic" if log else ""), y_name)]
    for name, value in levels.items():
        parts.append(tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="guide"))
        parts.append(tag("text", name, x=x.end, y=y(value) - 4, text_anchor="end", class_="label"))
    for point in points:
        if point.baseline is not None:
            across, start = x(point.x[1]), y(point.baseline)
            words = tag("title", f"{point.name}, baseline: {point.baseline:.4f}")
            parts.append(tag("line", x1=across, x2=across, y1=start, y2=y(point.y[1]), class_="guide"))
            look = f"thin c{point.series % 7}"
            parts.append(tag("line", words, x1=across - 5, x2=across + 5, y1=start, y2=start, class_=look))
    best = sorted((point for point in points if point.best), key=lambda point: point.x[1])
    taken: list[tuple[float, float, float, float]] = [(x(p.x[1]) - 6, y(p.y[1]) - 6, x(p.x[1]) + 6, y(p.y[1]) + 6) for p in points]
    for point in sorted(points, key=lambda point: not point.control):
        across, up = x(point.x[1]), y(point.y[1])
        if point.control:
            parts.append(mark(across, up, point.series, f"{point.name}: {short(point.x[1])}, {point.y[1]:.4f}", 3.5, hollow=True))
            continue
        parts.append(tag("line", x1=x(point.x[0]), x2=x(point.x[2]), y1=up, y2=up, class_=f"thin c{point.series % 7}"))
        parts.append(tag("line", x1=across, x2=across, y1=y(point.y[0]), y2=y(point.y[2]), class_=f"thin c{point.series % 7}"))
        parts.append(mark(across, up, point.series, f"{point.name}: {short(point.x[1])}, {point.y[1]:.4f}"))
    for point in best:
        across, up = x(point.x[1]), y(point.y[1])
        parts.append(tag("circle", cx=across, cy=up, r=9, class_="ring"))
        parts.append(_label(cut(point.name, 24), across, up, taken))
    said = [f"{p.name}: {short(p.x[1])}, {p.y[1]:.4f}{_from(p)}{' (on the Pareto front)' if p.best else ''}" for p in points]
    said += [f"{name}: {value:.4f}" for name, value in levels.items()]
    return picture(title, "; ".join(said), HEIGHT, *parts)


def swatch(series: int) -> Markup:
    """The look of a series, for a legend."""
    drawn = (polyline([(2, 7), (26, 7)], series), mark(14, 7, series))
    return tag("svg", *drawn, viewBox="0 0 28 14", width=28, height=14, aria_hidden="true")


def _from(point: Point) -> str:
    return "" if point.baseline is None else f", baseline {point.baseline:.4f}"


def _inside(places: Sequence[float], values: Sequence[float], x: Scale, y: Scale) -> list[tuple[float, float]]:
    """Points of a line; points beyond the frame are moved to its edge."""
    return [(x(place), min(max(y(value), y.end), y.start)) for place, value in zip(places, values, strict=True)]


def _row(row: Dot, x: Scale, middle: float) -> Markup:
    parts = [tag("text", cut(row.name, 18), x=NAMES - 6, y=middle + 4, text_anchor="end")]
    if row.low is not None and row.high is not None:
        left, right = (min(max(end, x.low), x.high) for end in (row.low, row.high))
        parts.append(tag("line", x1=x(left), x2=x(right), y1=middle, y2=middle, class_=f"reach c{row.series % 7}"))
        for end, seen, sign in ((row.low, left, 1), (row.high, right, -1)):
            if end != seen:  # the interval goes on
                arrow = [(x(seen), middle), (x(seen) + sign * 6, middle - 4), (x(seen) + sign * 6, middle + 4)]
                parts.append(
                    tag("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in arrow), class_=f"mark c{row.series % 7}")
                )
    parts.append(mark(x(row.value), middle, row.series, f"{row.name}: {row.value:+.4f}{_interval(row)}"))
    parts.append(tag("text", f"{row.value:+.4f}", x=WIDTH - 4, y=middle + 4, text_anchor="end", class_="number"))
    return tag("g", *parts)


def _around_zero(groups: Sequence[tuple[str, Sequence[Dot], float]]) -> Scale:
    rows = [row for _, rows, _ in groups for row in rows]
    largest = max(abs(row.value) for row in rows) or math.inf
    ends = [value for row in rows for value in (row.low, row.high) if value is not None]
    held = [min(max(value, -FAR * largest), FAR * largest) for value in ends]
    margins = [sign * min(margin, largest) for _, _, margin in groups for sign in (-1, 1) if margin]
    return scale([0.0, *(row.value for row in rows), *held, *margins], NAMES, WIDTH - NUMBERS)


def _interval(row: Dot) -> str:
    return "" if row.low is None or row.high is None else f" ({row.low:+.4f} to {row.high:+.4f})"


def _label(text: str, x: float, y: float, taken: list[tuple[float, float, float, float]]) -> Markup:
    """A name beside its point, at a place where it covers nothing; empty if there is none."""
    width = 6.2 * len(text)
    places = [
        (x + 12, y + 4),
        (x - 12 - width, y + 4),
        (x - width / 2, y - 13),
        (x - width / 2, y + 21),
        (x + 8, y - 11),
        (x + 8, y + 18),
    ]
    for left, base in places:
        box = (left, base - 11, left + width, base + 3)
        inside = left >= 2 and box[2] <= WIDTH - 2 and TOP < base < HEIGHT - BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return tag("text", text, x=left, y=base, class_="label")
    return Markup("")


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
