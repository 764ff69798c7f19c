"""Markup: a bot's Markdown as runs of styled text, which each platform writes in its own way, and
which are split by the platform's own measure, never inside of a style."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import regex
from markdown_it import MarkdownIt
from markdown_it.token import Token

Style = tuple[str, str]
"""A name: bold, italic, strike, code, pre, link or quote; and a link's address or the language of a
block of code."""
MARKS = {"bold": "*", "italic": "_", "strike": "~", "code": "`"}
"""Of the styles that Slack and WhatsApp write alike."""
_STYLES = {"strong": "bold", "em": "italic", "s": "strike"}
_LINE = re.compile(r"\r\n?|\n")
"""The end of a line in Markdown; other separators are characters like any."""
_ESCAPED = re.compile(r"\\[!-/:-@\[-`{-~]|&#?\w+;")
"""What Markdown writes otherwise than it is meant, without being a style."""
_SEEN = regex.compile(r"\X")
"""What a reader takes for one character: a family, a flag, a letter with its accents."""
_READ = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_READ.parse("")  # its rules are compiled by the first text, which may come in two threads at once


class Run(NamedTuple):
    """A stretch of text and its styles."""

    text: str
    styles: tuple[Style, ...] = ()


def runs(text: str) -> list[Run]:
    """A text as runs; one without any markup stays as it is."""
    found = list(_blocks(_READ.parse(text), _LINE.split(text)))
    if not any(run.styles for run in found) and not _ESCAPED.search(text):
        return [Run(text.strip("\n"))] if text.strip() else []
    return _tidy(found)


def _tidy(found: list[Run]) -> list[Run]:
    """Without empty lines at the ends, neighbours of one style joined."""
    joined: list[Run] = []
    for run in found:
        if joined and joined[-1].styles == run.styles:
            joined[-1] = Run(joined[-1].text + run.text, run.styles)
        elif run.text:
            joined.append(run)
    while joined and not joined[-1].text.strip():
        joined.pop()
    if joined:
        joined[-1] = joined[-1]._replace(text=joined[-1].text.rstrip())
    return joined


def _blocks(tokens: Sequence[Token], lines: list[str]) -> Iterator[Run]:
    styles: list[Style] = []
    markers: list[str] = []
    quoted = 0
    skip_to = -1
    for i, token in enumerate(tokens):
        if i <= skip_to:
            continue
        quote = (("quote", ""),) if quoted else ()
        match token.type:
            case "heading_open":
                styles.append(("bold", ""))
            case "heading_close":
                styles.pop()
                yield Run("\n\n")
            case "paragraph_close":
                yield Run("\n" if token.hidden else "\n\n", quote)
            case "blockquote_open":
                quoted += 1
            case "blockquote_close":
                quoted -= 1
                yield Run("\n")
            case "bullet_list_open" | "ordered_list_open":
                markers.append("")
            case "bullet_list_close" | "ordered_list_close":
                markers.pop()
                if not markers:
                    yield Run("\n")
            case "list_item_open":
                sign = f"{token.info}{token.markup}" if token.info else "-"
                yield Run(f"{'  ' * (len(markers) - 1)}{sign} ", quote)
            case "fence" | "code_block":
                language = token.info.split()[0] if token.info.strip() else ""
                yield Run(token.content.rstrip("\n"), (("pre", language),))
                yield Run("\n\n")
            case "hr":
                yield Run("———\n\n")
            case "table_open":
                first, last = token.map or (0, 0)
                yield Run("\n".join(lines[first:last]), (("pre", ""),))
                yield Run("\n\n")
                skip_to = next(n for n, t in enumerate(tokens) if n > i and t.type == "table_close")
            case "inline":
                yield from _inline(token.children or [], (*quote, *styles))


def _inline(tokens: Sequence[Token], outer: tuple[Style, ...]) -> Iterator[Run]:
    styles: list[Style] = [*outer]
    for token in tokens:
        name = token.type.rpartition("_")[0]
        if token.type == "link_open":
            styles.append(("link", str(token.attrGet("href") or "")))
        elif token.type.endswith("_open"):
            styles.append((_STYLES.get(name, name), ""))
        elif token.type.endswith("_close"):
            styles.pop()
        elif token.type == "code_inline":
            yield Run(token.content, (*styles, ("code", "")))
        elif token.type == "image":
            yield Run(
                token.content or "image", (*styles, ("link", str(token.attrGet("src") or "")))
            )
        elif token.type in ("softbreak", "hardbreak"):
            yield Run("\n", tuple(styles))
        else:
            yield Run(token.content, tuple(styles))


def spelled(found: Sequence[Run], schemes: tuple[str, ...]) -> list[Run]:
    """The same, with the addresses of links in words that the platform does not take as links."""
    made = []
    for run in found:
        link = dict(run.styles).get("link")
        if link is None or link.startswith(schemes):
            made.append(run)
            continue
        made.append(Run(run.text, tuple(style for style in run.styles if style[0] != "link")))
        address = link.removeprefix("mailto:").removeprefix("tel:")
        if address not in ("", run.text):
            beside = tuple(style for style in run.styles if style[0] == "quote")
            made.append(Run(f" ({address})", beside))
    return made


def written(piece: Sequence[Run], mark: Callable[[Run], str], quote: str) -> str:
    """A piece in a platform's marks; each line of a quotation begins with `quote`."""
    found = ""
    for run in piece:
        text = mark(run)
        if ("quote", "") in run.styles:
            first, *others = text.split("\n")
            begins = found[-1:] in ("", "\n") and first
            lines = [f"{quote}{line}" if line else line for line in others]
            text = "\n".join([f"{quote}{first}" if begins else first, *lines])
        found += text
    return found


