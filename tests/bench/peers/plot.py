"""Two rows of bars as SVG: CPU time per request and per streamed token, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_LABEL, _BAR, _END = 190, 420, 90
_STEP, _THICK, _HEAD = 22, 14, 34
_OURS, _OTHERS, _TEXT = "#c2410c", "#64748b", "#1e293b"


@dataclass(frozen=True, slots=True)
class Chart:
    """One row of bars: a title, and microseconds by the way's name."""

    title: str
    values: Mapping[str, float]


def render(charts: Sequence[Chart], marked: str) -> str:
    """SVG text; the bar of the way called `marked` has another colour."""
    width = _LABEL + _BAR + _END
    parts: list[str] = []
    top = 0
    for chart in charts:
        parts.append(f'<text x="8" y="{top + 22}" font-weight="bold">{escape(chart.title)}</text>')
        top += _HEAD
        parts += _bars(chart, top, marked)
        top += _STEP * len(chart.values) + 8
    style = f'font-family="sans-serif" font-size="12" fill="{_TEXT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" {style}>'
    back = f'<rect width="{width}" height="{top}" fill="#ffffff"/>'
    return "\n".join([head, back, *parts, "</svg>"]) + "\n"


def _bars(chart: Chart, top: int, marked: str) -> list[str]:
    low, high = decades(list(chart.values.values()))
    parts = []
    for place, (name, value) in enumerate(chart.values.items()):
        y = top + place * _STEP
        length = _BAR * (math.log10(max(value, 10.0**low)) - low) / (high - low)
        colour = _OURS if name == marked else _OTHERS
        parts.append(f'<text x="{_LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_THICK}" fill="{colour}"/>')
        parts.append(f'<text x="{_LABEL + length + 6:.1f}" y="{y + 12}">{value:.3g} µs</text>')
    return parts


def decades(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten that hold all positive values, one apart at least."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    return low, max(high, low + 1)
