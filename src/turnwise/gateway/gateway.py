"""Gateway: submit a message, follow its reply, read a session. All that a channel sees.

It checks requests (sizes, ids, tokens) and calls the store; it does not depend on HTTP or on the
bot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from turnwise.conversation import (
    QUEUE,
    Answer,
    Attachment,
    Message,
    Policy,
    TurnRecord,
    WhenBusy,
    checked_policy,
    checked_session_id,
)
from turnwise.errors import Invalid, PerhapsKept, StoreUnavailable, TooLarge
from turnwise.gateway.checks import (
    MAX_ATTACHMENTS,
    checked_answers,
    checked_key,
    checked_metadata,
    checked_reason,
    checked_text,
    content_of,
    encoded_message,
    encoded_messages,
    fingerprint,
)
from turnwise.gateway.deliveries import Deliveries
from turnwise.gateway.files import FileLimits, Files
from turnwise.gateway.hub import Hub
from turnwise.gateway.reader import Reader
from turnwise.gateway.sessions import Sessions
from turnwise.gateway.turns import Turns
from turnwise.stores.base import Store
from turnwise.stores.claim import Claim, Desk
from turnwise.stores.records import Submission, Submitted
from turnwise.tokens import Signer

CANCEL_PATIENCE = 2.0
"""Seconds that `cancel` waits for a running turn to end."""
LATEST = 7_258_118_400.0
"""The year 2200, in seconds since 1970: no timer is later."""
SOON = 2.0
"""Seconds that a submission waits for its turn's end without following its events."""

