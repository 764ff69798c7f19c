"""Gateway: submit a message, follow its reply, read a session. All that a channel sees.

It checks requests (sizes, ids, tokens) and calls the store; it does not depend on HTTP or on the
bot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from turnwise.conversation import (
    Answer,
    Attachment,
    Cursor,
    Message,
    Session,
    Status,
    TurnRecord,
    checked_session_id,
    new_session_id,
    parsed,
)
from turnwise.errors import (
    Invalid,
    NotFound,
    PerhapsKept,
    StoreUnavailable,
    TooLarge,
    Unauthorized,
)
from turnwise.gateway.checks import (
    MAX_ATTACHMENTS,
    MAX_KEY,
    checked_answers,
    checked_metadata,
    checked_name,
    checked_text,
    checked_ttl,
    fingerprint,
)
from turnwise.gateway.hub import Hub
from turnwise.gateway.reader import RETRY, Reader
from turnwise.stores.base import History, Store, Submission, Submitted
from turnwise.stores.claim import Claim, Desk
from turnwise.tokens import Grant, Signer

CANCEL_PATIENCE = 2.0
"""Seconds that `cancel` waits for a running turn to end."""
SOON = 2.0
"""Seconds that a submission waits for its turn's end without following its events."""

Offer = Callable[[], Desk | None]
Take = Callable[[Claim | None], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a gateway: characters of text, messages waiting per session."""

    text: int = 100_000
    queue: int = 100


class Following(NamedTuple):
    """A submitted turn and a reader of its events."""

    submitted: Submitted
    reader: Reader


class Answered(NamedTuple):
    """A submitted turn, its record when the waiting ended, and whether this process is stopping."""

    submitted: Submitted
    record: TurnRecord
    closed: bool


class Gateway:
    """The channels' only access to the store.

    `offer` and `take`, if given, belong to this process's worker: a turn submitted to an idle
    session is claimed for that worker in the same act.
    """

    def __init__(
        self,
        store: Store,
        hub: Hub,
        signer: Signer,
        *,
        limits: Limits,
        session_ttl: float,
        offer: Offer | None = None,
        take: Take | None = None,
    ) -> None:
        self._store = store
        self.hub = hub
        self._signer = signer
        self._limits = limits
        self._session_ttl = session_ttl
        self._offer = offer
        self._take = take

    # Tokens

    def token(self, session: Session) -> str:
        """A token that opens `session` until it expires or a refresh replaces it."""
        return self._signer.issue(session.id, session.generation, time.time())

    def grant(self, token: str) -> Grant:
        """What a token grants; its generation is not checked here. Raises Unauthorized."""
        return self._signer.open(token, time.time())

    async def refresh(self, session_id: str, generation: int | None = None) -> str:
        """Create a new token; all older tokens become invalid."""
        await self.session(session_id, generation)
        fresh = await self._store.rotate(session_id)
        return self._signer.issue(session_id, fresh, time.time())

    # Sessions

    async def create(
        self,
        *,
        session_id: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
    ) -> Session:
        """Create a session; if the host gives no id, it gets a random one."""
        chosen = new_session_id() if session_id is None else checked_session_id(session_id)
        return await self._store.create(
            chosen,
            name=checked_name(name),
            metadata=checked_metadata(metadata or {}),
            ttl=checked_ttl(ttl or self._session_ttl),
        )

    async def session(self, session_id: str, generation: int | None = None) -> Session:
        """The session. Raises NotFound, or Unauthorized if `generation` is not its current one."""
        found = await self._store.session(session_id)
        if found is None:
            raise NotFound("This session does not exist.")
        if generation is not None and generation != found.generation:
            raise Unauthorized()
        return found

    async def update(self, session_id: str, changes: Mapping[str, Any]) -> Session:
        """Change `name`, `metadata` or `ttl`; omitted fields keep their values."""
        checked: dict[str, Any] = {}
        if "name" in changes:
            checked["name"] = checked_name(changes["name"])
        if "metadata" in changes:
            checked["metadata"] = checked_metadata(changes["metadata"] or {})
        if "ttl" in changes:
            checked["ttl"] = checked_ttl(changes["ttl"] or self._session_ttl)
        return await self._store.update(session_id, checked)

    async def reset(self, session_id: str) -> Session:
        """Delete messages, state, mailbox and log, and stop the running turn."""
        return await self._store.reset(session_id)

    async def delete(self, session_id: str) -> bool:
        """Delete the session and all its data; returns whether it existed."""
        return await self._store.delete(session_id)

    # Turns

    async def submit(
        self,
        session_id: str,
        text: str,
        *,
        attachments: Sequence[Attachment] = (),
        metadata: Mapping[str, Any] | None = None,
        answers: Sequence[Answer] = (),
        note: Mapping[str, Any] | None = None,
        key: str | None = None,
        generation: int | None = None,
        create: bool = False,
    ) -> Submitted:
        """Put a message into the session's mailbox; returns when it is durably stored.

        `note` is JSON, up to 16 kB, that the submitting channel keeps with the turn: the handler
        sees it, clients do not, and it is not a part of the message.

        Raises Invalid, TooLarge, NotFound, AskClosed, Unauthorized, KeyReused, QueueFull,
        StoreUnavailable, and PerhapsKept if the store's answer was lost.
        """
        wish = self._wish(session_id, text, attachments, metadata, answers, key, generation, create)
        if note:
            wish.note = checked_metadata(note, "A note")
        desk = self._offer() if self._offer is not None else None
        # From here on the store is responsible for the desk: it calls `take` in every case.
        take = self._take if desk is not None else None
        try:
            return await self._store.submit(wish, desk, take)
        except StoreUnavailable as error:
            if error.perhaps_done:  # repeating it without a key could store it twice
                raise PerhapsKept(retryable=key is not None) from error
            raise

    async def submit_and_follow(self, session_id: str, text: str, **more: Any) -> Following:
        """`submit`, with a reader that gets all events of the new turn."""
        reader = self.hub.join(session_id, 0, generation=more.get("generation"))
        try:
            submitted = await self.submit(session_id, text, **more)
        except BaseException:
            reader.close()
            raise
        record, created = submitted
        if created:
            reader.start_at(record.n, record.first_event)
        else:
            reader.close()
            reader = self.hub.join(
                session_id,
                record.first_event - 1,
                turn=record.n,
                generation=more.get("generation"),
            )
        return Following(submitted, reader)

    async def submit_and_wait(
        self, session_id: str, text: str, *, timeout: float | None, **more: Any
    ) -> Answered:
        """`submit`, and the turn's record once it has ended or `timeout` seconds have passed."""
        began = time.monotonic()
        waiter = self.hub.expect(session_id)
        try:
            submitted = await self.submit(session_id, text, **more)
            record = submitted.turn
            if not record.open:
                return Answered(submitted, record, False)
            quick = timeout is not None and timeout < 1.0  # a timer may ring a little late
            if record.status == "running" and submitted.created and not quick:  # by our own worker
                patience = SOON if timeout is None else min(timeout, SOON)
                ended = await waiter.end(record.n, patience)
                if ended is not None:
                    return Answered(submitted, ended, False)
        finally:
            waiter.close()
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        after = record.first_event - 1
        with self.hub.join(session_id, after, turn=record.n, limited=False) as reader:
            record = await self.drain(reader, record, left)
            return Answered(submitted, record, reader.closed is not None)

    def _wish(
        self,
        session_id: str,
        text: str,
        attachments: Sequence[Attachment],
        metadata: Mapping[str, Any] | None,
        answers: Sequence[Answer],
        key: str | None,
        generation: int | None,
        create: bool,
    ) -> Submission:
        text = checked_text(text, self._limits.text, may_be_empty=bool(attachments or answers))
        if len(attachments) > MAX_ATTACHMENTS:
            raise TooLarge(f"A message has at most {MAX_ATTACHMENTS} attachments.")
        if metadata:
            checked_metadata(metadata)
        if answers:
            checked_answers(answers)
        message = Message(
            text=text, attachments=list(attachments), metadata=dict(metadata or {}), role="user",
            answers=answers,
        )  # fmt: skip
        marked = ""
        if key is not None:
            if not 1 <= len(key) <= MAX_KEY:
                raise Invalid(f"An idempotency key has 1 to {MAX_KEY} characters.")
            content: list[Any] = [text, [a.as_dict() for a in attachments], metadata or {}]
            marked = fingerprint([*content, *map(tuple, answers)] if answers else content)
        return Submission(
            session=checked_session_id(session_id),
            message=message.encode(),
            key=key,
            fingerprint=marked,
            limit=self._limits.queue,
            generation=generation,
            create=create,
            ttl=self._session_ttl,
            answers=answers,
        )

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
    ) -> tuple[list[TurnRecord], bool]:
        """Turns in order, and whether there are more. Raises NotFound, Damaged."""
        turns, more = await self._store.turns(
            session_id, status=status, before=before, after=after, limit=limit
        )
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
        if timeout is None:
            while await reader.read():
                pass
        else:
            with reader.within(timeout):
                while await reader.read():
                    pass
        record = reader.record  # if the turn ended in this process, the store need not be asked
        if reader.ended and record is not None and record.n == turn.n:
            return record
        while True:
            try:
                return await self.turn(reader.session, turn.n)
            except StoreUnavailable:
                if not reader.ended and (timeout is not None or reader.closed):
                    return turn
                await asyncio.sleep(RETRY)

    async def cancel(
        self, session_id: str, n: int, *, patience: float = CANCEL_PATIENCE
    ) -> TurnRecord:
        """Withdraw a queued turn, or stop a running one and wait `patience` seconds for its end."""
        record = await self._store.cancel(session_id, n)
        return await self._settled(record, patience) if record.open else record

    # Reading

    async def history(
        self,
        session_id: str,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 50,
    ) -> History:
        """The history and the open turns, as one snapshot. Raises NotFound, Damaged."""
        found = await self._store.history(session_id, before=before, after=after, limit=limit)
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

    async def ping(self) -> None:
        """Return when the store answers. Raises StoreUnavailable."""
        await self._store.ping()
