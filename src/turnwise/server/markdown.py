"""Markdown to HTML that is safe to put into a page.

The text comes from users and models and is not trusted: raw HTML is shown as text, images are not
loaded, links open in a new tab and lead only to the web or to mail; the result is sanitized again.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token as Piece
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, Name, Number, String
from pygments.util import ClassNotFound

MAX_TEXT = 60_000
"""Characters; a longer text is shown without rendering."""
MAX_CODE = 10_000
"""Characters of a block of code that is coloured."""
COLOURS: tuple[tuple[Any, str], ...] = (
    (Comment, "hl-c"), (String, "hl-s"), (Number, "hl-n"), (Keyword, "hl-k"),
    (Name.Function, "hl-f"), (Name.Class, "hl-f"), (Name.Builtin, "hl-f"), (Name.Tag, "hl-k"),
    (Name.Attribute, "hl-f"),
)  # fmt: skip
"""The classes of the page's few colours, by kinds of tokens."""
BOXES = {"[ ] ": "☐ ", "[x] ": "☑ ", "[X] ": "☑ "}


def _coloured(code: str, language: str, _: str) -> str:
    """A block of code as HTML, with classes for its colours if its language is known."""
    lexer = _lexer(language) if len(code) <= MAX_CODE else None
    if lexer is None:
        return escape(code)
    parts = []
    for kind, text in lexer.get_tokens(code):
        name = next((name for wanted, name in COLOURS if kind in wanted), "")
        parts.append(
            escape(text) if name is None else f'<span class="{name}">{escape(text)}</span>'
        )
    return "".join(parts)


def _lexer(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False) if language else None
    except ClassNotFound:
        return None


def _with_boxes(state: StateCore) -> None:
    """`- [ ] text` is a task: a box before its text."""
    tokens: Sequence[Piece] = state.tokens
    for item, _, inline in zip(tokens, tokens[1:], tokens[2:], strict=False):
        box = BOXES.get(inline.content[:4])
        if item.type == "list_item_open" and inline.type == "inline" and box and inline.children:
            first = inline.children[0]
            if first.type == "text" and first.content.startswith(inline.content[:3]):
                first.content = box + first.content[4:]
                item.attrSet("class", "task")


_PARSER = (
    MarkdownIt(
        "commonmark", {"html": False, "breaks": True, "maxNesting": 20, "highlight": _coloured}
    )
    .enable(["table", "strikethrough"])
    .disable(["image"])
)
_PARSER.core.ruler.push("tasks", _with_boxes)
_TEXT = {"p", "br", "hr", "strong", "em", "s", "del", "a", "code", "pre", "blockquote"}
_TAGS = _TEXT | {"span", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6"}
_BLOCKS = {"p", "li", "ul", "ol", "blockquote", "table", "h1", "h2", "h3", "h4", "h5", "h6"}
_TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}


def to_html(text: str) -> str:
    """`text` as HTML of a closed list of tags, without images, styles or scripts."""
    if len(text) > MAX_TEXT:
        return f"<pre>{escape(text)}</pre>"
    return nh3.clean(
        _PARSER.render(text),
        tags=_TAGS,
        attributes={"a": {"href", "title"}, "code": {"class"}, "ol": {"start", "dir"}},
        allowed_classes={"span": {name for _, name in COLOURS}, "li": {"task"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        # Each block is laid out in the direction of its own text.
        set_tag_attribute_values={
            "a": {"target": "_blank"},
            "pre": {"dir": "ltr"},
            **{tag: {"dir": "auto"} for tag in _BLOCKS},
        },
    )
