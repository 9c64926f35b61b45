"""A line chart as SVG."""

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 900, 480
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 170


def line_chart(points: Sequence[tuple[str, float | None]], title: str) -> str:
    """Draw shares from 0 to 1 in their order, with their names below, as the content of an SVG file.

    Args:
        points: name and share of each; None is not drawn.
        title: title above the chart.
    """
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    across = [LEFT + wide * (i + 0.5) / max(1, len(points)) for i in range(len(points))]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>',
    ]
    for percent in range(0, 101, 25):
        level = TOP + tall * (1 - percent / 100)
        parts.append(f'<line x1="{LEFT}" y1="{level:.1f}" x2="{WIDTH - RIGHT}" y2="{level:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{percent} %</text>')
    line = [(at, TOP + tall * (1 - share)) for at, (_, share) in zip(across, points, strict=True) if share is not None]
    joined = " ".join(f"{at:.1f},{level:.1f}" for at, level in line)
    parts.append(f'<polyline points="{joined}" fill="none" stroke="#1f6feb" stroke-width="2"/>')
    parts += [f'<circle cx="{at:.1f}" cy="{level:.1f}" r="3" fill="#1f6feb"/>' for at, level in line]
    # at most 60 names fit
    step = -(-len(points) // 60)
    for i, (name, _) in enumerate(points):
        if i % step == 0:
            x, y = f"{across[i] + 4:.1f}", f"{TOP + tall + 12}"
            parts.append(f'<text x="{x}" y="{y}" text-anchor="end" transform="rotate(-60 {x} {y})">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])
