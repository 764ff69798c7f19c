"""The batcher: every caller gets an answer, and its own."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import copy
import functools
import gc
import os
import pickle
import threading
import time
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import numpy
import pytest

from turnwise import Batcher, batched
from turnwise.batching import (
    Batch,
    BatcherClosed,
    BatcherFull,
    BatchFailed,
    BatchTimeout,
    DeadlinePassed,
    ProcessDied,
    TooCostly,
)
from turnwise.errors import ConfigurationError, NotFound
from turnwise.testing import virtual


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
    "raised",
    [ValueError("x"), asyncio.CancelledError(), StopIteration(), KeyboardInterrupt(), SystemExit()],
)
@pytest.mark.parametrize("threaded", [False, True])
async def test_whatever_the_function_raises_every_caller_is_told(
    raised: BaseException, threaded: bool
) -> None:
    """Each caller gets an error of its own with the cause, and the batcher goes on."""
    fail = True

    def plain(items: list[int]) -> list[int]:
        if fail:
            raise raised
        return items

    async def fn(items: list[int]) -> list[int]:
        return plain(items)

    batcher: Batcher[int, int] = Batcher(plain if threaded else fn)
    errors = await asyncio.gather(batcher(1), batcher(2), return_exceptions=True)
    assert all(isinstance(error, Exception) for error in errors)
    assert errors[0] is not errors[1]
    assert all(isinstance(e, BaseException) and e.__cause__ is not None for e in errors)
    fail = False
    assert await batcher(3) == 3
    await batcher.aclose()


@pytest.mark.parametrize("answer", [[1], [1, 2, 3], None, 5, "ab", {1: 1, 2: 2}, {1, 2}, object()])
async def test_answers_that_are_none(answer: Any) -> None:
    """Too few, too many, not a list: every caller is told."""

    async def fn(items: list[int]) -> Any:
        return answer

    batcher: Batcher[int, int] = Batcher(fn)
    errors = await asyncio.gather(batcher(1), batcher(2), return_exceptions=True)
    assert [type(error) for error in errors] == [BatchFailed, BatchFailed]


async def test_exceptions_a_future_cannot_carry() -> None:
    """Returned in an item's place they are that caller's, wrapped, and nobody is cancelled."""

    async def fn(items: list[int]) -> list[int | BaseException]:
        return [StopIteration(), asyncio.CancelledError(), 3]

    batcher: Batcher[int, int] = Batcher(fn)
    got = await asyncio.gather(*map(batcher, (1, 2, 3)), return_exceptions=True)
    assert [type(one) for one in got] == [BatchFailed, BatchFailed, int]


async def test_a_cancelled_caller_harms_nobody() -> None:
    """In mid-batch the others get their results; one still queued is not computed."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, max_size=2)
    running = [batcher.submit(1), batcher.submit(2)]
    await asyncio.sleep(0)
    queued = [batcher.submit(3), batcher.submit(4)]
    running[0].cancel()
    queued[0].cancel()
    recorder.gate.set()
    assert await running[1] == 4
    assert await queued[1] == 8
    assert recorder.batches == [[1, 2], [4]]
    assert batcher.stats.dropped == 1


async def test_contexts_do_not_leak() -> None:
    """The first caller's variables are not those of the batches."""
    variable = contextvars.ContextVar("variable", default="clean")
    seen: list[str] = []

    async def fn(items: list[int]) -> list[int]:
        seen.append(variable.get())
        return items

    variable.set("the caller's")
    await Batcher(fn)(1)
    assert seen == ["clean"]


