"""Deliveries: what messengers do with the outboxes of sessions, and the names of moved chats."""

from __future__ import annotations

from typing import Any

from turnwise.stores.base import Store
from turnwise.stores.records import Delivery

MOVED = "moved:"
"""What the facts begin with that say which session goes on in a chat with another id."""


class Deliveries:
    """The outboxes of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def waiting(self, channel: str, limit: int) -> list[str]:
        """Sessions with a turn that has ended and is to be sent on this channel."""
        return await self._store.outbox(channel, limit)

    async def begin(self, session: str, channel: str, by: str, lease: float) -> Delivery | None:
        """Become the one that sends; None if another one does."""
        return await self._store.deliver(session, channel, by, lease)

    async def note(
        self, session: str, by: str, lease: float, n: int, pieces: list[Any], over: bool
    ) -> Delivery:
        """What has become of a turn's pieces. Raises ClaimLost."""
        return await self._store.delivered(session, by, lease, n, pieces, over)

    async def leave(self, session: str, by: str) -> None:
        """Send no more now."""
        await self._store.leave(session, by)

    async def turn_down(
        self, session: str, channel: str, id: str, why: str
    ) -> tuple[int, int, int] | None:
        """The platform says later that a piece does not arrive: its turn, its message's place and
        its own; None if it is not known, or was told before."""
        return await self._store.turn_down(session, channel, id, why)

    async def move(self, session: str, channel: str, to: Any, chat: str) -> None:
        """The session goes on in another chat, whose own session would be `chat`."""
        await self._store.publish(MOVED + chat, session.encode("utf-8", "surrogatepass"))
        await self._store.readdress(session, channel, to)

    async def sweep(self) -> None:
        """Forget what chats have become whose session is gone."""
        for name, session in (await self._store.published(MOVED)).items():
            if await self._store.session(session.decode("utf-8", "surrogatepass")) is None:
                await self._store.publish(name, None)

    async def session_of(self, chat: str, earlier: str | None) -> str:
        """The session of a chat: the one that went on there, or one that an earlier version has
        made for it, or its own."""
        if await self._store.session(chat) is not None:
            return chat
        moved = (await self._store.published(MOVED + chat)).get(MOVED + chat)
        if moved is not None:
            return moved.decode("utf-8", "surrogatepass")
        if earlier is not None and await self._store.session(earlier) is not None:
            return earlier
        return chat
