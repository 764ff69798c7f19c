"""Output: a reply while it is being produced.

Pieces are collected into messages for the commit, and into events for the followers (pending.py).
The first delta is sent at once, later ones about every 30 ms (or, with `coalesce="sentence"`, at
the ends of sentences), and at most one write is pending: while the store writes, the next delta
grows. Drafts that are not written when the handler ends are part of the commit, so a reply that is
returned in one piece needs no extra write.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from turnwise.conversation import Message, events, valid_text
from turnwise.conversation.events import Draft, draft
from turnwise.conversation.steps import StepKind
from turnwise.errors import BadOutput, StoreUnavailable, TurnError
from turnwise.stores.claim import BEFORE, UNENDED, WHOLE, Told
from turnwise.turn import Coalesce
from turnwise.worker.pending import Pending
from turnwise.worker.steps import Step, Steps

MAX_ASKS = 20
"""Maximum number of asks in one reply."""
BACKLOG = 64_000
"""Number of unwritten characters above which `say` waits for the store."""
BREATH = 64
"""Number of pieces after which other tasks may run on the event loop."""


class Output:
    """The output of one attempt at a turn so far.

    `write` appends drafts to the log, and raises if the claim is lost. `limit` is the maximum
    length of the reply in characters, with its steps and events; a longer one raises TurnError
    (`reply_too_long`).
    """

    def __init__(
        self,
        turn: int,
        attempt: int,
        write: Callable[[Sequence[Draft]], Awaitable[None]],
        *,
        coalesce: Coalesce,
        limit: int,
    ) -> None:
        self._turn = turn
        self._attempt = attempt
        self._write = write
        self._sentences = coalesce == "sentence"
        self._period = 0.03 if isinstance(coalesce, str) else float(coalesce)
        self._limit = limit
        self._messages: list[Message] = []
        self._streamed: Message | None = None
        """The last message that is or was streamed."""
        self._parts: list[str] | None = None
        """The text of the message that is being streamed."""
        self._said = 0
        self._size = 0
        self._pending = Pending(turn, attempt, sentences=self._sentences)
        self._undelivered: list[Draft] = []
        self._last_write = 0.0
        self._timer: asyncio.Handle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._closed = False
        self._steps: Steps | None = None
        self.data: list[dict[str, Any]] = []
        """What `emit(keep=True)` keeps with the turn."""
        self.failure: BaseException | None = None
        self.first_delta: float | None = None

    # Called by the handler

    async def say(self, piece: str | Message) -> None:
        """Add a piece of text, or a whole message."""
        self._check()
        self._said += 1
        if self._said % BREATH == 0:
            await asyncio.sleep(0)  # a handler that never waits must not block the event loop
        if isinstance(piece, str):
            if piece:
                self._add_text(valid_text(piece))
        elif isinstance(piece, Message):
            self._add_message(piece)
        else:
            raise BadOutput(f"A reply is made of str and Message, not {type(piece).__name__}.")
        if self._pending.size > BACKLOG:
            await self._hold_back()

    async def emit(self, name: str, data: Any, keep: bool) -> None:
        """Add a custom event; `data` is encoded immediately, and kept with the turn if `keep`."""
        more: dict[str, Any] = {"name": str(name), "data": data}
        try:
            if keep:
                self.data.append(orjson.loads(orjson.dumps(more)))
                more["keep"] = True
            await self.report(events.CUSTOM, **more)
        except TypeError as error:
            raise BadOutput(f"emit({name!r}) needs JSON: {error}") from error

    async def report(self, type: str, **more: Any) -> None:
        """Add an event of this attempt. Raises TypeError if it is not JSON."""
        await self._breathe()
        made = draft(type, self._turn, time.time(), attempt=self._attempt, **more)
        self._grow(len(made.tail))
        self._pending.draft(made)
        self._schedule()
        if self._pending.size > BACKLOG:
            await self._hold_back()

    def step(self, name: str, input: Any, kind: StepKind) -> Step:
        """A step that has not begun."""
        if self._steps is None:
            self._steps = Steps(self._turn, self._attempt, self)
        return self._steps.make(valid_text(str(name)), input, kind)

    def steps_taken(self) -> list[dict[str, Any]]:
        """The steps, as they are kept."""
        records = self._steps.records if self._steps is not None else ()
        return [step.as_dict() for step in records]

    async def report_text(self, step: str, text: str) -> None:
        """Add text to a step."""
        await self._breathe()
        self._grow(len(text))
        self._pending.step_text(step, text)
        self._schedule()
        if self._pending.size > BACKLOG:
            await self._hold_back()

    async def _breathe(self) -> None:
        """A handler that never waits must not block the event loop. Raises if it is over."""
        self._check()
        self._said += 1
        if self._said % BREATH == 0:
            await asyncio.sleep(0)

    async def _hold_back(self) -> None:
        """While too much text is unwritten, wait for the store."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
            self._check()

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._closed:
            raise asyncio.CancelledError

    def _add_text(self, piece: str) -> None:
        self._grow(len(piece))
        if self._parts is None:
            self._parts = []
            self._streamed = Message()
            self._start(self._streamed)
        self._parts.append(piece)
        self._pending.text(piece)
        self._schedule()

    def _add_message(self, message: Message) -> None:
        self._grow(len(message.text))
        message.text = valid_text(message.text)
        self._end_text()
        if message.ask is not None and self._asking >= MAX_ASKS:
            raise BadOutput(f"A reply asks for at most {MAX_ASKS} answers.")
        self._start(message)
        if message.text:
            self._pending.text(message.text)
        self._pending.end(len(self._messages) - 1)
        self._schedule()

    @property
    def _asking(self) -> int:
        return sum(message.ask is not None for message in self._messages)

    def _start(self, message: Message) -> None:
        if message.metadata or message.ask is not None or message.attachments:
            encoded([message])
        self._pending.start(len(self._messages), message)
        self._messages.append(message)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise TurnError("The reply is too long.", code="reply_too_long")

    def _end_text(self) -> None:
        """The message that is being streamed is complete."""
        if self._parts is not None:
            self._pending.end(len(self._messages) - 1)
            self._join()

    def _join(self) -> None:
        if self._parts is not None and self._streamed is not None:
            self._streamed.text = "".join(self._parts)
        self._parts = None

    # Its result

    def close(self) -> None:
        """Accept no more output: later calls raise CancelledError."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def untie(self) -> None:
        """Drop the writer: nothing more is written."""
        self._closed = True
        self._write = _written_off
        self._steps = None

    async def settle(self) -> None:
        """Close, and wait for the pending write."""
        self.close()
        if self._writing is not None:
            await asyncio.wait({self._writing})

    def finish(
        self, *, partial: bool, metadata: Mapping[str, Any] | None
    ) -> tuple[list[Message], Told]:
        """The messages, and which of their events the commit adds. With `partial` all are marked;
        `metadata` is added to the last streamed message."""
        told = BEFORE
        if self._parts is not None:
            self._join()
            told = UNENDED
        if metadata and self._streamed is not None:
            _check_json(metadata)
            self._streamed.metadata = dict(metadata)
        if partial:
            for message in self._messages:
                message.partial = True
        if not self._sentences and self._pending.is_the_reply:
            self._pending.clear()
            told = WHOLE
        return self._messages, told

    def rest(self) -> list[Draft]:
        """The drafts that are not in the log; steps that run have failed."""
        undelivered, self._undelivered = self._undelivered, []
        drafts = undelivered + self._pending.take(everything=True) if self._pending else undelivered
        if self._steps is not None:
            now, attempt = time.time(), self._attempt
            drafts += [
                draft(events.STEP, self._turn, now, attempt=attempt, step=step.as_event())
                for step in self._steps.interrupt()
            ]
        return drafts

    # Writing

    def _schedule(self) -> None:
        if self._timer is None and self._writing is None and not self._closed:
            loop = asyncio.get_running_loop()
            wait = self._last_write + self._period - time.monotonic()
            # A handler that never waits ends before call_soon runs: then all goes in the commit.
            self._timer = (
                loop.call_later(wait, self._flush) if wait > 0 else loop.call_soon(self._flush)
            )

    def _flush(self) -> None:
        self._timer = None
        drafts = self._pending.take(everything=not self._sentences)
        if drafts:
            self._last_write = time.monotonic()
            self._writing = asyncio.get_running_loop().create_task(self._send(drafts))

    async def _send(self, drafts: list[Draft]) -> None:
        try:
            await self._write(drafts)
            if self.first_delta is None:
                self.first_delta = time.monotonic()
        except StoreUnavailable:
            self._undelivered = drafts  # the attempt is over: the commit contains them
        except Exception as error:
            self.failure = error
        finally:
            self._writing = None
        if self._pending and self.failure is None:
            self._schedule()


async def _written_off(_drafts: Sequence[Draft]) -> None:
    """Receives and discards the deltas of an attempt that is over."""


def encoded(messages: Sequence[Message]) -> list[bytes]:
    """A reply's messages as stores keep them. Raises BadOutput for what is not JSON."""
    try:
        return [message.encode() for message in messages]
    except (TypeError, ValueError, AttributeError) as bad:
        raise BadOutput("A reply's message is not JSON.") from bad


def _check_json(value: Any) -> None:
    """Raises BadOutput."""
    try:
        orjson.dumps(value)
    except TypeError as error:
        raise BadOutput("A reply's message is not JSON.") from error
