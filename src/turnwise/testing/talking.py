"""Talk to a bot in a test, with a scripted model if it needs one."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from turnwise.asking import answered
from turnwise.bot import Bot, Handler
from turnwise.conversation import Asked, Message, Reply, TurnRecord, new_message_id
from turnwise.conversation.events import Event
from turnwise.errors import NotFound
from turnwise.runtime import Runtime
from turnwise.settings import Settings
from turnwise.turn import Turn


class Say:
    """Sends a text to the bot under test, and returns its reply.

    `events` are those of the last turn of this conversation.
    """

    def __init__(self, runtime: Runtime, session_id: str) -> None:
        self.runtime = runtime
        self.session_id = session_id
        self.events: list[Event] = []

    async def __call__(self, text: str, *, session: str | None = None, **more: Any) -> Reply:
        """The reply to `text`, in this conversation or in another `session`; takes what
        `runtime.ask` takes: `replaces=2` edits the message of turn 2.

        Raises TurnError when the turn failed, ReplyTimeout after 30 seconds.
        """
        return await self._ask(session or self.session_id, text, **more)

    async def again(self, n: int) -> Reply:
        """Another reply to the message of turn `n`."""
        return await self.runtime.again(self.session_id, n, timeout=30.0)

    async def wake(self, reason: str) -> Reply:
        """What the bot says without a message, for this reason. Raises as a message does."""
        key = new_message_id()
        record = await self.runtime.wake(self.session_id, reason, key=key)
        assert record is not None
        ended = await self.runtime.gateway.wait(self.session_id, record.n, 30.0)
        await self._listen(ended)
        return answered(ended)

    async def answer(self, ask: Asked, value: Any, text: str = "") -> Reply:
        """The reply to an answer: `await say.answer(reply.asks[0], "yes")`.

        Raises AskClosed if it was answered, or closed by a later message.
        """
        return await self._ask(self.session_id, text, answers={ask.id: value})

    async def _ask(self, session: str, text: str, **more: Any) -> Reply:
        key = new_message_id()
        try:
            return await self.runtime.ask(session, text, key=key, timeout=30.0, **more)
        finally:
            if session == self.session_id:
                with suppress(NotFound):
                    await self._listen(await self.runtime.turn(session, key=key))

    async def _listen(self, record: TurnRecord) -> None:
        self.events = []
        after = record.first_event - 1
        with self.runtime.gateway.follow(self.session_id, after, turn=record.n) as reader:
            while not reader.ended and (found := await reader.read(0.5)):
                self.events += found


@asynccontextmanager
async def talk(bot: Bot | Handler, *, session: str = "test") -> AsyncIterator[Say]:
    """A conversation with `bot` (or a bare reply handler) on a store in memory."""
    whole = bot if isinstance(bot, Bot) else Bot(bot)
    settings = Settings(_env_file=None, grace=1.0, debug=True)
    async with Runtime(whole, "memory:", settings=settings) as runtime:
        yield Say(runtime, session)


class ScriptedModel:
    """Replaces a language model in tests; streams `replies` one after another, word by word.

    An exception among them is raised. `prompts` holds the messages of each call.
    """

    def __init__(self, replies: Sequence[str | Exception]) -> None:
        self._replies = list(replies)
        self.prompts: list[list[Message]] = []

    async def __call__(self, turn: Turn) -> AsyncIterator[str]:
        """Answer a turn with the next reply."""
        async for piece in self.stream(turn):
            yield piece

    async def stream(self, conversation: Turn | Sequence[Message]) -> AsyncIterator[str]:
        """The pieces of the next reply. Raises IndexError when no reply is left."""
        messages = conversation.messages if isinstance(conversation, Turn) else conversation
        self.prompts.append(list(messages))
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        for word in re.findall(r"\S+\s*|\s+", reply):
            yield word