async def test_closing() -> None:
    """What was taken is computed and nothing more is taken; or all is failed, and none hangs."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, max_size=1)
    futures = [batcher.submit(n) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    recorder.gate.set()
    await batcher.aclose()
    assert [future.result() for future in futures] == [2, 4, 6]
    with pytest.raises(BatcherClosed):
        batcher.submit(4)

    recorder.gate.clear()
    batcher = Batcher(recorder, max_size=1)
    futures = [batcher.submit(n) for n in (1, 2)]
    await asyncio.sleep(0)
    await batcher.aclose(drain=False)
    errors = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(error, BatcherClosed | BatchFailed) for error in errors)
    await Batcher(recorder).aclose()  # never used


def on_virtual_time(main: Any) -> Any:
    """A test on a clock that jumps."""

    def test() -> None:
        virtual.run(main())

    test.__doc__ = main.__doc__
    return test


@on_virtual_time
async def test_max_wait() -> None:
    """A lone item goes at once; in company the oldest waits so long, never longer, unless full."""
    began: list[tuple[float, int]] = []
    loop = asyncio.get_running_loop()

    async def fn(items: list[int]) -> list[int]:
        began.append((round(loop.time(), 3), len(items)))
        return items

    batcher: Batcher[int, int] = Batcher(fn, max_size=4, max_wait=0.05)
    await batcher(1)
    assert began == [(0.0, 1)]
    two = [batcher.submit(1), batcher.submit(2)]
    await asyncio.sleep(0.03)
    third = batcher.submit(3)  # does not begin the wait again
    await asyncio.gather(*two, third)
    assert began[1:] == [(0.05, 3)]
    await asyncio.gather(*(batcher(n) for n in range(4)))
    assert began[2:] == [(0.05, 4)]
    with batcher.expect():
        lone = batcher.submit(1)
        await asyncio.sleep(0.02)
    await lone  # nobody is expected any more
    assert began[3:] == [(0.07, 1)]
    with batcher.expect():
        await batcher(1)
    assert began[4:] == [(0.12, 1)]
    assert batcher.stats.reasons == {"idle": 2, "linger": 2, "full": 1}


@on_virtual_time
async def test_concurrency() -> None:
    """So many batches at once, no more, and each begins when there is a place."""
    running, most = 0, 0

    async def fn(items: list[int]) -> list[int]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        return items

    batcher: Batcher[int, int] = Batcher(fn, max_size=2, concurrency=3)
    assert await asyncio.gather(*(batcher(n) for n in range(14))) == list(range(14))
    assert most == 3
    assert asyncio.get_running_loop().time() == pytest.approx(3)


@on_virtual_time
async def test_a_function_that_hangs() -> None:
    """Its callers are told in time, even if it will not be cancelled, and the next batch goes."""

    async def fn(items: list[int]) -> list[int]:
        if items == [1]:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)
            await asyncio.sleep(1000)
        return items

    batcher: Batcher[int, int] = Batcher(fn, timeout=2.0)
    with pytest.raises(BatchTimeout):
        await batcher(1)
    assert await batcher(2) == 2
    assert asyncio.get_running_loop().time() == pytest.approx(2)


@on_virtual_time
async def test_deadlines() -> None:
    """Passed while the function is busy: told then, and not computed."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, max_size=1)
    first = batcher.submit(1)
    await asyncio.sleep(0)
    late, later = batcher.submit(2, deadline=1.0), batcher.submit(3, deadline=3.0)
    fine = batcher.submit(4, deadline=9.0)
    loop = asyncio.get_running_loop()
    for future, at in ((late, 1.0), (later, 3.0)):
        with pytest.raises(DeadlinePassed):
            await future
        assert loop.time() == pytest.approx(at)
    recorder.gate.set()
    assert [await first, await fine] == [2, 8]
    assert recorder.batches == [[1], [4]]


@on_virtual_time
async def test_priorities_and_ageing() -> None:
    """The highest first, equals as they came; waiting is worth priority, so none waits for ever."""
    order: list[str] = []

    async def fn(items: list[str]) -> list[str]:
        order.extend(items)
        await asyncio.sleep(1)
        return items

    batcher: Batcher[str, str] = Batcher(fn, max_size=1, ageing=1.0)
    futures = [batcher.submit("first")]
    await asyncio.sleep(0)
    futures.append(batcher.submit("old", priority=0))
    for n in range(6):
        futures.append(batcher.submit(f"high{n}", priority=3))
        await asyncio.sleep(1)
    await asyncio.gather(*futures)
    assert order[0] == "first"
    assert "old" not in order[:3]
    assert order.index("old") < order.index("high5")
    highs = [name for name in order if name.startswith("high")]
    assert highs == sorted(highs)


async def test_isolation() -> None:
    """When the function raises for a batch, only the bad item's caller fails."""

    async def fn(items: list[int]) -> list[int]:
        if 13 in items:
            raise ValueError(13)
        return items

    batcher: Batcher[int, int] = Batcher(fn, max_size=64, isolate=True)
    got = await asyncio.gather(*(batcher(n) for n in range(50)), return_exceptions=True)
    assert [n for n, one in enumerate(got) if one != n] == [13]
    assert isinstance(got[13], BatchFailed)
    assert isinstance(got[13].__cause__, ValueError)
    assert batcher.stats.isolated == 1


