"""Bot: what the user writes. One reply handler, and the services around it.

The order within a turn: the services in the order they were registered, each around all that
come after it; innermost the reply handler. A service that does not call `call_next` answers by
itself, and nothing behind it runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from turnwise import handlers
from turnwise.errors import ConfigurationError
from turnwise.handlers import Piece
from turnwise.output import Coalesce
from turnwise.turn import Options, Turn

Handler = Callable[[Turn], Any]
CallNext = Callable[..., Awaitable[None]]
Service = Callable[[Turn, CallNext], Awaitable[Piece]]
H = TypeVar("H", bound=Handler)
S = TypeVar("S", bound=Service)


class Bot:
    """Answers turns with a reply handler and services.

    `reply` is the handler; `@bot.reply` sets it as well. `history` is how many messages
    `turn.messages` holds; `timeout` how many seconds a turn may take; `max_attempts` how often a
    turn is tried whose process died; `queue_limit` how many messages may wait in one session;
    `coalesce` the seconds between two deltas, or "sentence" for deltas of whole sentences;
    `max_reply` the characters of the longest reply.
    """

    def __init__(
        self,
        reply: Handler | None = None,
        *,
        history: int = 50,
        timeout: float = 300.0,
        max_attempts: int = 3,
        queue_limit: int = 100,
        coalesce: Coalesce = 0.03,
        max_reply: int = 1_000_000,
    ) -> None:
        if min(history, max_attempts, queue_limit, max_reply) < 1 or timeout <= 0:
            raise ConfigurationError("A bot's limits are positive numbers.")
        if isinstance(coalesce, str) and coalesce != "sentence":
            raise ConfigurationError('coalesce is a number of seconds or "sentence".')
        self.options = Options(
            history=history,
            timeout=timeout,
            max_attempts=max_attempts,
            coalesce=coalesce,
            max_reply=max_reply,
        )
        self.queue_limit = queue_limit
        self._services: list[Service] = []
        self._handler: Handler | None = None
        self._threaded = False
        if reply is not None:
            self.reply(reply)

    def reply(self, handler: H) -> H:
        """Set the reply handler.

        It is an async generator function, a coroutine function, a generator function, a plain
        function, or an object with `__call__` of one of these kinds; it takes the Turn and yields
        or returns `str`, `Message` or None. What is not async runs in the session's thread.
        """
        if not callable(handler):
            raise ConfigurationError("A reply handler is a function or an object with __call__.")
        if self._handler is not None:
            raise ConfigurationError("This bot has a reply handler already.")
        self._handler = handler
        self._threaded = not handlers.is_async(handler)
        return handler

    def service(self, service: S) -> S:
        """Add a service: `async def s(turn, call_next)`, around the reply and later services.

        `await call_next()` runs what is inside. A text or Message it returns is said as well.
        """
        if not handlers.is_async(service):
            raise ConfigurationError("A service is an async function (turn, call_next).")
        self._services.append(service)
        return service

    def check(self) -> None:
        """Raises ConfigurationError when this bot cannot answer."""
        if self._handler is None:
            raise ConfigurationError("This bot has no reply handler: decorate one with @bot.reply.")

    async def answer(self, turn: Turn) -> None:
        """Run services and reply handler for one turn; returns when the handler is drained."""
        self.check()
        await self._call(0, turn)

    async def _call(self, index: int, turn: Turn) -> None:
        if index == len(self._services):
            await self._reply(turn)
            return

        async def call_next(_turn: Turn | None = None) -> None:
            await self._call(index + 1, turn)

        said = await self._services[index](turn, call_next)
        if said is not None:
            await turn.say(said)

    async def _reply(self, turn: Turn) -> None:
        assert self._handler is not None
        await handlers.run(turn, self._handler, turn, threaded=self._threaded)
