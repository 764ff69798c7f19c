"""Turns as a channel reads them: found, waited for, with their messages and their events."""

from __future__ import annotations

import asyncio
import time

from turnwise.conversation import Cursor, Status, TurnRecord, parsed
from turnwise.errors import NotFound, StoreUnavailable
from turnwise.gateway.hub import Hub
from turnwise.gateway.reader import RETRY, Reader
from turnwise.stores.base import Store
from turnwise.stores.records import History


class Turns:
    """All that is read of a session's turns."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self._store = store
        self.hub = hub

    async def turn(self, session_id: str, n: int) -> TurnRecord:
        """One turn. Raises NotFound."""
        record = await self._store.turn(session_id, n)
        if record is None:
            raise NotFound("This turn does not exist.")
        return record.check()

    async def turn_by_key(self, session_id: str, key: str) -> TurnRecord:
        """The turn that was created with this idempotency key. Raises NotFound."""
        record = await self._store.turn_by_key(session_id, key)
        if record is None:
            raise NotFound("This turn does not exist.")
        return record.check()

    async def turns(
        self,
        session_id: str,
        *,
        status: Status | None = None,
        before: int | None = None,
        after: int | None = None,
        limit: int = 50,
        superseded: bool = False,
    ) -> tuple[list[TurnRecord], bool]:
        """Turns in order, and whether there are more. Raises NotFound, Damaged."""
        turns, more = await self._store.turns(
            session_id, status=status, before=before, after=after, limit=limit,
            superseded=superseded,
        )  # fmt: skip
        return [turn.check() for turn in turns], more

    async def wait(self, session_id: str, n: int, timeout: float | None) -> TurnRecord:
        """The turn, once it has ended or `timeout` seconds have passed. Raises NotFound."""
        record = await self.turn(session_id, n)
        if not record.open:
            return record
        return await self._settled(record, timeout)

    async def _settled(self, record: TurnRecord, timeout: float | None) -> TurnRecord:
        after = record.first_event - 1
        with self.hub.join(record.session, after, turn=record.n, limited=False) as reader:
            return await self.drain(reader, record, timeout)

    async def drain(self, reader: Reader, turn: TurnRecord, timeout: float | None) -> TurnRecord:
        """The turn once its reader has seen its end, was closed, or `timeout` has passed.

        While the store is unavailable this waits; if it is still unavailable at the end, the last
        known record of `turn` is returned. An accepted turn is never reported as an error.
        """
        until = None if timeout is None else time.monotonic() + timeout
        reader.only_the_end()
        if timeout is None:
            while await reader.read():
                pass
        else:
            with reader.within(timeout):
                while await reader.read():
                    pass
        record = reader.record  # if it is known, the store need not be asked
        if reader.ended and record is not None and record.n == turn.n:
            return record
        while True:
            try:
                record = await self.turn(reader.session, turn.n)
                if record.merged_into is None or not record.open or reader.closed:
                    return record
                left = None if until is None else max(0.0, until - time.monotonic())
                await self.wait(reader.session, record.merged_into, left)
                return await self.turn(reader.session, turn.n)
            except StoreUnavailable:
                if not reader.ended and (timeout is not None or reader.closed):
                    return turn
                await asyncio.sleep(RETRY)

    # History and events

    async def history(
        self,
        session_id: str,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 50,
        superseded: bool = False,
    ) -> History:
        """The history and the open turns, as one snapshot; what was taken back only if
        `superseded`. Raises NotFound, Damaged."""
        found = await self._store.history(
            session_id, before=before, after=after, limit=limit, superseded=superseded
        )
        for message in found.messages_json:
            parsed(message, session_id)
        for turn in found.open:
            turn.check()
        return found

    def follow(
        self,
        session_id: str,
        after: int | Cursor,
        *,
        turn: int | None = None,
        generation: int | None = None,
    ) -> Reader:
        """A reader of the session's events after `after`. Raises TooManyStreams."""
        return self.hub.join(session_id, after, turn=turn, generation=generation)
