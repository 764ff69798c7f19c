"""Talk to a bot in a test, with a scripted model if it needs one."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from turnwise.bot import Bot, Handler
from turnwise.conversation import Message, Reply
from turnwise.runtime import Runtime
from turnwise.settings import Settings
from turnwise.turn import Turn


class Say:
    """Sends a text to the bot under test, and returns its reply."""

    def __init__(self, runtime: Runtime, session_id: str) -> None:
        self.runtime = runtime
        self.session_id = session_id

    async def __call__(self, text: str, *, session: str | None = None) -> Reply:
        """The reply to `text`, in this conversation or in another `session`.

        Raises TurnError when the turn failed, ReplyTimeout after 30 seconds.
        """
        return await self.runtime.ask(session or self.session_id, text, timeout=30.0)


@asynccontextmanager
async def talk(bot: Bot | Handler, *, session: str = "test") -> AsyncIterator[Say]:
    """A conversation with `bot` (or a bare reply handler) on a temporary store."""
    whole = bot if isinstance(bot, Bot) else Bot(bot)
    with tempfile.TemporaryDirectory(prefix="turnwise-test-") as folder:
        url = f"sqlite:///{Path(folder) / 'test.db'}"
        settings = Settings(_env_file=None, grace=1.0, debug=True)
        async with Runtime(whole, url, settings=settings) as runtime:
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
