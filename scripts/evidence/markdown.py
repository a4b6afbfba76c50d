"""Figures and tables as text."""

import math

from stats import Interval, mean, student, variance


def shown(figure: Interval | None, unit: str = "", share: bool = False) -> str:
    """With its unit; the interval of a share ends at 0 and 1."""
    if figure is None:
        return "-"
    if share:
        figure = figure._replace(low=max(figure.low, 0.0), high=min(figure.high, 1.0))
    scale, digits = (100, 1) if unit == "%" else (1, 2)
    value, low, high = (f"{scale * number:.{digits}f}" for number in figure[:3])
    return f"{value}{unit} ({low} to {high})"


def table(title: str, head: list[str], rows: list[list[str]], notes: str = "") -> str:
    if not rows:
        return ""
    body = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    rule = "|" + "---|" * len(head) + "\n"
    return f"## {title}\n\n" + (notes + "\n\n" if notes else "") + "| " + " | ".join(head) + " |\n" + rule + body + "\n"


def seeds_of(figures: list[Interval | None]) -> str:
    """The number of seeds of a row's figures: an evaluation may lack runs that others have."""
    counts = sorted({figure.seeds for figure in figures if figure})
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "-"


def over_seeds(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "-"
    half = student(len(values) - 1) * math.sqrt(variance(values) / len(values))
    return f"{mean(values):.3f} ± {half:.3f}"
