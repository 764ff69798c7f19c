"""Markdown to HTML that is safe to put into a page.

The text comes from users and models and is not trusted: raw HTML is shown as text, images are not
loaded, links open in a new tab and lead only to the web or to mail; the result is sanitized again.
"""

from __future__ import annotations

from html import escape

import nh3
from markdown_it import MarkdownIt

MAX_TEXT = 60_000
"""Characters; a longer text is shown without rendering."""

_PARSER = (
    MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 20})
    .enable(["table", "strikethrough"])
    .disable(["image"])
)
_TEXT = {"p", "br", "hr", "strong", "em", "s", "del", "a", "code", "pre", "blockquote"}
_TAGS = _TEXT | {"ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6"}
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
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        # Each block is laid out in the direction of its own text.
        set_tag_attribute_values={
            "a": {"target": "_blank"},
            "pre": {"dir": "ltr"},
            **{tag: {"dir": "auto"} for tag in _BLOCKS},
        },
    )
