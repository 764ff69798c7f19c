"""Asking: what a program does with conversations: ask, follow, edit, wake, read."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from turnwise.bot import Bot
from turnwise.conversation import (
    Answer,
    Attachment,
    Message,
    Reply,
    Session,
    TurnRecord,
    WhenBusy,
    checked_owner,
    checked_policy,
    checked_session_id,
    file_path,
    named_session_id,
)
from turnwise.conversation.events import MERGED, Event
from turnwise.conversation.streamed_text import StreamedText
from turnwise.errors import (
    ConfigurationError,
    Invalid,
    ReplyTimeout,
    StreamEnded,
    TurnError,
    turn_error,
)
from turnwise.gateway.exclusive import HeldSession, held
from turnwise.gateway.gateway import Gateway
from turnwise.gateway.listing import SessionPage
from turnwise.stores.base import Store
from turnwise.worker.attempt import check_state


class Asking(ABC):
    """The conversations of a runtime, in Python."""

    bot: Bot
    _store: Store

    @property
    @abstractmethod
    def gateway(self) -> Gateway:
        """Submit, follow, cancel, read. Raises ConfigurationError when not running."""

    def session_id(self, name: str, owner: str) -> str:
        """The id of the session that is called `name` in the owner's space, as it is listed."""
        return named_session_id(checked_owner(owner), name)

    def _id(self, name: str, owner: str | None) -> str:
        return name if owner is None else self.session_id(name, owner)

    async def ask(
        self,
        session_id: str | None,
        text: str,
        *,
        key: str | None = None,
        timeout: float | None = None,
        metadata: dict[str, Any] | None = None,
        answers: Mapping[str, Any] | None = None,
        note: Mapping[str, Any] | None = None,
        owner: str | None = None,
        replaces: int | None = None,
        when_busy: WhenBusy | None = None,
        settle: float = 0.0,
        history: Sequence[Message] = (),
        attachments: Sequence[Attachment] = (),
    ) -> Reply:
        """The reply to `text` in the session `session_id`, which is created on first use.

        The same `key` submits only once. `answers` are values by the ids of the asks that they
        answer (`reply.asks`); then the text may be empty. `note` is for the handler
        (`turn.note`) and for `runtime.turn`. With an `owner` the id is a name in the owner's space.
        `replaces` takes back a turn and all behind it. `when_busy` says what happens if earlier
        messages are unanswered: "queue", "interrupt", "merge" (within `settle` seconds) or
        "reject". Without a session id the turn stands alone, behind this `history`: its session is
        in no list and lives an hour.

        Raises AskClosed if one waits no longer, Busy, Superseded, TooFarBack, ReplyTimeout after
        `timeout` seconds (the turn continues), TurnError if the turn failed or was cancelled.
        """
        if session_id is None:
            alone = await self.gateway.create(
                messages=history, ttl=3600.0, unlisted=True, owner=owner, key=key, scope="alone"
            )
            session_id = alone.id
        elif history:
            raise ConfigurationError("A history is given where a session begins: runtime.create.")
        else:
            session_id = self._id(session_id, owner)
        _, record, closed = await self.gateway.submit_and_wait(
            session_id, text, timeout=timeout, key=key, create=True, metadata=metadata, note=note,
            owner=owner, replaces=replaces, when_busy=when_busy, attachments=attachments,
            settle=settle,
            answers=_answers(answers),
        )  # fmt: skip
        return answered(record, closed)

    async def again(
        self,
        session_id: str,
        n: int,
        *,
        owner: str | None = None,
        key: str | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Another reply to the message of turn `n`: it and all behind it are taken back. Raises as
        `ask` does."""
        submitted = await self.gateway.again(self._id(session_id, owner), n, key=key, owner=owner)
        record = await self.gateway.wait(submitted.turn.session, submitted.turn.n, timeout)
        return answered(record, timeout is None and record.open)

    async def stream(
        self,
        session_id: str,
        text: str,
        *,
        key: str | None = None,
        owner: str | None = None,
        answers: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> AsyncIterator[Event]:
        """The events of the turn that answers `text`, until its last one; takes what `ask` takes,
        but for a timeout and a history.

        If the caller stops early, the turn continues. Raises StreamEnded if this process stops
        before the turn has ended, so that a partial reply never looks complete.
        """
        _, reader = await self.gateway.submit_and_follow(
            self._id(session_id, owner), text, key=key, create=True, owner=owner,
            answers=_answers(answers), **more,
        )  # fmt: skip
        merged_into = None
        with reader:
            async for event in reader:
                yield event
                if event.type == MERGED:
                    merged_into = event.json()["merged_into"]
        if merged_into is not None:  # another turn answers this message as well
            record = await self.gateway.turn(reader.session, merged_into)
            after = record.first_event - 1
            with self.gateway.follow(reader.session, after, turn=merged_into) as following:
                async for event in following:
                    yield event

    async def stream_text(
        self, session_id: str, text: str, *, key: str | None = None, **more: Any
    ) -> AsyncIterator[str]:
        """The reply's text, piece by piece; whole messages are separated by a line break.

        Raises TurnError if the turn fails or is cancelled, StreamEnded if this process stops
        first, or if a second attempt produces a text that differs from what was already yielded.
        """
        told = StreamedText()
        async for event in self.stream(session_id, text, key=key, **more):
            if piece := told.hear(event):
                yield piece

    # Sessions

    async def create(
        self,
        session_id: str | None = None,
        *,
        owner: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        private: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        messages: Sequence[Message] = (),
        when_busy: WhenBusy | None = None,
        settle: float = 0.0,
    ) -> Session:
        """Create a session, or return the one with this id; without an id it gets a random one.

        `messages` are its history at the beginning. With an `owner` the id is a name in the owner's
        space. `metadata` is for clients, `private` for the bot alone. `ttl`: seconds from its last
        turn until it expires. `when_busy`, `settle`: see `ask`. Raises Invalid, NotFound.
        """
        return await self.gateway.create(
            session_id=session_id if session_id is None else self._id(session_id, owner),
            name=name, metadata=metadata, ttl=ttl, owner=owner, private=private, messages=messages,
            policy=None if when_busy is None else checked_policy(when_busy, settle),
        )  # fmt: skip

    async def sessions(
        self, owner: str | None = None, *, limit: int = 50, before: str | None = None, q: str = ""
    ) -> SessionPage:
        """An owner's sessions, the last used first; without an owner all, in order of their ids.

        `before` is the `next` of another page, `q` a part of the name. Raises Invalid.
        """
        return await self.gateway.sessions(owner, limit=limit, before=before, q=q)

    async def adopt(self, session_id: str, owner: str) -> Session:
        """Give a guest's session to `owner`, who never changes. Raises NotFound, OwnerSet."""
        return await self.gateway.adopt(session_id, owner)

    async def fork(
        self,
        session_id: str,
        at: int | None = None,
        *,
        owner: str | None = None,
        name: str | None = None,
        key: str | None = None,
    ) -> Session:
        """A new session of the same owner that is this one up to turn `at`, or its last one: with
        its history, state and memory. Raises NotFound, Superseded, TooFarBack."""
        return await self.gateway.fork(self._id(session_id, owner), at, name=name, key=key)

    async def stop_turns(self, session_id: str, *, owner: str | None = None) -> list[TurnRecord]:
        """Stop the session's running turn and withdraw all that wait, in one act. Raises
        NotFound."""
        return await self.gateway.stop(self._id(session_id, owner))

    async def upload(
        self,
        session_id: str,
        name: str,
        content: bytes,
        *,
        type: str | None = None,
        owner: str | None = None,
    ) -> Attachment:
        """Keep a file of a session, which is created on first use; give what is returned to `ask`
        as one of its `attachments`, within an hour.

        `type` is its media type, if it is known. Raises Invalid, TooLarge, NoFileStore.
        """
        session = await self._begun(session_id, owner)
        file = await self.gateway.files.upload(session, name, type, content)
        return Attachment(file.type, f"{file_path(session)}{file.id}", file.name, file.size)

    # The bot speaks first

    async def wake(
        self,
        session_id: str,
        reason: str,
        *,
        at: datetime | float | None = None,
        key: str | None = None,
        owner: str | None = None,
    ) -> TurnRecord | None:
        """A turn without a message of a person, in order with all others; the session is created on
        first use. `turn.reason` is the reason.

        `at` is a time (with its zone) or seconds since 1970: then it is kept in the store until
        that time, whatever becomes of this process, and `key` names it for `unwake`. The same key
        is at work only once. Returns the turn's record, or None if its time is still to come.
        Raises Invalid, KeyReused, QueueFull.
        """
        session = await self._begun(session_id, owner)
        return await self.gateway.wake(session, reason, at=_seconds(at), key=key, owner=owner)

    async def say(
        self,
        session_id: str,
        message: str | Message | Sequence[Message],
        *,
        at: datetime | float | None = None,
        key: str | None = None,
        owner: str | None = None,
    ) -> TurnRecord | None:
        """A turn whose reply is given: no handler runs for it. Otherwise the same as `wake`."""
        session = await self._begun(session_id, owner)
        if isinstance(message, str):
            message = Message(message)
        given = [message] if isinstance(message, Message) else message
        return await self.gateway.say(session, given, at=_seconds(at), key=key, owner=owner)

    async def unwake(self, session_id: str, key: str, *, owner: str | None = None) -> bool:
        """Forget what was to be said with this key. Returns whether it was still to come."""
        return await self.gateway.unwake(self._id(session_id, owner), key)

    async def _begun(self, session_id: str, owner: str | None) -> str:
        session = self._id(session_id, owner)
        await self.gateway.create(session_id=session, owner=owner)
        return session

    # Reading

    async def turn(
        self,
        session_id: str,
        n: int | None = None,
        *,
        key: str | None = None,
        owner: str | None = None,
    ) -> TurnRecord:
        """A turn by its number or by its idempotency key. Raises NotFound."""
        session_id = self._id(session_id, owner)
        if (n is None) == (key is None):
            raise ConfigurationError("Name the turn by its number n or by its key.")
        if key is not None:
            return await self.gateway.turn_by_key(session_id, key)
        assert n is not None
        return await self.gateway.turn(session_id, n)

    async def messages(
        self, session_id: str, limit: int = 50, *, owner: str | None = None
    ) -> list[Message]:
        """The session's last messages, oldest first. Raises NotFound."""
        history = await self.gateway.history(self._id(session_id, owner), limit=limit)
        return history.messages

    @contextlib.asynccontextmanager
    async def session(
        self, session_id: str, *, timeout: float | None = None, owner: str | None = None
    ) -> AsyncIterator[HeldSession]:
        """Exclusive access to a session between its turns; it is created on first use.

        No turn of it runs in any process meanwhile. `state` is saved on exit; if an exception is
        raised, nothing is saved. Waits at most `timeout` seconds for the running turn, then
        raises ReplyTimeout. Raises ClaimLost if the claim expired (nothing was saved).
        """
        checked_session_id(session_id)
        session_id = await self._begun(session_id, owner)
        check = partial(check_state, most=self.bot.options.max_state)
        async with held(self._store, session_id, timeout, check) as session:
            yield session


def answered(record: TurnRecord, closed: bool = False) -> Reply:
    """The reply of a turn that was waited for. Raises StreamEnded, ReplyTimeout, TurnError."""
    if record.open:
        raise StreamEnded() if closed else ReplyTimeout()
    if record.error is not None:
        raise turn_error(*record.error)
    if record.reply is None:
        raise TurnError("The turn was cancelled.", code="cancelled")
    return record.reply


def _answers(given: Mapping[str, Any] | None) -> list[Answer]:
    return [Answer(ask, value) for ask, value in (given or {}).items()]


def _seconds(at: datetime | float | None) -> float | None:
    """A time in seconds since 1970. Raises Invalid for one without a zone."""
    if not isinstance(at, datetime):
        return at
    if at.tzinfo is None:
        raise Invalid("A timer's time needs its zone: datetime.now(UTC) + timedelta(hours=1).")
    return at.timestamp()
