"""Handlers: run a reply handler of any kind and send everything it yields or returns.

A handler is an async generator function, a coroutine function, a generator function, a plain
function, or an object with `__call__` of one of these kinds; it yields or returns `str`, `Message`
or None. A handler that is not async runs in the session's thread.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import suppress
from typing import Any

from turnwise.callables import kind_of
from turnwise.conversation import Message
from turnwise.turn import Turn

Piece = str | Message | None
"""One piece of a handler's output."""
Said = Piece | Awaitable[Piece] | AsyncIterator[Piece] | Iterator[Piece]
"""The result of calling a handler: a piece, a coroutine of one, or a generator of several."""
Handler = Callable[[Turn], Said]

_END = object()


def is_async(handler: Callable[..., Any]) -> bool:
    """Whether calling it returns at once, with an object to await or to iterate."""
    return kind_of(handler).startswith("async")


async def run(turn: Turn, handler: Callable[..., Any], argument: Any, *, threaded: bool) -> None:
    """Call `handler(argument)`, in the session's thread if `threaded`, and send its result."""
    result = await turn.in_thread(handler, argument) if threaded else handler(argument)
    await drain(turn, result)


async def drain(turn: Turn, result: Any) -> None:
    """Send everything in a handler's result, whatever kind it is."""
    if inspect.isawaitable(result):
        result = await result
    if isinstance(result, str):  # first, because most replies are texts
        await turn.say(result)
    elif isinstance(result, AsyncIterator):
        await _drain_async(turn, result)
    elif isinstance(result, Iterator):
        await _drain_sync(turn, result)
    elif result is not None:
        await turn.say(result)


async def _drain_async(turn: Turn, pieces: AsyncIterator[Piece]) -> None:
    try:
        async for piece in pieces:
            if piece is not None:
                await turn.say(piece)
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


async def _drain_sync(turn: Turn, pieces: Iterator[Piece]) -> None:
    try:
        while (piece := await turn.in_thread(next, pieces, _END)) is not _END:
            if piece is not None:
                await turn.say(piece)
    finally:
        if isinstance(pieces, Generator):
            # Also in its thread, after the step that may still be running there.
            turn.in_thread(_close_quietly, pieces)


def _close_quietly(pieces: Generator[Piece, None, None]) -> None:
    with suppress(Exception):
        pieces.close()
