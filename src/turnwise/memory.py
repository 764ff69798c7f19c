"""Memory: what a bot remembers of a session beside what was said."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, NamedTuple, Protocol


class Entry(NamedTuple):
    """An entry of a session's memory: its number, the turn that wrote it, its JSON.

    One whose `turn` is the current one was written by an earlier attempt, or earlier in this one.
    """

    n: int
    turn: int
    body: Any


class Keeper(Protocol):
    """What the memory asks of the attempt that runs the turn."""

    def remember(self, entries: tuple[Any, ...]) -> Awaitable[int]: ...

    def recall(self, last: int) -> Awaitable[list[Entry]]: ...

    def forget(self, before: int | None) -> Awaitable[None]: ...


class Memory:
    """The memory of a turn's session. It is private to the bot: no channel returns it.

    What is added is kept at once, under the turn's claim: it outlives a stop, a failure, a crash
    and the next attempt. Agents keep their own messages here (tool calls, results, signatures).
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def add(self, *entries: Any) -> int:
        """Add entries (JSON, up to 1 MB each), all or none; returns the number of the last one.

        It also works in the `finally` of a handler that is stopped. Raises MemoryFull beyond the
        bot's `max_memory`, BadOutput for what is not JSON, ClaimLost if the turn is no longer ours.
        """
        return await self._keeper.remember(entries)

    async def read(self, last: int = 1000) -> list[Entry]:
        """The last entries, oldest first."""
        return await self._keeper.recall(last)

    async def forget(self, before: int | None = None) -> None:
        """Forget the entries whose numbers are below `before`, after a summary or a snapshot; all
        of them without it."""
        await self._keeper.forget(before)
