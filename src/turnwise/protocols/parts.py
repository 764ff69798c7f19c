"""Parts of a message that are files, by the URLs that clients send."""

from __future__ import annotations

from typing import Any

from turnwise.conversation import Attachment
from turnwise.errors import Invalid

READABLE = ("data:", "http://", "https://", "/")


def attached(kind: str, url: Any, name: Any = None) -> Attachment:
    """A file by its URL; a data URL says its own type. Raises Invalid."""
    if not isinstance(url, str) or not url.startswith(READABLE):
        raise Invalid("A file needs its data, or an http(s) URL.")
    if url.startswith("data:"):
        kind = url[5:].partition(",")[0].partition(";")[0] or kind
    return Attachment(kind, url, name if isinstance(name, str) else None)
