"""Turn: everything a handler can use while it answers one message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

from turnwise.conversation import Message

T = TypeVar("T")
Coalesce = float | Literal["sentence"]
"""How long deltas are gathered: seconds, or up to the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a bot's turns are run. `timeout` is in seconds, `max_reply` in characters,
    `max_state` in bytes as JSON."""

    history: int = 50
    timeout: float = 300.0
    max_attempts: int = 3
    coalesce: Coalesce = 0.03
    max_reply: int = 1_000_000
    max_state: int = 65_536


@dataclass(frozen=True, slots=True)
class TurnSession:
    """The session a turn belongs to: its id, its name, its metadata."""

    id: str
    name: str | None
    metadata: dict[str, Any]


class Tools(Protocol):
    """What a turn can request from the worker that runs it."""

    async def say(self, piece: str | Message) -> None: ...

    async def emit(self, name: str, data: Any) -> None: ...

    async def history(self, before: int | None, limit: int) -> list[Message]: ...

    def in_thread(self, fn: Callable[..., T], *args: Any) -> Awaitable[T]: ...


class Turn:
    """One message, and what is needed to answer it. It is valid until the handler has ended.

    `n` is the turn's number in its session and `attempt` counts from 1: together with
    `session.id` they make an idempotency key for side effects. `state` is the session's own JSON
    dict, committed together with the reply or not at all. `local` is a dict in this worker's
    memory that exists as long as the worker caches the session; it is never stored. `usage` is
    stored with the reply, and `metadata` with the message that contains its streamed text.
    """

    def __init__(
        self,
        session: TurnSession,
        n: int,
        attempt: int,
        message: Message,
        *,
        state: dict[str, Any],
        local: dict[str, Any],
        history: Sequence[bytes],
        tools: Tools,
    ) -> None:
        self.session = session
        self.n = n
        self.attempt = attempt
        self.message = message
        self.state = state
        self.local = local
        self.usage: dict[str, Any] | None = None
        self.metadata: dict[str, Any] = {}
        self._history = history
        self._tools = tools

    @property
    def text(self) -> str:
        """The message's text."""
        return self.message.text

    @cached_property
    def messages(self) -> list[Message]:
        """The last messages of the session (`Bot(history=)`), oldest first, this one last."""
        return [*(Message.decode(message) for message in self._history), self.message]

    async def say(self, piece: str | Message) -> None:
        """The same as yielding `piece`: a text is streamed into the current message, a Message is
        a complete message."""
        await self._tools.say(piece)

    async def emit(self, name: str, data: Any = None) -> None:
        """Send a `custom` event with JSON `data` to all followers; it is not in the history."""
        await self._tools.emit(name, data)

    async def history(self, before: int | None = None, limit: int = 50) -> list[Message]:
        """Earlier messages, oldest first: the last `limit` whose `seq` is below `before`."""
        return await self._tools.history(before, limit)

    def in_thread(self, fn: Callable[..., T], *args: Any) -> Awaitable[T]:
        """Run blocking `fn` in this session's own thread, which its earlier turns used too."""
        return self._tools.in_thread(fn, *args)