async def test_a_full_queue() -> None:
    """What does not fit is refused with a time to try again; who gave up makes room."""
    recorder = Recorder()
    batcher = Batcher(recorder, max_size=2, max_queue=4)
    await asyncio.gather(batcher(1), batcher(2))
    recorder.gate.clear()
    futures = [batcher.submit(n) for n in range(2)]
    await asyncio.sleep(0)
    futures += [batcher.submit(n) for n in range(4)]
    with pytest.raises(BatcherFull) as refused:
        batcher.submit(9)
    assert refused.value.retry_after > 0
    futures[-1].cancel()
    futures.append(batcher.submit(5))
    recorder.gate.set()
    assert len(await asyncio.gather(*futures, return_exceptions=True)) == 7
    assert batcher.stats.refused == 1


async def test_lanes() -> None:
    """Only items of one key share a batch; lanes take turns, and empty ones vanish."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, max_size=2, key=lambda n: n % 2)
    futures = [batcher.submit(n) for n in (0, 2, 4, 6, 1, 3)]
    recorder.gate.set()
    await asyncio.gather(*futures)
    assert recorder.batches == [[0, 2], [1, 3], [4, 6]]
    assert len(batcher._waiting._lanes) == 0


@pytest.mark.parametrize(
    ("padded", "batches"), [(True, [[3, 3], [4], [1, 1, 1]]), (False, [[3, 3], [4, 1, 1, 1]])]
)
async def test_costs(padded: bool, batches: list[list[int]]) -> None:
    """A batch stays within its budget, padding counted; what does not fit stays first."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, cost=float, max_cost=7, padded=padded)
    futures = [batcher.submit(n) for n in (3, 3, 4, 1, 1, 1)]
    with pytest.raises(TooCostly):
        batcher.submit(8)
    recorder.gate.set()
    await asyncio.gather(*futures)
    assert recorder.batches == batches


async def test_equal_items_are_computed_once() -> None:
    """While one is under way others join it, each with a future of its own."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder, dedup=True)
    futures = [batcher.submit(n) for n in (1, 1, 2, -1, -1)]
    await asyncio.sleep(0)
    futures.append(batcher.submit(1))
    futures[0].cancel()
    recorder.gate.set()
    got = await asyncio.gather(*futures, return_exceptions=True)
    assert got[1:3] + got[5:] == [2, 4, 2]
    assert got[3] is not got[4]
    assert recorder.batches == [[1, 2, -1]]
    assert await batcher(1) == 2
    assert recorder.batches[1:] == [[1]]


async def test_plain_functions_run_in_a_thread() -> None:
    """The loop goes on meanwhile, and one full batch is handed ahead."""
    gate = threading.Semaphore(0)
    seen: list[tuple[int, int]] = []

    def fn(items: list[int]) -> list[int]:
        seen.append((threading.get_ident(), len(items)))
        assert gate.acquire(timeout=10)
        return items

    batcher = Batcher(fn, max_size=4)
    futures = [batcher.submit(n) for n in range(10)]
    while not seen:
        await asyncio.sleep(0.001)
    assert batcher._under_way == 2  # one computed, one full batch handed ahead
    gate.release(3)
    assert await asyncio.gather(*futures) == list(range(10))
    assert [size for _, size in seen] == [4, 4, 2]
    assert {thread for thread, _ in seen}.isdisjoint({threading.get_ident()})
    await batcher.aclose()


async def test_a_thread_that_hangs_is_left_behind() -> None:
    """Its callers are told, and the next batch gets another thread."""
    stuck = threading.Event()

    def fn(items: list[int]) -> list[int]:
        if items == [1]:
            stuck.wait(30)
        return items

    batcher = Batcher(fn, timeout=1.0)
    with pytest.raises(BatchTimeout):
        await batcher(1)
    assert await batcher(2) == 2
    stuck.set()
    await batcher.aclose()


def in_process(items: list[str]) -> list[str]:
    if items == ["die"]:
        os._exit(1)
    return [f"{item} {os.getpid() != int(os.environ['TEST_PARENT'])}" for item in items]


def test_deadlines_in_a_second_loop() -> None:
    """A loop that ended while something waited leaves no timer before those of the next."""

    async def fn(items: list[int]) -> list[int]:
        await asyncio.Event().wait()
        return items

    batcher: Batcher[int, int] = Batcher(fn, max_size=1)

    async def hand_in(deadline: float) -> asyncio.Future[int]:
        batcher.submit(1).add_done_callback(lambda done: done.exception())
        await asyncio.sleep(0)
        return batcher.submit(2, deadline=deadline)

    async def leave() -> None:
        (await hand_in(0.5)).add_done_callback(lambda done: done.exception())

    async def wait() -> None:
        late = await hand_in(1.0)
        with pytest.raises(DeadlinePassed):
            async with asyncio.timeout(10):
                await late

    asyncio.run(leave())
    asyncio.run(wait())


async def test_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function in a process of its own; when that dies, its callers are told, others go on."""
    monkeypatch.setenv("TEST_PARENT", str(os.getpid()))
    batcher = Batcher(in_process, process=True)
    assert await batcher("a") == "a True"
    with pytest.raises(ProcessDied):
        await batcher("die")
    assert await batcher("b") == "b True"
    await batcher.aclose()
    with pytest.raises(ConfigurationError):
        Batcher(Recorder(), process=True)


