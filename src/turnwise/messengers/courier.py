"""Courier: receives a messenger platform's updates and sends the replies.

It serves platforms that are polled (polling.py) and those that call a webhook. An update is stored
under its own id before it is acknowledged to the platform, so an update that is delivered twice
creates one turn. Each session's replies are sent in order; sessions do not wait for each other.
A reply that cannot be sent is retried and then dropped; it stays in the history.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from turnwise.conversation import Attachment, Message, TurnRecord
from turnwise.errors import Rejected, StoreUnavailable
from turnwise.gateway.gateway import Following, Gateway
from turnwise.settings import Settings

log = logging.getLogger("turnwise.messenger")

REMEMBERED = 10_000
"""How many updates this process remembers to recognise repeated deliveries."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts to send."""
PATIENCE = 10.0
"""Seconds that unfinished replies may take when the process stops."""


@dataclass(slots=True)
class Update:
    """A message that a user sent on a platform.

    `id` is the platform's own unique id; `session` is the conversation it belongs to; `to` is the
    destination of the reply, in the platform's format.
    """

    id: str
    session: str
    text: str
    to: Any
    attachments: Sequence[Attachment] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


ChooseSession = Callable[[Update], "str | Awaitable[str]"]
"""Returns the session of an update: for users with one session on several channels."""


class Platform(ABC):
    """The part of a messenger platform that a courier needs."""

    name: str
    """Short and unique; the prefix of the ids of the platform's updates."""

    @abstractmethod
    async def send(self, update: Update, message: Message) -> None:
        """Send one message of the reply to `update`.

        May raise any exception; sending is retried, after the error's `retry_after` seconds if it
        has them.
        """

    async def close(self) -> None:  # noqa: B027 -- optional: not every platform has connections
        """Close the connections; nothing is sent afterwards."""


class HasGateway(Protocol):
    """The part of a runtime that is used here."""

    @property
    def gateway(self) -> Gateway: ...

    @property
    def settings(self) -> Settings: ...


class Courier:
    """Receives the updates of one platform and sends the replies."""

    def __init__(
        self, runtime: HasGateway, platform: Platform, *, session: ChooseSession | None = None
    ) -> None:
        self._runtime = runtime
        self._platform = platform
        self._session = session
        self._taken: OrderedDict[str, None] = OrderedDict()
        self._lines: dict[str, asyncio.Task[None]] = {}

    async def take(self, update: Update) -> None:
        """Return when the update is durably stored; its reply follows later.

        Raises StoreUnavailable; the platform should then deliver the update again.
        """
        if update.id in self._taken:
            return
        session = await self._session_of(update)
        try:
            following = await self._runtime.gateway.submit_and_follow(
                session,
                update.text,
                key=f"{self._platform.name}:{update.id}",
                attachments=update.attachments,
                metadata={"channel": self._platform.name, **update.metadata},
                create=True,
            )
        except Rejected as error:  # it will never be accepted: notify the user
            reply = self._tell(update, Message(error.message))
        else:
            reply = self._bring(update, following)
        self._taken[update.id] = None
        if len(self._taken) > REMEMBERED:
            self._taken.popitem(last=False)
        self._after(session, reply)

    async def _session_of(self, update: Update) -> str:
        if self._session is None:
            return update.session
        chosen = self._session(update)
        return chosen if isinstance(chosen, str) else await chosen

    def _after(self, session: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` after the earlier work for this session is finished."""
        before = self._lines.get(session)
        task = asyncio.get_running_loop().create_task(_in_turn(before, work))
        self._lines[session] = task
        task.add_done_callback(lambda done: self._ended(session, done))

    def _ended(self, session: str, task: asyncio.Task[None]) -> None:
        if self._lines.get(session) is task:
            del self._lines[session]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a reply was not delivered: %s", type(error).__name__)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """The lifespan of a webhook's router: closes the courier when the application ends."""
        try:
            yield
        finally:
            await self.close()

    async def close(self) -> None:
        """Send the replies that are ready within 10 seconds, then disconnect.

        The other replies stay in the history.
        """
        if self._lines:
            _, late = await asyncio.wait(self._lines.values(), timeout=PATIENCE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._platform.close()

    async def _bring(self, update: Update, following: Following) -> None:
        submitted, reader = following
        turn = submitted.turn
        session, n = turn.session, turn.n
        with reader:
            record = await self._patiently(lambda: self._runtime.gateway.drain(reader, turn, None))
        while record.open:  # streams are closed: this process is about to stop
            await asyncio.sleep(0.1)
            record = await self._patiently(lambda: self._runtime.gateway.turn(session, n))
        for message in _messages(record):
            await self._tell(update, message)

    async def _patiently(self, read: Callable[[], Awaitable[TurnRecord]]) -> TurnRecord:
        while True:
            try:
                return await read()
            except StoreUnavailable:
                await asyncio.sleep(1.0)

    async def _tell(self, update: Update, message: Message) -> None:
        for pause in (*PAUSES, None):
            try:
                await self._platform.send(update, message)
                return
            except Exception as error:
                if pause is None:
                    log.error("cannot send on %s: %s", self._platform.name, type(error).__name__)
                    return
                await asyncio.sleep(float(getattr(error, "retry_after", None) or pause))


async def _in_turn(before: asyncio.Task[None] | None, work: Coroutine[Any, Any, None]) -> None:
    if before is not None:
        await asyncio.wait({before})
    await work


def _messages(record: TurnRecord) -> list[Message]:
    """The messages to send for a finished turn: its replies, or the error."""
    if record.status == "failed":
        return [Message(record.error.message if record.error else "Something went wrong.")]
    if record.merged_into is not None:  # that turn's own message brings them
        return []
    replies = record.reply.messages if record.reply else []
    return [reply for reply in replies if reply.text or reply.attachments]
