"""Skipping: a session that cannot be worked on holds up no other."""

from __future__ import annotations

import logging

from turnwise.errors import StoreUnavailable, TurnwiseError
from turnwise.stores.header import WrittenByNewer

log = logging.getLogger("turnwise.store")

_said: set[str] = set()


def about_one(error: object) -> bool:
    """Whether this is an error about one session, and not about the whole store."""
    return isinstance(error, WrittenByNewer) or (
        isinstance(error, TurnwiseError) and not isinstance(error, StoreUnavailable)
    )


def skip(session: str, error: object) -> None:
    """Go on without this session; it is said once. Raises what is not about one session."""
    if not about_one(error):
        assert isinstance(error, BaseException)
        raise error
    if session not in _said:
        _said.add(session)
        log.error("session %r is left out: %s", session, error)