@pytest.mark.parametrize("threaded", [False, True])
async def test_streaming(threaded: bool) -> None:
    """A function that yields lists: each caller gets its own pieces, as they come, until the first
    None; an Ellipsis is no piece, an exception ends its stream."""

    def plain(items: list[str]) -> Iterator[list[Any]]:
        yield [...] * len(items)
        for i in range(max(map(len, items))):
            bad = ValueError("bad") if i == 2 else None
            yield [
                bad if bad and item == "bad" else item[i] if i < len(item) else None
                for item in items
            ]

    async def fn(items: list[str]) -> AsyncIterator[list[Any]]:
        for answer in plain(items):
            await asyncio.sleep(0)
            yield answer

    batcher: Batcher[str, Any] = Batcher(plain if threaded else fn)

    async def read(item: str) -> list[str]:
        return [piece async for piece in batcher.stream(item)]

    async def first_of(item: str) -> str:
        async for piece in batcher.stream(item):
            return str(piece)
        return ""

    got = await asyncio.gather(
        read("abc"), read("de"), batcher("xyz"), read("bad"), first_of("long"),
        return_exceptions=True,
    )  # fmt: skip
    assert list(got[:3]) == [list("abc"), list("de"), list("xyz")]
    assert isinstance(got[3], ValueError)
    assert got[4] == "l"
    await batcher.aclose()


async def test_a_short_stream_ends_before_the_long_ones() -> None:
    """With its first None, or its exception; the function is not asked for more than anybody
    wants."""
    go_on = asyncio.Event()
    lists = 0

    async def tokens(items: list[int]) -> AsyncIterator[list[Any]]:
        nonlocal lists
        for n in range(100):
            lists += 1
            yield [n if n < i else ValueError("no") if i == 0 else None for i in items]
            if n == 2:
                await go_on.wait()

    batcher: Batcher[int, Any] = Batcher(tokens)

    async def read(i: int) -> list[int]:
        return [piece async for piece in batcher.stream(i)]

    long = asyncio.create_task(read(4))
    failing = asyncio.create_task(read(0))
    assert await read(1) == [0]
    with pytest.raises(ValueError, match="no"):
        await failing
    assert not long.done()
    go_on.set()
    assert await long == [0, 1, 2, 3]
    await batcher.aclose()
    assert lists == 5


async def test_those_that_join_keep_their_own_options() -> None:
    """Equal items are computed once, and each caller has its own deadline and result; a more urgent
    one lifts the item; 1, True and 1.0 are three items; what is given up is forgotten."""
    gate, order = asyncio.Event(), []

    async def work(items: list[Any]) -> list[Any]:
        order.extend(items)
        await gate.wait()
        return [[item] for item in items]

    batcher = Batcher(work, max_size=1, dedup=True)
    busy = batcher.submit("busy")
    await asyncio.sleep(0)
    hasty, patient = batcher.submit("x", deadline=0.01), batcher.submit("x")
    first, joined = batcher.submit("y"), batcher.submit("y", deadline=0.01)
    low, urgent = batcher.submit("z"), batcher.submit("z", priority=100)
    for one in (hasty, joined):
        with pytest.raises(DeadlinePassed):
            await one
    gate.set()
    results: list[Any] = list(await asyncio.gather(busy, patient, first, low, urgent))
    assert results == [["busy"], ["x"], ["y"], ["z"], ["z"]]
    assert order == ["busy", "z", "x", "y"]
    results[3].append("mine")
    assert results[4] == ["z"]
    order.clear()
    await asyncio.gather(*map(batcher, (1, True, 1.0)))
    assert [type(item) for item in order] == [int, bool, float]
    with pytest.raises(ConfigurationError, match="hashable"):
        await batcher({})
    gate.clear()
    held = batcher.submit("held")
    await asyncio.sleep(0)
    thing = Thing()
    gone, there = batcher.submit(thing), weakref.ref(thing)
    del thing
    gone.cancel()
    gate.set()
    await held
    await batcher("after")
    gc.collect()
    assert there() is None
    await batcher.aclose()


