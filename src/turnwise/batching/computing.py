"""Computing: the results of a batch, from a function that may fail, hang or answer in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from turnwise.batching.delivery import Telling
from turnwise.batching.errors import BatchTimeout, own
from turnwise.batching.queue import Ticket
from turnwise.batching.runner import Caller, Pieces, answered, in_time
from turnwise.batching.stats import Stats


class Computed:
    """A batch that a batcher computes, until it is `over`."""

    __slots__ = ("batcher", "over")

    def __init__(self, batcher: object) -> None:
        self.batcher = batcher
        self.over = False


COMPUTED: ContextVar[Computed | None] = ContextVar("computed", default=None)
"""The batch whose function runs in this context. If the function waits for its own batcher while
that one can start no other batch, both wait for ever."""


class Computing:
    """Computes batches with one function.

    `timeout` is in seconds; with `isolate` a batch whose function raises is split into halves and
    retried, until the bad item is isolated.
    """

    def __init__(
        self,
        caller: Caller,
        timeout: float | None,
        isolate: bool,
        stats: Stats,
        telling: Telling,
    ) -> None:
        self._caller = caller
        self._timeout = timeout
        self._isolate = isolate
        self._stats = stats
        self._telling = telling

    async def results(self, batch: list[Ticket]) -> Sequence[Any]:
        """One result or exception for each ticket. Raises an error of the whole batch."""
        if self._caller.streams:
            return await self._streamed(batch)
        return await self._called([ticket.item for ticket in batch], len(batch))

    async def _call(self, items: list[Any], pieces: Pieces) -> Any:
        if self._timeout is None:
            return await self._caller.call(items, pieces)
        return await in_time(self._caller, items, pieces, self._timeout)

    async def _called(self, items: list[Any], count: int) -> Sequence[Any]:
        try:
            return answered(await self._call(items, _nobody), count)
        except Exception as error:
            if not self._isolate or isinstance(error, BatchTimeout):
                raise
            if count == 1:
                self._stats.isolated += 1
                return [own(error, shared=True)]
        half = count // 2
        first = await self._called(items[:half], half)
        return [*first, *await self._called(items[half:], count - half)]

    async def _streamed(self, batch: list[Ticket]) -> list[list[Any] | BaseException]:
        """Deliver each item's pieces as they arrive, and its end as soon as it is there; returns
        the final result of each."""
        found: list[list[Any] | BaseException] = [[] for _ in batch]
        ended: set[int] = set()

        def pieces(answer: Sequence[Any]) -> bool:
            for i, (ticket, piece) in enumerate(zip(batch, answer, strict=True)):
                so_far = found[i]
                if i in ended or piece is ...:
                    continue
                if piece is None or isinstance(piece, BaseException):
                    found[i] = so_far if piece is None else piece
                    ended.add(i)
                    self._telling.tell([ticket], [found[i]])
                elif isinstance(so_far, list):
                    (ticket.tap or so_far.append)(piece)
            return not all(ticket.given_up for ticket in batch)

        await self._call([ticket.item for ticket in batch], pieces)
        return found


def _nobody(_pieces: Sequence[Any]) -> bool:
    return True
