"""Repeats: a request that OpenAI's clients send once more, by themselves and without a key.

They do so after 408, 409, 429, 5xx and lost answers, and count it in a header. A session that is
made without a name gets its id from what was asked and when, so that a repetition finds it, in any
process and whoever owns it; in a session that there is, the last turn is the one if it was asked
the same.
"""

from __future__ import annotations

import time
from hashlib import sha256

import orjson
from pydantic import BaseModel

from turnwise.conversation import TurnRecord, keyed_session_id
from turnwise.errors import NotFound
from turnwise.protocols.door import Caller, number
from turnwise.stores.records import Submitted

RETRY = "x-stainless-retry-count"
RECENT = 10.0
"""Seconds after a turn's end within which a repetition means this turn; and how long one moment
lasts, of those from which ids are made."""
MOMENTS = 7
"""Moments in which the first request of a repetition is looked for."""
ASKED = "asked"
"""Where a turn's note has what was asked, in short."""


class Repeats:
    """What may have been asked before: the same `body`, with the same headers that matter."""

    def __init__(self, caller: Caller, body: BaseModel, *headers: str | None) -> None:
        content = [body.model_dump(), headers]
        self.asked = sha256(orjson.dumps(content)).hexdigest()[:32]
        request = caller.request
        self._caller = caller
        self._again = number(request.headers.get(RETRY), 0, 1000) > 0

    async def in_session(self, session_id: str) -> Submitted | None:
        """The session's last turn, if this request has made it."""
        if not self._again:
            return None
        last = await _last(self._caller, session_id)
        if last is None or last.note.get(ASKED) != self.asked:
            return None
        is_recent = last.open or time.time() - (last.finished_at or 0.0) < RECENT
        return Submitted(last, False) if is_recent else None

    async def alone(self, kind: str) -> tuple[Submitted | None, str | None]:
        """The turn that this request has made in a session of its own, or the key with which such a
        session is made; no key if one with it is there already, of another request."""
        moment = int(time.time() / RECENT)
        for passed in range(MOMENTS if self._again else 1):
            key = f"{self.asked} {moment - passed}"
            last = await _last(self._caller, self._id(kind, key))
            if last is not None:
                return (Submitted(last, False), None) if self._again else (None, None)
        return None, f"{self.asked} {moment}"

    def _id(self, kind: str, key: str) -> str:
        """The id that a session gets which is made with this key: see `Sessions.create`, `fork`."""
        if kind:
            return keyed_session_id(kind, key)
        principal = self._caller.principal
        scope = principal.scope if principal.owner is None else f"owner {principal.owner}"
        return keyed_session_id(scope, key)


async def _last(caller: Caller, session_id: str) -> TurnRecord | None:
    try:
        await caller.by_id(session_id)
        records, _ = await caller.gateway.turns(session_id, limit=1)
    except NotFound:
        return None
    return records[-1] if records else None
