"""Charts and flame graphs as SVG, drawn by hand: lines over an axis, and stacks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

INK, GRID = "#5f6368", "#dadce0"
COLOURS = ("#3f51b5", "#e07b39", "#2e8b6f")
WIDTH, HEIGHT, LEFT, TOP = 300, 170, 52, 34


class Line(NamedTuple):
    """One line of a chart."""

    name: str
    points: list[tuple[float, float]]


class Chart(NamedTuple):
    """Lines over one axis."""

    title: str
    axis: str
    lines: list[Line]
    even: bool = False
    """Whether the axis is even, and not logarithmic."""


def charts(found: list[Chart]) -> str:
    """Several charts side by side."""
    width = len(found) * (WIDTH + LEFT + 24)
    parts = [_chart(chart, i * (WIDTH + LEFT + 24)) for i, chart in enumerate(found)]
    return _svg(width, HEIGHT + TOP + 62, parts)


def _svg(width: float, height: float, parts: Iterable[str]) -> str:
    style = 'font-family="system-ui, sans-serif" font-size="11"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" {style}>'
    ground = f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>'
    return "\n".join([head, ground, *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{INK}" {more}>{escape(text)}</text>'


def _chart(chart: Chart, left: float) -> str:
    xs = sorted({x for line in chart.lines for x, _ in line.points})
    top = _round_up(max(y for line in chart.lines for _, y in line.points))
    scale = float if chart.even else math.log10
    low, span = scale(xs[0]), scale(xs[-1]) - scale(xs[0])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (scale(x) - low) / span * WIDTH
        return left + LEFT + across, TOP + HEIGHT * (1 - y / top)

    parts = [_text(left + LEFT, 18, chart.title, 'font-weight="600" font-size="13"')]
    for step in range(5):
        x, y = at(xs[0], top * step / 4)
        parts.append(f'<path d="M{x:.1f} {y:.1f}h{WIDTH}" stroke="{GRID}"/>')
        parts.append(_text(x - 6, y + 4, f"{top * step / 4:,.5g}", 'text-anchor="end"'))
    for x in xs[:: math.ceil(len(xs) / 8)]:
        parts.append(_text(at(x, 0)[0], TOP + HEIGHT + 16, f"{x:,g}", 'text-anchor="middle"'))
    centre = left + LEFT + WIDTH / 2
    parts.append(_text(centre, TOP + HEIGHT + 33, chart.axis, 'text-anchor="middle"'))
    for i, line in enumerate(chart.lines):
        places = [at(x, y) for x, y in line.points]
        path = " ".join(f"{'L' if j else 'M'}{x:.1f} {y:.1f}" for j, (x, y) in enumerate(places))
        colour = COLOURS[i]
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        x, y = left + LEFT + 110 * i, TOP + HEIGHT + 44
        parts.append(f'<rect x="{x}" y="{y}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 15, y + 9, line.name))
    return "\n".join(parts)


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten."""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value)


@dataclass
class Frame:
    """A function in a flame graph, and what it called."""

    name: str
    samples: int = 0
    calls: dict[str, Frame] = field(default_factory=dict)


def flames(stacks: Iterable[tuple[list[str], int]], width: float = 1200) -> str:
    """A flame graph: each function as wide as the time spent in it and in what it called."""
    root = Frame("all")
    for stack, samples in stacks:
        frame = root
        frame.samples += samples
        for name in stack:
            frame = frame.calls.setdefault(name, Frame(name))
            frame.samples += samples
    parts: list[str] = []
    depth = _draw(root, 0, 0, width, root.samples, parts)
    return _svg(width, 18 * (depth + 1), parts)


def _draw(frame: Frame, level: int, left: float, width: float, total: int, parts: list[str]) -> int:
    own = width * frame.samples / total
    if own < 1:
        return level
    warmth = sum(map(ord, frame.name)) % 40
    share = f"{frame.name} ({100 * frame.samples / total:.1f} %)"
    parts.append(
        f'<g><title>{escape(share)}</title><rect x="{left:.1f}" y="{18 * level}" width="{own:.1f}" '
        f'height="17" fill="hsl({20 + warmth} 85% {72 + warmth % 12}%)"/>'
    )
    letters = int((own - 6) / 6.2)
    if letters >= 3:
        parts.append(_text(left + 3, 18 * level + 13, frame.name[:letters]))
    parts.append("</g>")
    deepest = level
    for call in sorted(frame.calls.values(), key=lambda call: call.name):
        deepest = max(deepest, _draw(call, level + 1, left, width, total, parts))
        left += width * call.samples / total
    return deepest
