"""Output: a reply while it is being produced.

Pieces are collected into messages for the commit, and into `delta` events for the followers.
The first delta is sent at once, later ones about every 30 ms (or, with `coalesce="sentence"`, at
the ends of sentences), and at most one write is pending: while the store writes, the next delta
grows. Drafts that are not written when the handler ends are part of the commit, so a reply that is
returned in one piece needs no extra write.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from turnwise.conversation import Message, events
from turnwise.conversation.events import Draft, attempt_draft, draft
from turnwise.errors import BadOutput, StoreUnavailable, TurnError
from turnwise.turn import Coalesce

BACKLOG = 64_000
"""Number of unwritten characters above which `say` waits for the store."""
BREATH = 64
"""Number of pieces after which other tasks may run on the event loop."""

# Full-width marks end sentences in Chinese and Japanese, where no space follows.
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*\s+|[。！？\n]+\s*")  # noqa: RUF001


def split_sentences(text: str) -> tuple[list[str], str]:
    """The complete sentences at the start of `text`, and the rest that may still grow."""
    sentences, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        sentences.append(text[start : end.end()])
        start = end.end()
    return sentences, text[start:]


class Output:
    """The output of one attempt at a turn so far.

    `write` appends drafts to the log, and raises if the claim is lost. `limit` is the maximum
    length of the reply in characters; a longer one raises TurnError (`reply_too_long`).
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
        self._parts: list[str] = []
        self._messages: list[Message] = []
        self._streamed: Message | None = None
        self._said = 0
        self._size = 0
        self._pending: list[str | Draft] = []
        self._undelivered: list[Draft] = []
        self._pending_size = 0
        self._last_write = 0.0
        self._timer: asyncio.Handle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._closed = False
        self._begun = False
        self.failure: BaseException | None = None
        self.first_delta: float | None = None

    # Called by the handler

    async def say(self, piece: str | Message) -> None:
        """Add a piece of text, or a whole message."""
        self._check()
        self._said += 1
        if self._said % BREATH == 0:  # a handler that never waits must not block the event loop
            await asyncio.sleep(0)
        if isinstance(piece, str):
            if piece:
                self._add_text(_valid(piece))
        elif isinstance(piece, Message):
            self._add_message(piece)
        else:
            raise BadOutput(f"A reply is made of str and Message, not {type(piece).__name__}.")
        if self._pending_size > BACKLOG:
            await self._hold_back()

    async def emit(self, name: str, data: Any) -> None:
        """Add a custom event; `data` is encoded immediately."""
        self._check()
        self._said += 1
        if self._said % BREATH == 0:
            await asyncio.sleep(0)
        more = {"attempt": self._attempt, "name": str(name), "data": data}
        try:
            made = draft(events.CUSTOM, self._turn, time.time(), **more)
        except TypeError as error:
            raise BadOutput(f"emit({name!r}) needs JSON: {error}") from error
        self._grow(len(made.tail))
        self._pending.append(made)
        self._pending_size += len(made.tail)
        self._schedule()
        if self._pending_size > BACKLOG:
            await self._hold_back()

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
        self._parts.append(piece)
        self._pending.append(piece)
        self._pending_size += len(piece)
        self._schedule()

    def _add_message(self, message: Message) -> None:
        self._grow(len(message.text))
        message.text = _valid(message.text)
        self._end_text()
        self._messages.append(message)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise TurnError("The reply is too long.", code="reply_too_long")

    def _end_text(self) -> None:
        if self._parts:
            self._streamed = Message("".join(self._parts))
            self._messages.append(self._streamed)
            self._parts = []

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

    async def settle(self) -> None:
        """Close, and wait for the pending write."""
        self.close()
        if self._writing is not None:
            await asyncio.wait({self._writing})

    def messages(
        self, *, partial: bool = False, metadata: dict[str, Any] | None = None
    ) -> list[Message]:
        """The messages so far, including the last text; with `partial` all are marked as partial.
        `metadata` is added to the last streamed message."""
        self._end_text()
        if metadata and self._streamed is not None:
            self._streamed.metadata = dict(metadata)
        for message in self._messages:
            message.partial = message.partial or partial
        return self._messages

    @property
    def is_whole(self) -> bool:
        """Whether all that was said is text, and none of it is in the log: the reply tells it."""
        unsaid = bool(self._pending) and all(isinstance(item, str) for item in self._pending)
        return unsaid and not self._begun and not self._sentences

    def rest(self) -> list[Draft]:
        """The drafts that are not in the log."""
        undelivered, self._undelivered = self._undelivered, []
        return undelivered + self._take(everything=True)

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
        drafts = self._take(everything=not self._sentences)
        if drafts:
            self._begun = True
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

    def _take(self, *, everything: bool) -> list[Draft]:
        """Convert pending pieces into drafts; adjacent texts become one delta."""
        now, drafts, text = time.time(), [], ""
        pending, self._pending, self._pending_size = self._pending, [], 0
        for item in pending:
            if isinstance(item, str):
                text += item
                continue
            drafts += [*self._deltas(text, now, everything=True), item]
            text = ""
        return drafts + self._deltas(text, now, everything=everything)

    def _deltas(self, text: str, now: float, *, everything: bool) -> list[Draft]:
        if not self._sentences:
            pieces = [text]
        else:
            pieces, rest = split_sentences(text)
            if everything:
                pieces.append(rest)
            elif rest:
                self._pending.insert(0, rest)
                self._pending_size += len(rest)
        attempt = self._attempt
        return [
            attempt_draft(events.DELTA, self._turn, now, attempt, piece)
            for piece in pieces
            if piece
        ]


async def _written_off(_drafts: Sequence[Draft]) -> None:
    """Receives and discards the deltas of an attempt that is over."""


def _valid(text: str) -> str:
    """`text` with surrogates joined where they pair and replaced where they do not."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
