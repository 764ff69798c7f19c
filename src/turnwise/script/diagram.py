"""Diagrams of a dialog: Mermaid for documents, SVG for viewing, with a conversation's path."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from turnwise.script import conditions
from turnwise.script.context import Label
from turnwise.script.flow import Dialog, To

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 190, 46, 40, 64, 24


def told(condition: object) -> str:
    """A condition in a few words."""
    match condition:
        case conditions.Always():
            return ""
        case conditions.Exact():
            wanted = condition.message
            return f"= {wanted if isinstance(wanted, str) else wanted.text}"
        case conditions.Has():
            return f"has {condition.text}"
        case conditions.Regexp():
            return f"~ {condition.pattern.text}"
        case conditions.Not():
            return f"not {told(condition.members[0])}"
        case conditions.Any():
            return " or ".join(told(member) for member in condition.members)
        case conditions.All():
            return " and ".join(told(member) for member in condition.members)
        case conditions.SlotsExtracted():
            return f"filled: {', '.join(condition.names)}"
        case conditions.LastLabels():
            return "after certain nodes"
        case _:
            return getattr(condition, "__name__", type(condition).__name__)


def _edges(dialog: Dialog) -> list[tuple[Label, Label, To]]:
    """Transitions between nodes that can be known without a conversation."""
    found = []
    for label, node in dialog.nodes.items():
        for to in node.transitions:
            targets = [] if callable(to.destination) else dialog.targets(to.destination, label)
            found += [(label, target, to) for target in targets]
    return found


def mermaid(dialog: Dialog, path: Sequence[Label] = ()) -> str:
    """The dialog as a Mermaid flowchart; nodes on `path` are marked."""
    ids = {label: f"n{i}" for i, label in enumerate(dialog.nodes)}
    lines = ["flowchart TD"]
    for flow, names in dialog.order.items():
        lines.append(f"    subgraph {_quoted(flow)}")
        for name in names:
            label = Label(flow, name)
            shape = ("([", "])") if label == dialog.start else ("[", "]")
            lines.append(f"        {ids[label]}{shape[0]}{_quoted(name)}{shape[1]}")
        lines.append("    end")
    for label, target, to in _edges(dialog):
        words = told(to.when)
        arrow = f"-->|{_quoted(words)}|" if words else "-->"
        lines.append(f"    {ids[label]} {arrow} {ids[target]}")
    marked = [ids[label] for label in dict.fromkeys(path) if label in ids]
    if marked:
        lines.append("    classDef went fill:#ffd54f,stroke:#b28704,color:#222")
        lines.append(f"    class {','.join(marked)} went")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A label; quotes, brackets and pipes would end it, so Mermaid gets them by number."""
    short = text if len(text) <= 40 else text[:39] + "…"
    safe = (c if c.isalnum() or c in " .,_-~=…'?!" else f"#{ord(c)};" for c in short)
    return f'"{"".join(safe)}"'


def svg(dialog: Dialog, path: Sequence[Label] = ()) -> str:
    """The dialog as an SVG: rows by the steps from the start; nodes on `path` are marked."""
    places = _places(dialog)
    columns = max((x for x, _ in places.values()), default=0) + 1
    rows = max((y for _, y in places.values()), default=0) + 1
    width = 2 * MARGIN + columns * (WIDTH + GAP_X) + 10 * rows
    height = 2 * MARGIN + rows * (HEIGHT + GAP_Y) - GAP_Y
    steps = set(pairwise(path))
    edges: dict[tuple[Label, Label], list[str]] = {}
    for label, target, to in _edges(dialog):
        edges.setdefault((label, target), []).append(told(to.when))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="system-ui, sans-serif" font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path d="M0 0 10 5 0 10z" fill="#667"/>'
        "</marker></defs>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for (label, target), words in edges.items():
        went = (label, target) in steps
        parts.append(_arrow(places[label], places[target], " / ".join(filter(None, words)), went))
    for label, place in places.items():
        parts.append(_box(dialog, label, place, label in path))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _places(dialog: Dialog) -> dict[Label, tuple[int, int]]:
    """A column and a row for each node: the row is how many steps it is from the start."""
    depth = {dialog.start: 0}
    todo = [dialog.start]
    edges = _edges(dialog)
    after: dict[Label, list[Label]] = {}
    for label, target, _ in edges:
        after.setdefault(label, []).append(target)
    for label in todo:  # it grows while it is read
        for target in after.get(label, ()):
            if target not in depth:
                depth[target] = depth[label] + 1
                todo.append(target)
    last = max(depth.values()) + 1
    row: dict[int, int] = {}
    places = {}
    for label in [*todo, *(label for label in dialog.nodes if label not in depth)]:
        y = depth.get(label, last)
        places[label] = (row.get(y, 0), y)
        row[y] = row.get(y, 0) + 1
    return places


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    return MARGIN + place[0] * (WIDTH + GAP_X), MARGIN + place[1] * (HEIGHT + GAP_Y)


def _box(dialog: Dialog, label: Label, place: tuple[int, int], went: bool) -> str:
    x, y = _corner(place)
    radius = 22 if label == dialog.start else 8
    fill, line = ("#ffd54f", "#b28704") if went else ("#f3f4fa", "#8a8fb5")
    dashes = ' stroke-dasharray="5 3"' if label == dialog.fallback else ""
    return (
        f'<g><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="{radius}" fill="{fill}" '
        f'stroke="{line}"{dashes}/><text x="{x + WIDTH / 2}" y="{y + 20}" text-anchor="middle" '
        f'font-weight="600" fill="#223">{_short(label.node, 24)}</text><text x="{x + WIDTH / 2}" '
        f'y="{y + 36}" text-anchor="middle" font-size="11" fill="#667">{_short(label.flow, 28)}'
        "</text></g>"
    )


def _arrow(start: tuple[int, int], end: tuple[int, int], words: str, went: bool) -> str:
    (x1, y1), (x2, y2) = _corner(start), _corner(end)
    if end[1] > start[1]:  # down
        ax, ay, bx, by = x1 + WIDTH // 2, y1 + HEIGHT, x2 + WIDTH // 2, y2
        bend = f"{ax} {ay + 30} {bx} {by - 30}"
        middle = (ax + bx) // 2, (ay + by) // 2 + 4
    else:  # back up, or beside: around the right side, further the longer the way is
        ax, ay, bx, by = x1 + WIDTH, y1 + HEIGHT // 2, x2 + WIDTH, y2 + HEIGHT // 2 + 6
        out = max(ax, bx) + 24 + 14 * (start[1] - end[1])
        bend = f"{out} {ay} {out} {by}"
        middle = (ax + 3 * out) // 4, (ay + by) // 2
    color, wide = ("#b28704", 2.4) if went else ("#667", 1.2)
    text = (
        f'<text x="{middle[0]}" y="{middle[1]}" text-anchor="middle" font-size="11" fill="#445" '
        f'stroke="#fff" stroke-width="4" paint-order="stroke">{_short(words, 30)}</text>'
    )
    return (
        f'<path d="M{ax} {ay} C{bend} {bx} {by}" fill="none" stroke="{color}" '
        f'stroke-width="{wide}" marker-end="url(#tip)"/>{text if words else ""}'
    )


def _short(text: str, length: int) -> str:
    return escape(text if len(text) <= length else text[: length - 1] + "…")
