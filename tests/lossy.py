"""A conversation in which each act's answer is lost on the way, as every server must bear it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from turnwise.errors import ClaimLost
from turnwise.stores.base import Store
from turnwise.stores.claim import Claim
from turnwise.stores.records import Submission
from turnwise.testing.conformance.acting import answer, delta, desk, question, texts

Lossy = Callable[[Awaitable[Any]], Awaitable[Any]]


async def claimed(store: Store) -> Claim:
    """A session that was handed out, and nobody was told, is handed out again later."""
    async with asyncio.timeout(10):
        while not (claims := await store.claim(desk(), 5)):
            await asyncio.sleep(0.05)
    return claims[0]


async def converse(store: Store, lossy: Lossy) -> None:
    """Each act is done once. `lossy(act)` loses its answer."""
    await lossy(store.create("s", name="n", metadata=b"{}", ttl=100.0))
    taken: list[Claim | None] = []
    wish = Submission("s", question("one"))
    submitted = await lossy(store.submit(wish, desk(), taken.append))
    assert (submitted.created, submitted.turn.n) == (True, 1)
    (claim,) = taken
    assert claim is not None
    assert texts([claim.message]) == ["one"]
    await lossy(store.append(claim, [delta(1, 1, "a")]))
    await lossy(store.append(claim, [delta(1, 1, "b"), delta(1, 1, "c")]))
    assert (await lossy(store.renew([claim], 30.0))).lost == frozenset()
    await lossy(store.submit(Submission("s", question("two"))))
    outcome = answer("abc")
    outcome.next_desk = desk()
    following = await lossy(store.finish(claim, outcome))
    assert following.turn == 2
    await lossy(store.release(following))
    again = await lossy(claimed(store))
    assert (again.turn, again.attempt) == (2, 1)
    await lossy(store.finish(again, answer("2")))
    held = await lossy(store.hold("s", "me", 30.0))
    await lossy(store.save(held, b'{"x":1}'))
    with pytest.raises(ClaimLost):
        await store.save(held, b"{}")
    await lossy(store.submit(Submission("s", question("three"))))
    assert (await lossy(store.cancel("s", 3))).status == "cancelled"
    log = await store.log("s", 0)
    assert log is not None
    assert [event.type for event in log.events] == [
        "turn.queued", "turn.started", "delta", "delta", "delta", "turn.queued", "message",
        "turn.completed", "turn.started", "turn.started", "message", "turn.completed",
        "turn.queued", "turn.cancelled",
    ]  # fmt: skip
    assert await store.state("s") == b'{"x":1}'
    assert (await lossy(store.reset("s"))).last_event == 15
    assert await lossy(store.delete("s"))
    assert await store.session("s") is None
