"""The batcher: every caller gets an answer, and its own."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from turnwise.batching import Batcher, BatcherClosed, BatchFailed
from turnwise.errors import NotFound


class Recorder:
    """A batched function that remembers its batches and can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, items: list[int]) -> list[int | BaseException]:
        self.batches.append(items)
        await self.gate.wait()
        return [NotFound() if item < 0 else item * 2 for item in items]


async def test_it_goes_at_once_and_collects_while_busy() -> None:
    """One batch for what comes together, the next for what came meanwhile, at most max_size."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, max_size=3)
    first = [batcher.submit(1), batcher.submit(2)]
    await asyncio.sleep(0)
    later = [batcher.submit(n) for n in (3, 4, 5, 6)]
    recorder.gate.set()
    assert await asyncio.gather(*first, *later) == [2, 4, 6, 8, 10, 12]
    assert recorder.batches == [[1, 2], [3, 4, 5], [6]]


async def test_an_exception_in_an_items_place_is_its_callers_alone() -> None:
    """The neighbours of a bad item get their results."""
    batcher = Batcher(Recorder())
    good, bad = batcher.submit(1), batcher.submit(-1)
    assert await good == 2
    with pytest.raises(NotFound):
        await bad


@pytest.mark.parametrize(
    "raised", [ValueError("x"), asyncio.CancelledError(), StopIteration(), KeyboardInterrupt()]
)
async def test_whatever_the_function_raises_every_caller_is_told(raised: BaseException) -> None:
    """Each caller gets an error of its own with the cause, and the batcher goes on."""
    fail = True

    async def fn(items: list[int]) -> list[int]:
        if fail:
            raise raised
        return items

    batcher: Batcher[int, int] = Batcher(fn)
    results = await asyncio.gather(batcher(1), batcher(2), return_exceptions=True)
    assert all(isinstance(result, BatchFailed) for result in results)
    assert results[0] is not results[1]
    fail = False
    assert await batcher(3) == 3


async def test_the_wrong_number_of_results_fails_the_batch() -> None:
    """Too few or too many results: nobody gets somebody else's."""

    async def fn(items: list[int]) -> list[int]:
        return items[1:]

    batcher: Batcher[int, int] = Batcher(fn)
    with pytest.raises(BatchFailed):
        await batcher(1)


async def test_cancelling_a_caller_disturbs_nobody() -> None:
    """A cancelled item is not computed when it still waits; its neighbours are answered."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder)
    under_way = batcher.submit(1)
    await asyncio.sleep(0)
    waiting, neighbour = batcher.submit(2), batcher.submit(3)
    under_way.cancel()
    waiting.cancel()
    recorder.gate.set()
    assert await neighbour == 6
    assert recorder.batches == [[1], [3]]


async def test_closing_answers_what_was_taken() -> None:
    """aclose waits for every item; later ones are refused."""
    batcher = Batcher(Recorder())
    future = batcher.submit(1)
    await batcher.aclose()
    assert future.result() == 2
    with pytest.raises(BatcherClosed):
        batcher.submit(2)


async def test_the_callers_context_stays_outside() -> None:
    """The first caller's context variables are not seen by the batches."""
    variable = contextvars.ContextVar("variable", default="clean")
    seen: list[str] = []

    async def fn(items: list[int]) -> list[int]:
        seen.append(variable.get())
        return items

    batcher: Batcher[int, int] = Batcher(fn)
    variable.set("mine")
    await batcher(1)
    assert seen == ["clean"]
