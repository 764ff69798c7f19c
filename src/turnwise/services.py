"""Services: functions that run around a reply, and their order.

In a turn, the functions registered with `before` run first, in order; then the services, each
around all later ones, with the reply handler innermost; then the functions registered with `after`.
Functions registered in one call run concurrently. If a service does not call `call_next`, the later
services and the reply handler do not run; the `after` functions do.
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
from turnwise.limits import check_positive
from turnwise.turn import Turn

log = logging.getLogger("turnwise.services")

CallNext = Callable[..., Awaitable[None]]
Service = Callable[[Turn, CallNext], Awaitable[Piece]]
Step = Handler
S = TypeVar("S", bound=Step)
When = Callable[[Turn], "bool | Awaitable[bool]"]


@dataclass(frozen=True, slots=True)
class Group:
    """Functions that run concurrently before or after the reply."""

    functions: tuple[Step, ...]
    when: When | None = None
    timeout: float | None = None
    required: bool = True

    def __post_init__(self) -> None:
        if not all(callable(function) for function in self.functions):
            raise ConfigurationError("Before and after a reply only functions (turn) can run.")
        check_positive(timeout=self.timeout)

    async def run(self, turn: Turn) -> None:
        """Run the functions that apply. Raises a required function's exception, or TurnError."""
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
    """Registers functions that run before, or after, the reply of a bot, in order.

    A decorator, with or without options: `@bot.before`, `@bot.before(timeout=2.0)`. Several
    functions in one call run concurrently: `bot.before(profile, weather)`. Each is a function
    `(turn)` of any kind allowed for a reply handler; what it returns or yields is sent.

    `when` is a condition `(turn) -> bool`. After `timeout` seconds, or if a function raises, the
    turn fails; with `required=False` it continues without them.
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

    def __bool__(self) -> bool:
        return bool(self._groups)

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
        """Add a service around the reply, inside the services added before."""
        if not handlers.is_async(service):
            raise ConfigurationError("A service must be an async function (turn, call_next).")
        self._around.append((service, when))

    def __bool__(self) -> bool:
        return bool(self._around or self.before or self.after)

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