class Thing:
    """Something that may be collected."""


class Encoding(collections.UserDict[str, Any]):
    """What a tokenizer answers with."""


Top = collections.namedtuple("Top", "values indices")


@pytest.mark.parametrize(
    "answer",
    [
        Encoding(ids=[1, 2], mask=[1, 1]), Top([0.9, 0.8], [3, 4]), {"a": 1, "b": 2}, "ab", b"ab",
        bytearray(b"ab"), {1, 2}, frozenset((1, 2)), (numpy.zeros(2), numpy.ones(2)),
        ([1, 2], [3, 4]), iter([1, 2]),
    ],
)  # fmt: skip
async def test_what_only_looks_like_a_list(answer: Any) -> None:
    """One value, or several outputs side by side, are not one result for each item."""

    async def work(items: list[str]) -> Any:
        return answer

    batcher: Batcher[str, Any] = Batcher(work)
    found = await asyncio.gather(batcher("one"), batcher("two"), return_exceptions=True)
    assert [type(one) for one in found] == [BatchFailed, BatchFailed]
    assert "a list, not" in str(found[0])


@pytest.mark.parametrize(
    "answer", [[1, 2], (1, 2), range(1, 3), numpy.array([1, 2]), {"a": 1, "b": 2}.values()]
)
async def test_lists_by_other_types(answer: Any) -> None:
    """An array, a tuple, a range and a view of values are."""

    async def work(items: list[str]) -> Any:
        return answer

    batcher: Batcher[str, Any] = Batcher(work)
    assert list(await asyncio.gather(batcher("one"), batcher("two"))) == [1, 2]


class Model:
    """An object with a batched method."""

    def __init__(self, name: str) -> None:
        self.name = name

    @batched
    async def run(self, items: list[Any]) -> list[str]:
        return [f"{self.name} {item}" for item in items]

    also = run


class Larger(Model):
    @batched
    async def run(self, items: list[Any]) -> list[str]:
        base = await asyncio.gather(*map(super().run, items))
        return [f"larger({one})" for one in base]


