"""Parameters: what requests carry beside their bodies, as it is declared and as it is read."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header, Path, Query, Request

from turnwise.conversation import Cursor
from turnwise.conversation.cursors import MAX_NUMBER, PATTERN

MAX_WAIT = 60.0
"""Seconds that one request may wait for a reply or an event."""
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\b")

SessionId = Annotated[str, Path(description="The session's id.", examples=["1yKk2XnB3Hq0dG9c"])]
TurnNumber = Annotated[int, Path(ge=1, le=MAX_NUMBER, description="The turn's number.")]
Before = Annotated[int | None, Query(ge=1, le=MAX_NUMBER, description="Items before this number.")]
After = Annotated[int | None, Query(ge=0, le=MAX_NUMBER, description="Items after this number.")]
Limit = Annotated[int, Query(ge=1, le=500, description="Maximum number of items.")]
AfterEvent = Annotated[
    str | None,
    Query(max_length=80, pattern=PATTERN, description="Events after this cursor."),
]
Superseded = Annotated[bool, Query(description="Also what was taken back.")]
Prefer = Annotated[
    str | None, Header(description="`wait=20`: respond when the turn has ended, or after 20 s.")
]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for an event.")]
LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=80, description="Continue after this event."),
]


def patience_of(prefer: str | None) -> float | None:
    """The seconds of `Prefer: wait=`, at most MAX_WAIT; None if the header does not set it."""
    found = _PREFER_WAIT.search(prefer) if prefer else None
    return min(float(found[1]), MAX_WAIT) if found else None


def cursor_of(last_event_id: str | None, after: str | None) -> Cursor:
    return Cursor.parse(last_event_id or after or "0")


def wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "") and not wants_stream(request)
