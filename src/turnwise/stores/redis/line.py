"""Line: one connection to Redis. All calls of one pass of the event loop are written at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from turnwise.batching import Batch
from turnwise.stores.driver import Lost

ANSWER = 1.2
"""Seconds that an answer may take."""
CONFIRM = 700
"""Milliseconds that replicas have to confirm what was written."""


class Refused(Exception):
    """Redis's answer is an error: the command has changed nothing."""


class _Calls:
    """Some commands that were written together, and their answers as they come."""

    __slots__ = ("answers", "confirms", "count", "future", "sent", "writes")

    def __init__(self, future: asyncio.Future[list[Any]], count: int, writes: bool) -> None:
        self.future = future
        self.count = count
        self.writes = writes
        self.answers: list[Any] = []
        self.confirms: list[_Calls] = []
        self.sent = 0.0


class Line(asyncio.Protocol):
    """One connection. `replicas` must confirm what was written before it counts."""

    def __init__(self, replicas: int, observe: Callable[[Batch], None] | None) -> None:
        self._replicas = replicas
        self._observe = observe
        self._reader = hiredis.Reader(replyError=Refused, protocolError=ConnectionError)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[_Calls] = deque()
        self._unsent: list[_Calls] = []
        self._out: list[bytes] = []
        self._watch: asyncio.Handle | None = None
        self.dead = False

    def call(self, commands: Sequence[Sequence[Any]], *, writes: bool) -> asyncio.Future[list[Any]]:
        """The answers of some commands, which are written with the others of this pass."""
        future = self._loop.create_future()
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out += map(_packed, commands)
        self._unsent.append(_Calls(future, len(commands), writes))
        return future

    def abort(self) -> None:
        """Disconnect at once; what waits for an answer raises Lost."""
        self.dead = True
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        calls, out, self._unsent, self._out = self._unsent, self._out, [], []
        if self.dead or self._transport is None:
            _lose(calls, "the connection was lost", sent=False)
            return
        written = [call for call in calls if call.writes]
        if written and self._replicas:
            confirming = _Calls(self._loop.create_future(), 1, writes=False)
            confirming.confirms = written
            calls.append(confirming)
            out.append(_packed(("WAIT", self._replicas, CONFIRM)))
        now = time.monotonic()
        for call in calls:
            call.sent = now
        self._waiting += calls
        self._transport.write(b"".join(out))
        if self._watch is None:
            self._watch = self._loop.call_later(ANSWER, self._look)

    def _look(self) -> None:
        """Give up the connection if an answer is overdue."""
        self._watch = None
        if not self._waiting:
            return
        left = self._waiting[0].sent + ANSWER - time.monotonic()
        if left <= 0:
            self.abort()
        else:
            self._watch = self._loop.call_later(left, self._look)

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # another loop's may not say so

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not False:
                calls = self._waiting[0]
                calls.answers.append(answer)
                if len(calls.answers) == calls.count:
                    self._waiting.popleft()
                    self._answered(calls)
        except (ConnectionError, IndexError):  # the other side is not a Redis
            self.abort()

    def _answered(self, calls: _Calls) -> None:
        if calls.confirms:
            confirmed = calls.answers[0]
            if isinstance(confirmed, int) and confirmed >= self._replicas:
                for written in calls.confirms:
                    _give(written)
            else:
                words = f"fewer than {self._replicas} replicas have what was written"
                _lose(calls.confirms, words, sent=True)
        elif calls.writes and self._replicas:
            return  # its answer waits for the replicas
        else:
            _give(calls)
        if calls.writes and self._observe is not None:
            size = sum(1 for other in (calls, *self._waiting) if other.writes)
            self._observe(Batch(size, 0.0, time.monotonic() - calls.sent, "idle"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.dead = True
        if self._watch is not None:
            self._watch.cancel()
        words = str(exc) if exc else "the connection was lost or an answer did not come"
        waiting, self._waiting = self._waiting, deque()
        for calls in waiting:
            _lose([calls, *calls.confirms], words, sent=True)


def _packed(command: Sequence[Any]) -> bytes:
    packed: bytes = hiredis.pack_command(tuple(command))
    return packed


def _give(calls: _Calls) -> None:
    if not calls.future.done():
        calls.future.set_result(calls.answers)


def _lose(calls: Sequence[_Calls], words: str, *, sent: bool) -> None:
    for one in calls:
        if not one.future.done():
            one.future.set_exception(Lost(words, sent=sent))
            one.future.exception()  # its caller may have gone
