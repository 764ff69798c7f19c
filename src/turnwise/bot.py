"""Bot: the application code that the developer writes: a reply handler and its services."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar, overload

from turnwise import handlers
from turnwise.callables import takes_one
from turnwise.conversation import Message, WhenBusy, checked_policy
from turnwise.errors import ConfigurationError, Invalid
from turnwise.handlers import Handler as Handler
from turnwise.limits import check_counts, check_positive
from turnwise.services import Service, Services, When
from turnwise.turn import Coalesce, Options, Turn

H = TypeVar("H", bound=Handler)
S = TypeVar("S", bound=Service)
U = TypeVar("U", bound=Callable[[str, Message, str], object])
L = TypeVar("L", bound=Callable[[], AsyncIterator[None]])
Lifespan = Callable[[], AbstractAsyncContextManager[None]]


class Bot:
    """Answers turns with a reply handler and services.

    `reply` is the handler; `@bot.reply` sets it as well. `history`: how many messages
    `turn.messages` holds. `timeout`: seconds that a turn may take. `max_attempts`: attempts at a
    turn whose worker process dies. `queue_limit`: messages that may wait in one session.
    `coalesce`: seconds between two deltas, or "sentence" for deltas of whole sentences.
    `when_busy`: what a message does that finds earlier ones unanswered, unless it or its session
    says otherwise: "queue", "interrupt", "merge" or "reject"; `settle`: seconds, at most 5, that a
    turn waits for more messages to be merged. `max_reply`: maximum characters of a reply.
    `max_state` and `max_memory`: maximum bytes of a session's state and of its memory, as JSON.
    """

    def __init__(
        self,
        reply: Handler | None = None,
        *,
        history: int = 50,
        timeout: float = 300.0,
        max_attempts: int = 3,
        queue_limit: int = 100,
        when_busy: WhenBusy = "queue",
        settle: float = 0.0,
        coalesce: Coalesce = 0.03,
        max_reply: int = 1_000_000,
        max_state: int = 65_536,
        max_memory: int = 64_000_000,
    ) -> None:
        check_counts(
            history=history,
            max_attempts=max_attempts,
            queue_limit=queue_limit,
            max_reply=max_reply,
            max_state=max_state,
            max_memory=max_memory,
        )
        check_positive(timeout=timeout)
        if coalesce != "sentence" and not isinstance(coalesce, int | float):
            raise ConfigurationError('coalesce must be a number of seconds or "sentence".')
        self.options = Options(
            history=history,
            timeout=timeout,
            max_attempts=max_attempts,
            coalesce=coalesce,
            max_reply=max_reply,
            max_state=max_state,
            max_memory=max_memory,
        )
        self.queue_limit = queue_limit
        try:
            self.policy = checked_policy(when_busy, settle)
        except Invalid as error:
            raise ConfigurationError(error.message) from None
        self._services = Services()
        self.before = self._services.before
        self.after = self._services.after
        self._handler: Handler | None = None
        self._threaded = False
        self._waking: Handler | None = None
        self.told_undelivered: list[Callable[[str, Message, str], object]] = []
        self._lifespans: list[Lifespan] = []
        self._open: AsyncExitStack | None = None
        if reply is not None:
            self.reply(reply)

    def reply(self, handler: H) -> H:
        """Set the reply handler.

        It is an async generator function, a coroutine function, a generator function, a plain
        function, or an object with `__call__` of one of these kinds; it takes the Turn and yields
        or returns `str`, `Message` or None. A handler that is not async runs in the session's
        thread.
        """
        if not callable(handler):
            raise ConfigurationError("A reply handler must be a function or have __call__.")
        if self._handler is not None:
            raise ConfigurationError("This bot has a reply handler already.")
        if not takes_one(handler):
            raise ConfigurationError("A reply handler takes one argument: def reply(turn).")
        self._handler = handler
        self._threaded = not handlers.is_async(handler)
        return handler

    def wake(self, handler: H) -> H:
        """Set the handler of turns that nobody has sent a message for (`runtime.wake`); without
        one, the reply handler answers them. It is of the same kinds, and `turn.reason` says why."""
        if not callable(handler) or not takes_one(handler):
            raise ConfigurationError("A wake handler is a function of one argument, the turn.")
        self._waking = handler
        return handler

    @overload
    def service(self, service: S) -> S: ...

    @overload
    def service(self, *, when: When) -> Callable[[S], S]: ...

    def service(self, service: S | None = None, *, when: When | None = None) -> Any:
        """Add a service: `async def s(turn, call_next)`, around the reply and later services.

        `await call_next()` runs the later services and the reply. A text or Message that the
        service returns is added to the reply. With `@bot.service(when=condition)` it runs only for
        turns for which the condition, a function `(turn) -> bool`, holds.
        """
        if service is None:
            return lambda decorated: self.service(decorated, when=when)  # type: ignore[call-overload]
        self._services.add(service, when)
        return service

    def undelivered(self, function: U) -> U:
        """Have a function called for each piece of a message that a person on a messenger does not
        get: `def f(session_id, message, reason)`, async or not. It is called in the process that
        sends; what it raises is logged."""
        if not callable(function):
            raise ConfigurationError("What is called for undelivered messages is a function.")
        self.told_undelivered.append(function)
        return function

    def lifespan(self, around: L) -> L:
        """Run an async generator function around the worker: clients, MCP servers, pools.

        What stands before its `yield` runs before the first turn is taken, what stands after it
        when the last has ended. Several are entered in the order of their registration, and left
        in the reverse order. It runs in each process that answers turns.
        """
        generates: bool = inspect.isasyncgenfunction(around)
        if not generates:
            raise ConfigurationError("A lifespan is an async generator function with one `yield`.")
        self._lifespans.append(asynccontextmanager(around))
        return around

    async def start(self) -> None:
        """Enter the lifespans; if one cannot be entered, the others are left."""
        stack = AsyncExitStack()
        try:
            for around in self._lifespans:
                await stack.enter_async_context(around())
        except BaseException:
            await stack.aclose()
            raise
        self._open = stack

    def check(self) -> None:
        """Raises ConfigurationError when this bot cannot answer."""
        if self._handler is None:
            raise ConfigurationError("This bot has no reply handler: decorate one with @bot.reply.")

    async def aclose(self) -> None:
        """Leave the lifespans, and close the reply handler's resources (a model's connections), if
        it can be closed."""
        try:
            stack, self._open = self._open, None
            if stack is not None:
                await stack.aclose()
        finally:
            close = getattr(self._handler, "aclose", None)
            if close is not None:
                await close()

    async def answer(self, turn: Turn) -> None:
        """Run services and reply handler for one turn; returns when the handler is exhausted."""
        if self._handler is None:
            self.check()
        elif self._services:
            await self._services.run(turn, self._reply)
        else:
            await self._reply(turn)

    async def _reply(self, turn: Turn) -> None:
        handler, threaded = self._handler, self._threaded
        if turn.reason is not None and self._waking is not None:
            handler, threaded = self._waking, not handlers.is_async(self._waking)
        assert handler is not None
        await handlers.run(turn, handler, turn, threaded=threaded)
