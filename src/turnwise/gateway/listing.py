"""Listing: the sessions of an owner, by pages."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple

import orjson

from turnwise.conversation import Session
from turnwise.errors import Invalid
from turnwise.stores.base import Store
from turnwise.stores.records import Place

PAGE = 200
"""Sessions that are looked at at once for a name."""
LOOKED = 2000
"""Sessions that one request looks at for a name; it goes on with the next."""


class SessionPage(NamedTuple):
    """A page of sessions, whether there are more, and what the next page is asked for with."""

    sessions: list[Session]
    has_more: bool
    next: str | None


async def listing(
    store: Store, owner: str | None, limit: int, before: str | None, q: str
) -> SessionPage:
    """Sessions of an owner, the last used first; of None all that there are, by their ids.

    `before` is the `next` of another page. Raises Invalid.
    """
    place, wanted = _place(before), q.casefold()
    found: list[Session] = []
    looked = 0
    while True:
        size = PAGE if wanted else limit + 1 - len(found)
        if owner is None:
            page = await store.sessions(after=place[1] if place else "", limit=size)
        else:
            page = await store.owned(owner, before=place, limit=size)
        looked += len(page)
        for session in page:
            if wanted not in (session.name or "").casefold():
                continue
            if len(found) == limit:
                return SessionPage(found, True, _text(found[-1]))
            found.append(session)
        if len(page) < size:
            return SessionPage(found, False, None)
        place = (page[-1].used_at or 0.0, page[-1].id)
        if looked >= LOOKED:
            return SessionPage(found, True, _text(page[-1]))


def _text(session: Session) -> str:
    """Where a session stands in the list, as a text."""
    return urlsafe_b64encode(orjson.dumps([session.used_at or 0.0, session.id])).decode()


def _place(text: str | None) -> Place | None:
    if text is None:
        return None
    try:
        used, id = orjson.loads(urlsafe_b64decode(text.encode()))
        return float(used), str(id)
    except (ValueError, TypeError):
        raise Invalid("before is the `next` of another page.") from None
