"""Shared by all parts of the suite: desks, texts, and short forms of some acts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from turnwise.conversation import Attachment, Message, TurnRecord
from turnwise.conversation.events import Draft, delta_draft, message_started_draft
from turnwise.stores.base import Store
from turnwise.stores.claim import NO_EPOCH, Claim, Desk, Outcome
from turnwise.stores.records import Submission, Submitted


def desk(worker: str = "w1", *, lease: float = 30.0, max_attempts: int = 3) -> Desk:
    """A worker's desk that holds nothing of any session."""
    return Desk(worker, lease, max_attempts, 50, lambda _: (NO_EPOCH, 0))


def question(text: str) -> bytes:
    return Message(text, role="user").encode()


def answer(text: str) -> Outcome:
    return Outcome("completed", [Message(text).encode()])


def started(turn: int, attempt: int, id: str = "m", *attachments: Attachment) -> Draft:
    message = Message(id=id, attachments=[*attachments])
    return message_started_draft(turn, 0.0, attempt, 0, message)


def delta(turn: int, attempt: int, text: str) -> Draft:
    return delta_draft(turn, 0.0, attempt, 0, text)


def texts(messages: Sequence[bytes]) -> list[str]:
    return [orjson.loads(message)["text"] for message in messages]


class Acting:
    """Short ways to act on a store. `StoreConformance` is made of such parts."""

    async def pass_time(self, store: Store, seconds: float) -> None:
        """Let `seconds` pass by the store's clock."""
        raise NotImplementedError

    async def made(self, store: Store, session: str = "s", ttl: float = 1000.0) -> str:
        await store.create(session, name=None, metadata=b"{}", ttl=ttl)
        return session

    async def say(self, store: Store, text: str, session: str = "s", **more: Any) -> TurnRecord:
        submitted = await store.submit(Submission(session, question(text), **more))
        return submitted.turn

    async def anew(self, store: Store, n: int) -> TurnRecord:
        """Have turn `n` answered once more."""
        wish = Submission("s", b"", replaces=n, again=True)
        return (await store.submit(wish)).turn

    async def say_and_take(
        self, store: Store, text: str, at: Desk, session: str = "s", **more: Any
    ) -> tuple[Submitted, Claim | None]:
        taken: list[Claim | None] = []
        wish = Submission(session, question(text), **more)
        submitted = await store.submit(wish, at, taken.append)
        assert len(taken) == 1
        return submitted, taken[0]

    async def claimed(self, store: Store, at: Desk | None = None) -> Claim:
        claims = await store.claim(at or desk(), 10)
        assert len(claims) == 1
        return claims[0]

    async def exchange(
        self, store: Store, text: str, state: bytes | None = None, **more: Any
    ) -> Claim:
        """A message and its answer, which is the message in capitals."""
        await self.say(store, text, **more)
        claim = await self.claimed(store)
        outcome = answer(text.upper())
        outcome.state = state
        await store.finish(claim, outcome)
        return claim

    async def shown(
        self, store: Store, session: str = "s", *, superseded: bool = False
    ) -> list[str]:
        history = await store.history(session, superseded=superseded)
        return texts(history.messages_json)

    async def types(self, store: Store, session: str = "s") -> list[str]:
        """The types of the session's events; their numbers have no gap."""
        log = await store.log(session, 0)
        assert log is not None
        first = log.floor + 1
        assert [event.id for event in log.events] == list(range(first, log.last + 1))
        return [event.type for event in log.events]

    async def status(self, store: Store, n: int, session: str = "s") -> str:
        record = await store.turn(session, n)
        assert record is not None
        return record.status
