"""A figure of two measures of the same settings, as SVG, with the intervals of both."""

import math
from html import escape
from typing import NamedTuple

from stats import Interval

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 420, 70, 40, 130, 60
# Okabe and Ito's, which people who see few colours tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#000000")


class Point(NamedTuple):
    name: str
    x: Interval
    y: Interval


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, about five."""
    step = 10 ** math.floor(math.log10((high - low) / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= 6)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def span(intervals: list[Interval]) -> tuple[float, float]:
    """From the lowest end to the highest, 0 included, with a margin."""
    low, high = min(0, *(found.low for found in intervals)), max(0, *(found.high for found in intervals))
    margin = 0.05 * (high - low or 1)
    return low - margin, high + margin


def scatter(title: str, labels: tuple[str, str], series: dict[str, list[Point]]) -> str:
    """A line of points for each of `series`, its points in their order."""
    points = [point for line in series.values() for point in line]
    (x0, x1), (y0, y1) = span([point.x for point in points]), span([point.y for point in points])
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(x: float) -> float:
        return round(LEFT + (right - LEFT) * (x - x0) / (x1 - x0), 1)

    def down(y: float) -> float:
        return round(bottom - (bottom - TOP) * (y - y0) / (y1 - y0), 1)

    def text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{more}>{escape(words)}</text>'

    def line(a: tuple[float, float], b: tuple[float, float], colour: str) -> str:
        return f'<line x1="{a[0]}" y1="{a[1]}" x2="{b[0]}" y2="{b[1]}" stroke="{colour}"/>'

    made = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text((LEFT + right) / 2, 22, title),
        text((LEFT + right) / 2, HEIGHT - 16, labels[0]),
        text(18, (TOP + bottom) / 2, labels[1], more=f' transform="rotate(-90 18 {(TOP + bottom) / 2})"'),
    ]
    for x in ticks(x0, x1):
        made += [line((across(x), TOP), (across(x), bottom), "#ddd"), text(across(x), bottom + 16, f"{x:g}")]
    for y in ticks(y0, y1):
        made += [line((LEFT, down(y)), (right, down(y)), "#ddd"), text(LEFT - 6, down(y) + 4, f"{y:g}", "end")]
    for at, (name, of_series) in enumerate(series.items()):
        colour = COLOURS[at % len(COLOURS)]
        path = " ".join(f"{across(point.x.value)},{down(point.y.value)}" for point in of_series)
        made.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for point in of_series:
            x, y = across(point.x.value), down(point.y.value)
            made += [
                line((across(point.x.low), y), (across(point.x.high), y), colour),
                line((x, down(point.y.low)), (x, down(point.y.high)), colour),
                f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"><title>{escape(point.name)}</title></circle>',
                text(x + 7, y - 6, point.name.partition("=")[2] or point.name, "start", f' fill="{colour}" font-size="10"'),
            ]
        made.append(text(right + 12, TOP + 16 + 20 * at, name, "start", f' fill="{colour}" font-weight="bold"'))
    return "\n".join([*made, "</svg>"]) + "\n"