def quoted(text: str, quote: str) -> int:
    """The most characters that a text has as a part of a quotation."""
    return len(text) + len(quote) * (text.count("\n") + 1)


def marked(text: str, styles: Mapping[str, str]) -> str:
    """A text between the marks of its styles, which Slack and WhatsApp write alike; a mark beside a
    space is none to them."""
    for name, mark in MARKS.items():
        if name in styles and text.strip():
            head = text[: len(text) - len(text.lstrip())]
            tail = text[len(text.rstrip()) :]
            text = f"{head}{mark}{text.strip()}{mark}{tail}"
    return text


def length(run: Run) -> int:
    """Its characters."""
    return len(run.text)


def split(found: Sequence[Run], limit: int, size: Callable[[Run], int] = length) -> list[list[Run]]:
    """Pieces of at most `limit` by `size`, which counts the marks of a run where the platform does;
    cut at a line or a word where there is one near the end. Pieces without anything to see are left
    out."""
    pieces: list[list[Run]] = [[]]
    left = limit
    for run in found:
        text = run.text
        while size(Run(text, run.styles)) > left:
            head = text[: _cut(Run(text, run.styles), left, size)]
            if not head and not pieces[-1]:
                head = text[:1]
            if head:  # an empty run has marks all the same
                pieces[-1].append(Run(head, run.styles))
            pieces.append([])
            text, left = text[len(head) :], limit
        if text:
            pieces[-1].append(Run(text, run.styles))
            left -= size(Run(text, run.styles))
    return [piece for piece in pieces if any(run.text.strip() for run in piece)]


def _cut(run: Run, room: int, size: Callable[[Run], int]) -> int:
    """How many characters of a run go into the room: to a line's or a word's end in its last
    quarter, if there is one."""
    text = run.text
    low, high = 0, max(0, min(len(text), room))
    while low < high:
        middle = (low + high + 1) // 2
        if size(Run(text[:middle], run.styles)) <= room:
            low = middle
        else:
            high = middle - 1
    for end in ("\n", " "):
        at = text.rfind(end, 0, low)
        if at >= low * 3 // 4 and at > 0:
            return at + 1
    near = max(0, low - 64)
    for seen in _SEEN.finditer(text, near, low + 64):
        if seen.start() < low < seen.end() and seen.start() > near:
            return int(seen.start())
    return low