Offer = Callable[[], Desk | None]
Take = Callable[[Claim | None], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a gateway: characters of text, messages waiting per session, unfinished turns
    per owner; and what a message does that finds the session busy, if nothing else says it."""

    text: int = 100_000
    queue: int = 100
    owner: int | None = None
    policy: Policy = QUEUE


class Following(NamedTuple):
    """A submitted turn and a reader of its events."""

    submitted: Submitted
    reader: Reader


class Answered(NamedTuple):
    """A submitted turn, its record when the waiting ended, and whether this process is stopping."""

    submitted: Submitted
    record: TurnRecord
    closed: bool


class Gateway(Sessions, Turns):
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
        files: Files | None = None,
    ) -> None:
        files = files or Files(store, None, FileLimits())
        Sessions.__init__(self, store, signer, files, session_ttl)
        Turns.__init__(self, store, hub)
        self.limits = limits
        self.deliveries = Deliveries(store)
        self._offer = offer
        self._take = take

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
        owner: str | None = None,
        create: bool = False,
        replaces: int | None = None,
        behind: int | None = None,
        when_busy: WhenBusy | None = None,
        settle: float = 0.0,
        address: tuple[str, Any] | None = None,
        group: str | None = None,
    ) -> Submitted:
        """Put a message into the session's mailbox; returns when it is durably stored.

        `note` is JSON, up to 16 kB, that the submitting channel keeps with the turn: the handler
        sees it, clients do not, and it is not a part of the message. `replaces` takes back a turn
        and all behind it, `behind` is the turn that must be the last one. `when_busy` and `settle`:
        see Policy. `address`: the channel of a messenger, and the chat there that the session is.
        `group`: messages of one group are one message, whatever the policy, which comes in parts,
        not more than `settle` seconds apart.

        Raises Invalid, TooLarge, NotFound, AskClosed, Unauthorized, KeyReused, QueueFull, Busy,
        Superseded, MovedOn, TooFarBack, StoreUnavailable, and PerhapsKept if the store's answer was
        lost.
        """
        text = checked_text(text, self.limits.text, may_be_empty=bool(attachments or answers))
        if len(attachments) > MAX_ATTACHMENTS:
            raise TooLarge(f"A message has at most {MAX_ATTACHMENTS} attachments.")
        if metadata:
            checked_metadata(metadata)
        if answers:
            checked_answers(answers)
        attached: list[Attachment] = []
        files: Sequence[str] = ()
        if attachments:
            if owner is not None and not create:
                await self.session(session_id, owner=owner)
            attached, files = await self.files.named(session_id, attachments)
        message = Message(
            text=text, attachments=attached, metadata=dict(metadata or {}), role="user",
            answers=answers,
        )  # fmt: skip
        wish = self._wish(session_id, key, encoded_message(message), generation, owner)
        wish.create, wish.answers, wish.files = create, answers, files
        wish.replaces, wish.behind, wish.address = replaces, behind, address
        if address is not None:
            checked_metadata({"to": address[1]}, "A chat's address")
        if when_busy is not None:
            wish.when_busy, wish.settle = checked_policy(when_busy, settle)
        elif group is not None:
            wish.group, (_, wish.settle) = group, checked_policy("merge", settle)
        elif settle:
            raise Invalid('settle is for when_busy "merge".')
        if note:
            wish.note = checked_metadata(note, "A note")
        if key is not None:
            content: list[Any] = [text, [a.as_dict() for a in attached], metadata or {}]
            content += map(tuple, answers)
            if replaces is not None:
                content.append(replaces)
            wish.fingerprint = fingerprint(content)
        return await self._submit(wish)

    async def again(
        self,
        session_id: str,
        n: int,
        *,
        note: Mapping[str, Any] | None = None,
        key: str | None = None,
        generation: int | None = None,
        owner: str | None = None,
    ) -> Submitted:
        """Answer turn `n` anew: it and all behind it are taken back, and its own message is
        submitted once more, with its own note or another one. Raises as `submit` does."""
        wish = self._wish(session_id, key, b"", generation, owner)
        wish.replaces, wish.again = n, True
        if note:
            wish.note = checked_metadata(note, "A note")
        wish.fingerprint = fingerprint(["again", n])
        return await self._submit(wish)

    async def wake(
        self,
        session_id: str,
        reason: str,
        *,
        at: float | None = None,
        key: str | None = None,
        owner: str | None = None,
    ) -> TurnRecord | None:
        """A turn without a message of a person, now or at a time (seconds since 1970).

        Returns its record, or None if its time is still to come. Raises NotFound, KeyReused,
        QueueFull, Invalid.
        """
        wish = self._wish(session_id, key, b"", None, owner)
        wish.reason = checked_reason(reason)
        wish.fingerprint = fingerprint(["wake", reason, at])
        return await self._begin(wish, at)

    async def say(
        self,
        session_id: str,
        messages: Sequence[Message],
        *,
        at: float | None = None,
        key: str | None = None,
        owner: str | None = None,
    ) -> TurnRecord | None:
        """A turn whose reply is given, now or at a time: no handler runs for it. Returns and raises
        as `wake` does."""
        wish = self._wish(session_id, key, b"", None, owner)
        wish.given = encoded_messages(messages)
        if not wish.given:
            raise Invalid("There is nothing to say.")
        wish.fingerprint = fingerprint(["say", at, *map(content_of, messages)])
        return await self._begin(wish, at)

    async def _begin(self, wish: Submission, at: float | None) -> TurnRecord | None:
        """Submit what the bot is to say first, now or at a time."""
        if at is None:
            record = (await self._submit(wish)).turn
            return await self.turn(wish.session, record.n) if wish.given else record
        if not isinstance(at, int | float) or not 0 <= at <= LATEST:
            raise Invalid("A timer's time is seconds since 1970, before the year 2200.")
        timer = await self._store.schedule(wish, float(at))
        if timer is None and wish.key is not None:
            return await self.turn_by_key(wish.session, wish.key)
        return None

    async def unwake(self, session_id: str, key: str) -> bool:
        """Forget what was to be said with this key. Returns whether there was such a timer. Raises
        NotFound."""
        return await self._store.unschedule(session_id, key)

    def _wish(
        self,
        session_id: str,
        key: str | None,
        message: bytes,
        generation: int | None,
        owner: str | None,
    ) -> Submission:
        return Submission(
            session=checked_session_id(session_id),
            message=message,
            key=key if key is None else checked_key(key),
            limit=self.limits.queue,
            generation=generation,
            ttl=self.session_ttl,
            owner=owner,
            owner_limit=self.limits.owner,
            policy=self.limits.policy,
        )

    async def _submit(self, wish: Submission) -> Submitted:
        desk = self._offer() if self._offer is not None and not wish.given else None
        # From here on the store is responsible for the desk: it calls `take` in every case.
        take = self._take if desk is not None else None
        try:
            return await self._store.submit(wish, desk, take)
        except StoreUnavailable as error:
            if error.perhaps_done:  # repeating it without a key could store it twice
                raise PerhapsKept(retryable=wish.key is not None) from error
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
        if self._offer is None:  # another process answers: hear of it from the start
            submitted, reader = await self.submit_and_follow(session_id, text, **more)
            with reader:
                record = submitted.turn
                if record.open:
                    left = None if timeout is None else timeout - (time.monotonic() - began)
                    record = await self.drain(reader, record, left)
                return Answered(submitted, record, reader.closed is not None and record.open)
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

    async def cancel(
        self, session_id: str, n: int, *, patience: float = CANCEL_PATIENCE
    ) -> TurnRecord:
        """Withdraw a queued turn, or stop a running one and wait `patience` seconds for its end.
        Raises NotFound."""
        record = await self._store.cancel(session_id, n)
        return await self._settled(record, patience) if record.open else record

    async def stop(
        self, session_id: str, *, key: str | None = None, patience: float = CANCEL_PATIENCE
    ) -> list[TurnRecord]:
        """Stop the running turn and withdraw all that wait, in one act; wait `patience` seconds for
        the end of the running one. Returns the turns that were open; the same `key` stops once.
        Raises NotFound, Invalid, KeyReused."""
        records = await self._store.stop(session_id, None if key is None else checked_key(key))
        return [
            await self._settled(record, patience) if record.open else record for record in records
        ]

    async def change(self, session_id: str, n: int, text: str) -> TurnRecord:
        """Change the text of a message that waits. Raises NotFound, NotQueued, Invalid,
        TooLarge."""
        text = checked_text(text, self.limits.text, may_be_empty=False)
        return await self._store.change(session_id, n, text)

    async def ping(self) -> None:
        """Return when the store answers. Raises StoreUnavailable."""
        await self._store.ping()
