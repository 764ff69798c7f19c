"""Services: what runs around a reply, and in what order.

Within a turn: what was registered with `before`, in order; then the services, each around all that
were registered later, innermost the reply handler; then what was registered with `after`, in order.
Functions that were registered in one call run together. A service that does not call `call_next`
answers by itself: the services behind it and the reply handler do not run, `after` does.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from turnwise import handlers
from turnwise.errors import ConfigurationError, TurnError
from turnwise.handlers import Handler, Piece
from turnwise.turn import Turn

log = logging.getLogger("turnwise.services")

CallNext = Callable[..., Awaitable[None]]
Service = Callable[[Turn, CallNext], Awaitable[Piece]]
Step = Handler
S = TypeVar("S", bound=Step)
When = Callable[[Turn], "bool | Awaitable[bool]"]


@dataclass(frozen=True, slots=True)
class Group:
    """Functions that run together before or after the reply."""

    functions: tuple[Step, ...]
    when: When | None = None
    timeout: float | None = None
    required: bool = True

    def __post_init__(self) -> None:
        if not all(callable(function) for function in self.functions):
            raise ConfigurationError("What runs before or after a reply is a function (turn).")
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigurationError("A timeout is a positive number of seconds.")

    async def run(self, turn: Turn) -> None:
        """Run what should run now. Raises what a required function raised, or TurnError."""
        try:
            async with asyncio.timeout(self.timeout) as limit:
                if await _holds(self.when, turn):
                    await self._together(turn)
        except Exception as error:
            if self.required:
                if isinstance(error, TimeoutError) and limit.expired():
                    raise TurnError("A service took too long.", code="service_timeout") from None
                raise
            log.warning("a service that is not required failed: %s", type(error).__name__)

    async def _together(self, turn: Turn) -> None:
        if len(self.functions) == 1:
            await _run(turn, self.functions[0])
            return
        try:
            async with asyncio.TaskGroup() as group:
                for function in self.functions:
                    group.create_task(_run(turn, function))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None


class Steps:
    """Registers what runs before, or after, the reply of a bot, in order.

    A decorator, with or without options: `@bot.before`, `@bot.before(timeout=2.0)`. Several
    functions in one call run together: `bot.before(profile, weather)`. Each is a function `(turn)`
    of any kind a reply handler can be; what it returns or yields is said.

    `when` is a condition `(turn) -> bool`. After `timeout` seconds, or when a function raises, the
    turn fails; with `required=False` it goes on without them.
    """

    def __init__(self) -> None:
        self._groups: list[Group] = []

    @overload
    def __call__(
        self,
        *,
        when: When | None = None,
        timeout: float | None = None,
        required: bool = True,
    ) -> Callable[[S], S]: ...

    @overload
    def __call__(
        self,
        function: S,
        /,
        *more: Step,
        when: When | None = None,
        timeout: float | None = None,
        required: bool = True,
    ) -> S: ...

    def __call__(self, *functions: Any, **options: Any) -> Any:
        if not functions:
            return lambda decorated: self(decorated, **options)
        self._groups.append(Group(functions, **options))
        return functions[0]

    async def run(self, turn: Turn) -> None:
        """Run them for one turn."""
        for group in self._groups:
            await group.run(turn)


class Services:
    """The services of one bot, in the order they were registered."""

    def __init__(self) -> None:
        self.before = Steps()
        self.after = Steps()
        self._around: list[tuple[Service, When | None]] = []

    def add(self, service: Service, when: When | None) -> None:
        """Put a service around the reply, inside those that are there."""
        if not handlers.is_async(service):
            raise ConfigurationError("A service is an async function (turn, call_next).")
        self._around.append((service, when))

    async def run(self, turn: Turn, reply: Callable[[Turn], Awaitable[None]]) -> None:
        """Answer one turn with `reply` in the middle."""
        await self.before.run(turn)
        await self._enter(0, turn, reply)
        await self.after.run(turn)

    async def _enter(self, at: int, turn: Turn, reply: Callable[[Turn], Awaitable[None]]) -> None:
        if at == len(self._around):
            await reply(turn)
            return

        async def call_next(_turn: Turn | None = None) -> None:
            await self._enter(at + 1, turn, reply)

        service, when = self._around[at]
        if not await _holds(when, turn):
            await call_next()
            return
        said = await service(turn, call_next)
        if said is not None:
            await turn.say(said)


async def _run(turn: Turn, function: Step) -> None:
    await handlers.run(turn, function, turn, threaded=not handlers.is_async(function))


async def _holds(when: When | None, turn: Turn) -> bool:
    if when is None:
        return True
    answer = when(turn)
    return bool(await answer if inspect.isawaitable(answer) else answer)
