"""Turn: everything a handler can use while it answers one message."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from turnwise.conversation import Answer, Attachment, Message
from turnwise.conversation.steps import StepKind
from turnwise.memory import Keeper, Memory

T = TypeVar("T")
Coalesce = float | Literal["sentence"]
"""How long deltas are gathered: seconds, or up to the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a bot's turns are run. `timeout` is in seconds, `max_reply` in characters,
    `max_state` and `max_memory` in bytes as JSON."""

    history: int = 50
    timeout: float = 300.0
    max_attempts: int = 3
    coalesce: Coalesce = 0.03
    max_reply: int = 1_000_000
    max_state: int = 65_536
    max_memory: int = 64_000_000


@dataclass(slots=True)
class TurnSession:
    """The session a turn belongs to.

    `owner` is whose it is, if anybody's. `metadata` is what clients have written, `private` what
    only the host writes and no client sees. A handler may set `name`: it is kept with the reply, if
    no person has named the session.
    """

    id: str
    name: str | None
    metadata: dict[str, Any]
    owner: str | None = None
    private: dict[str, Any] = field(default_factory=dict)


class Step(Protocol):
    """Something that the bot does while it answers, as `async with turn.step(...) as step`.

    Set `output` to its result (JSON). `id` is its id in events and records; unique in the session.
    If the block raises, the step has failed, and the exception goes on.
    """

    output: Any

    @property
    def id(self) -> str: ...

    async def say(self, text: str) -> None:
        """Add to the step's text, which is streamed, and is not a part of the answer."""


class Tools(Keeper, Protocol):
    """What a turn can request from the worker that runs it."""

    async def say(self, piece: str | Message) -> None: ...

    async def emit(self, name: str, data: Any, keep: bool) -> None: ...

    def step(self, name: str, input: Any, kind: StepKind) -> AbstractAsyncContextManager[Step]: ...

    async def history(self, before: int | None, limit: int) -> list[Message]: ...

    async def file(self, url: str) -> bytes: ...

    def in_thread(self, fn: Callable[..., T], *args: Any) -> Awaitable[T]: ...


class Turn:
    """One message, and what is needed to answer it. It is valid until the handler has ended.

    `n` is the turn's number in its session and `attempt` counts from 1: together with
    `session.id` they make an idempotency key for side effects. `state` is the session's own JSON
    dict, committed together with the reply or not at all. `local` is a dict in this worker's
    process that exists as long as the worker caches the session; it is never stored. `memory` is
    what the bot remembers beside what was said. `usage` is stored however the turn ends, and
    `metadata` with the message that contains its streamed text. `note` is JSON of the door that
    brought the message, such as a client's own ids. `asks` are the ids of the asks that were open
    when the attempt began: a message that was accepted before an ask leaves it open. `reason` is
    set where the bot speaks without a message of a person (`runtime.wake`): then `message` is empty
    and its role is "system".
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
        note: Mapping[str, Any] | None = None,
        asks: Sequence[str] = (),
        reason: str | None = None,
    ) -> None:
        self.session = session
        self.n = n
        self.attempt = attempt
        self.message = message
        self.state = state
        self.local = local
        self.usage: dict[str, Any] | None = None
        self.metadata: dict[str, Any] = {}
        self.note = note or {}
        self.asks = asks
        self.reason = reason
        self._history = history
        self._tools = tools

    @cached_property
    def memory(self) -> Memory:
        """What the bot remembers of the session beside what was said."""
        return Memory(self._tools)

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

    @property
    def answers(self) -> Sequence[Answer]:
        """The answers that the message gives to asks of earlier turns."""
        return self.message.answers

    async def emit(self, name: str, data: Any = None, *, keep: bool = False) -> None:
        """Send a `custom` event with JSON `data` to all followers. With `keep` it is kept on the
        turn, so that it is there after a reload; else it is gone with the log."""
        await self._tools.emit(name, data, keep)

    def step(
        self, name: str, input: Any = None, *, kind: StepKind = "tool"
    ) -> AbstractAsyncContextManager[Step]:
        """Something that the bot does while it answers: a "tool" call, "reasoning", or other
        "work". It is shown while it runs, and kept with the turn.

        `input` and the step's output are JSON. Of input, output and text 64 kB are kept each.
        """
        return self._tools.step(name, input, kind)

    def add_usage(self, usage: Mapping[str, Any]) -> None:
        """Add what one model call cost to `usage`: numbers are summed, also in nested dicts."""
        self.usage = _sum(self.usage or {}, usage)

    async def history(self, before: int | None = None, limit: int = 50) -> list[Message]:
        """Earlier messages, oldest first: the last `limit` whose `seq` is below `before`."""
        return await self._tools.history(before, limit)

    async def file(self, attachment: Attachment) -> bytes:
        """The bytes of a file that a person has uploaded, or has sent on the messenger that brought
        this message, or of a data URL. Raises NotFound for anything else, because Turnwise fetches
        nothing, TooLarge, and TurnError (`file_unavailable`) if the messenger is away."""
        if attachment.url.startswith("data:"):
            about, _, data = attachment.url.partition(",")
            plain = unquote_to_bytes(data)
            return b64decode(plain) if about.endswith(";base64") else plain
        return await self._tools.file(attachment.url)

    def in_thread(self, fn: Callable[..., T], *args: Any) -> Awaitable[T]:
        """Run blocking `fn` in this session's own thread, which its earlier turns used too."""
        return self._tools.in_thread(fn, *args)


def _sum(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers are added; anything else is the newer."""
    total = dict(old)
    for name, value in new.items():
        was = total.get(name)
        if isinstance(value, Mapping):
            total[name] = _sum(was if isinstance(was, Mapping) else {}, value)
        elif isinstance(value, int | float) and isinstance(was, int | float):
            total[name] = was + value
        elif value is not None or was is None:
            total[name] = value
    return total