async def test_methods_of_copies_and_subclasses() -> None:
    """A copy works for itself, however it was made; a method that calls its base's stays itself; an
    alias shares the batcher."""
    small = Model("small")
    assert await small.run(1) == "small 1"
    for copied in (copy.copy(small), copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        copied.name = "copy"
        assert await copied.run(1) == "copy 1"
    assert await small.run(2) == "small 2"
    assert small.also is small.run
    larger = Larger("x")
    assert [await larger.run(i) for i in range(3)] == [f"larger(x {i})" for i in range(3)]


async def test_where_the_decorator_may_stand() -> None:
    """Beneath another decorator, above and beneath classmethod and staticmethod, in a class with
    slots, whatever the object is called; a function may be a partial; others are told in words."""

    wrap: Any = batched  # what is wrong on purpose is not for type checkers

    def logged(fn: Any) -> Any:
        @functools.wraps(fn)
        async def call(*args: Any) -> Any:
            return await fn(*args)

        return call

    class Plain:
        __slots__ = ()

        @logged
        @wrap  # type: ignore[untyped-decorator]
        async def over(self, items: list[int]) -> list[int]:
            return items

        @classmethod
        @wrap  # type: ignore[untyped-decorator]
        async def above(cls, items: list[int]) -> list[str]:
            return [f"{cls.__name__} {item}" for item in items]

        @wrap  # type: ignore[untyped-decorator]
        async def slots(this, items: list[int]) -> list[int]:
            return items

    assert await Plain().over(1) == 1
    assert await Plain.above(1) == "Plain 1"
    assert await Plain().slots(1) == 1
    below: Any = wrap(classmethod(lambda cls, items: items))
    static: Any = wrap(staticmethod(lambda items: items))
    made: Any = type("Made", (), {"below": below, "static": static})
    assert (await made.below(1), await made().static(1)) == (1, 1)

    async def scaled(factor: int, items: list[int]) -> list[int]:
        return [factor * item for item in items]

    twice: Any = wrap(functools.partial(scaled, 2))
    assert await twice(4) == 8
    with pytest.raises(ConfigurationError, match="nothing else"):
        wrap(lambda a, b, c: [])


async def test_threads_hand_in_too() -> None:
    """`submit_threadsafe` from a thread, once the batcher has a loop."""
    recorder = Recorder()
    batcher = Batcher(recorder)
    with pytest.raises(ConfigurationError):
        batcher.submit_threadsafe(1)
    async with batcher:
        got = await asyncio.to_thread(
            lambda: [batcher.submit_threadsafe(n).exception(5) for n in (-1, 2)]
        )
        assert isinstance(got[0], NotFound)
        assert got[1] is None


def test_another_loop() -> None:
    """While the first loop lives it is an error in words; afterwards the batcher goes on."""
    batcher = Batcher(Recorder())
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(batcher(1)) == 2
    with pytest.raises(ConfigurationError, match="another event loop"):
        asyncio.run(_call(batcher))
    loop.close()
    assert asyncio.run(_call(batcher)) == 2


async def _call(batcher: Batcher[int, int]) -> int:
    return await batcher(1)


async def test_the_decorator() -> None:
    """On functions and on methods, where each instance has its own."""

    @batched(max_size=8)
    async def upper(texts: list[str]) -> list[str]:
        """Says it louder."""
        return [text.upper() for text in texts]

    class Model:
        def __init__(self, factor: int) -> None:
            self.factor = factor
            self.sizes: list[int] = []

        @batched
        async def times(self, items: list[int]) -> list[int]:
            self.sizes.append(len(items))
            return [item * self.factor for item in items]

    assert list(await asyncio.gather(upper("cat"), upper("dog"))) == ["CAT", "DOG"]
    assert upper.__doc__ == "Says it louder."
    two, three = Model(2), Model(3)
    assert list(await asyncio.gather(two.times(1), two.times(2), three.times(1))) == [2, 4, 3]
    assert (two.sizes, three.sizes) == ([2], [1])


async def test_one_lane_does_not_wait_for_anothers_items() -> None:
    """A lone item starts at once, also while items of another key wait for more of theirs."""
    batcher = Batcher(Recorder(), max_size=10, key=lambda item: item % 2, max_wait=30.0)
    waiting = [batcher.submit(item) for item in (2, 4)]
    for _ in range(5):  # until they wait for more
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        assert await batcher(1) == 2
    await batcher.aclose()
    assert await asyncio.gather(*waiting) == [4, 8]


async def test_an_observer_that_raises() -> None:
    """What waits behind the batch that it was told of is computed, too."""
    told: list[int] = []

    def observe(batch: Batch) -> None:
        told.append(batch.size)
        raise RuntimeError("broken")

    batcher = Batcher(Recorder(), max_size=2, observe=observe)
    with batcher.hold(5):
        waiting = [batcher.submit(i) for i in range(5)]
    async with asyncio.timeout(5):
        assert len(await asyncio.gather(*waiting)) == 5
    assert sum(told) == 5


async def test_what_is_told_of_batches() -> None:
    """Sizes, waits, times and reasons, to an observer and to Prometheus."""
    from turnwise import telemetry

    told: list[Batch] = []
    batcher = Batcher(Recorder(), max_size=2, name="doubles", observe=told.append)
    with batcher.hold(3):
        futures = [batcher.submit(1), batcher.submit(2)]
        await asyncio.sleep(0.01)
        assert not told
        futures.append(batcher.submit(3))
        await asyncio.gather(*futures[:2])
    await asyncio.gather(*futures)
    assert [(batch.size, batch.reason) for batch in told] == [(2, "full"), (1, "idle")]
    assert told[0].waited >= 0.009
    assert b'turnwise_batch_size_count{name="doubles"} 2.0' in telemetry.exposition()


async def test_nothing_is_held_when_idle() -> None:
    """After delivery no item, result or task is referenced."""
    import gc
    import weakref

    class Thing:
        pass

    async def fn(items: list[Thing]) -> list[Thing]:
        return [Thing() for _ in items]

    batcher: Batcher[Thing, Thing] = Batcher(fn)
    item = Thing()
    result = await batcher(item)
    seen = [weakref.ref(item), weakref.ref(result)]
    del item, result
    await asyncio.sleep(0)
    gc.collect()
    assert [ref() for ref in seen] == [None, None]
    assert not batcher._workers


async def test_a_storm() -> None:
    """Thousands of callers, some cancelled, some bad, batches that fail: each is answered."""
    import random

    chance = random.Random(7)

    async def fn(items: list[int]) -> list[int | BaseException]:
        await asyncio.sleep(chance.random() / 1000)
        if chance.random() < 0.1:
            raise OSError
        return [ValueError(item) if item % 17 == 0 else item for item in items]

    batcher: Batcher[int, int] = Batcher(fn, max_size=16, concurrency=3, isolate=True)

    async def call(item: int) -> None:
        await asyncio.sleep(chance.random() / 20)
        calling = asyncio.ensure_future(batcher(item))
        if chance.random() < 0.3:
            asyncio.get_running_loop().call_later(chance.random() / 200, calling.cancel)
        try:
            assert await calling == item
            assert item % 17
        except ValueError:
            assert item % 17 == 0
        except (BatchFailed, asyncio.CancelledError):
            pass

    async with asyncio.timeout(30):
        await asyncio.gather(*(call(n) for n in range(3000)))
    assert len(batcher._waiting) == 0


def test_wrong_options() -> None:
    """Told when made."""
    options: list[dict[str, Any]] = [
        {"max_size": 0}, {"max_wait": -1}, {"concurrency": 0}, {"cost": float}, {"max_cost": 3},
        {"ageing": 0},
    ]  # fmt: skip
    for wrong in options:
        with pytest.raises(ConfigurationError):
            Batcher(Recorder(), **wrong)
    with pytest.raises(ConfigurationError):
        Batcher("nothing")  # type: ignore[arg-type]


def test_waiting_costs_nothing() -> None:
    """A day of waiting on the virtual clock passes at once, and in its order."""
    order: list[str] = []

    async def main() -> float:
        async def at(seconds: float) -> None:
            await asyncio.sleep(seconds)
            order.append(f"{seconds:g}")

        await asyncio.gather(at(86400), at(60), at(3600))
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    main_: Coroutine[Any, Any, float] = main()
    assert virtual.run(main_) == pytest.approx(86400)
    assert order == ["60", "3600", "86400"]
    assert time.monotonic() - began < 5


# N or T


def test_a_lone_item_waits_for_company_or_for_its_time() -> None:
    """With `min_size` a batch goes when it holds N items or T has passed for the oldest, whichever
    comes first, although nothing else is under way."""

    async def main() -> tuple[list[float], list[list[int]]]:
        recorder = Recorder()
        batcher = Batcher(recorder, max_size=8, min_size=3, max_wait=1.0)
        loop = asyncio.get_running_loop()
        took: list[float] = []

        async def ask(item: int, after: float) -> None:
            await asyncio.sleep(after)
            began = loop.time()
            assert await batcher(item) == 2 * item
            took.append(round(loop.time() - began, 3))

        await ask(1, 0.0)  # alone: T
        await asyncio.gather(*(ask(n, n / 10) for n in range(2, 5)))  # three: N, with the third
        await asyncio.gather(ask(5, 0.0), ask(6, 0.9), ask(7, 5.0))  # two: T of the older; then one
        assert dict(batcher.stats.reasons) == {"linger": 3, "enough": 1}
        return took, recorder.batches

    took, batches = virtual.run(main())
    assert batches == [[1], [2, 3, 4], [5, 6], [7]]
    assert sorted(took) == [0.0, 0.1, 0.1, 0.2, 1.0, 1.0, 1.0]


def test_only_full_batches_go_before_their_time() -> None:
    """With `min_size == max_size`: full ones at once, the rest when the time of its oldest is up,
    and one that nobody waits for any more does not count."""

    async def main() -> None:
        recorder = Recorder()
        batcher = Batcher(recorder, max_size=4, min_size=4, max_wait=2.0)
        loop = asyncio.get_running_loop()
        first = [batcher.submit(n) for n in range(1, 7)]
        await asyncio.gather(*first[:4])
        assert loop.time() == 0.0
        first[4].cancel()
        later = [batcher.submit(n) for n in (7, 8)]
        await asyncio.sleep(1.0)
        assert recorder.batches == [[1, 2, 3, 4]]
        last = batcher.submit(9)  # with 6, 7 and 8 it is the fourth that somebody waits for
        await asyncio.gather(first[5], *later, last)
        assert (recorder.batches, loop.time()) == ([[1, 2, 3, 4], [6, 7, 8, 9]], 1.0)

    virtual.run(main())


def test_lanes_wait_each_for_its_own() -> None:
    """N and T hold for each key by itself."""

    async def main() -> None:
        recorder = Recorder()
        batcher = Batcher(
            recorder, max_size=2, min_size=2, max_wait=1.0, key=lambda n: n % 2, concurrency=2
        )
        odd, *even = [batcher.submit(n) for n in (1, 2, 4)]
        await asyncio.gather(*even)
        assert not odd.done()
        await odd
        assert asyncio.get_running_loop().time() == 1.0
        assert recorder.batches == [[2, 4], [1]]

    virtual.run(main())


async def test_closing_does_not_wait_for_company() -> None:
    """What waits for N when the batcher is closed is computed at once."""
    batcher = Batcher(Recorder(), max_size=8, min_size=8, max_wait=60.0)
    waiting = batcher.submit(1)
    await asyncio.sleep(0)
    await batcher.aclose()
    assert await waiting == 2


@pytest.mark.parametrize(
    "options",
    [{"min_size": 0}, {"min_size": 9}, {"min_size": 2}, {"min_size": 9, "max_wait": 1.0}],
)
def test_n_without_t_is_refused(options: dict[str, Any]) -> None:
    """A lone item would wait for ever; and N is no more than a batch holds."""
    with pytest.raises(ConfigurationError):
        Batcher(Recorder(), max_size=8, **options)


def slowly(items: list[int]) -> list[int]:
    time.sleep(0.1)
    return items


async def test_the_time_of_a_batch_begins_with_it() -> None:
    """A batch that waits for the thread of another one does not use up its own time, and is not
    lost with a thread that hangs."""
    batcher = Batcher(slowly, max_size=1, timeout=0.19)
    assert await asyncio.gather(*map(batcher, range(6))) == list(range(6))
    release = threading.Event()

    def hangs(items: list[int]) -> list[int]:
        if items == [0]:
            release.wait(20)
        return items

    async with Batcher(hangs, max_size=1, timeout=0.2) as held:
        found = await asyncio.gather(*map(held, range(4)), return_exceptions=True)
        assert [type(one) for one in found] == [BatchTimeout, int, int, int]
        release.set()


async def test_a_function_that_waits_for_itself() -> None:
    """It is told, and waits for nothing; what it submits without waiting is computed."""
    later: list[asyncio.Future[int]] = []

    async def nested(items: list[int]) -> list[int]:
        if items == [1]:
            later.append(batcher.submit(5))
            return [await batcher(2)]
        return items

    batcher = Batcher(nested, max_size=1)
    with pytest.raises(ConfigurationError, match="own batcher"):
        await batcher(1)
    assert await later[0] == 5
    assert await batcher(3) == 3


async def test_a_function_whose_batcher_has_another_batch_to_give() -> None:
    """It may wait for it; and what it has begun beside its batch is no part of it later."""
    beside: list[asyncio.Task[int]] = []

    async def later() -> int:
        await over.wait()
        return await batcher(7)

    async def nested(items: list[int]) -> list[int]:
        if items == [3] and not beside:
            beside.append(asyncio.create_task(later()))
        return [item if item == 0 else await batcher(item - 1) for item in items]

    over = asyncio.Event()
    batcher = Batcher(nested, max_size=1, concurrency=8)
    assert await batcher(3) == 0
    over.set()
    assert await beside[0] == 0


async def test_closing_while_a_batch_hangs() -> None:
    """Its callers hear that the batcher is closed."""
    started = asyncio.Event()

    async def hangs(items: list[int]) -> list[int]:
        started.set()
        await asyncio.Event().wait()
        return items

    batcher = Batcher(hangs)
    waiting = asyncio.create_task(batcher(1))
    await started.wait()
    await batcher.aclose(patience=0.01)
    with pytest.raises(BatcherClosed):
        await waiting
