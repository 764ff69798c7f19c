"""The promise of every store to messengers: what is to be sent to the chat that a session is.

One process sends at a time, by a lease; what has become of each piece is noted with the turn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from turnwise.stores.records import Delivery


class Outboxes(ABC):
    """The outboxes of sessions, each act as whole and as durable as the others of a store."""

    @abstractmethod
    async def outbox(self, channel: str, limit: int) -> list[str]:
        """Sessions with a turn that has ended and is to be sent on this channel."""

    @abstractmethod
    async def deliver(self, session: str, channel: str, by: str, lease: float) -> Delivery | None:
        """Become the one that sends, for `lease` seconds; None if another one does."""

    @abstractmethod
    async def delivered(
        self, session: str, by: str, lease: float, n: int, pieces: list[Any], over: bool
    ) -> Delivery:
        """Note what has become of the pieces of turn `n`, and if it is `over`. Raises ClaimLost."""

    @abstractmethod
    async def leave(self, session: str, by: str) -> None:
        """Send no more now."""

    @abstractmethod
    async def turn_down(
        self, session: str, channel: str, id: str, why: str
    ) -> tuple[int, int, int] | None:
        """A piece that was sent does not arrive: its turn, its message's place and its own."""

    @abstractmethod
    async def readdress(self, session: str, channel: str, to: Any) -> None:
        """The chat that the session is has moved."""
