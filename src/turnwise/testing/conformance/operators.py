"""What those who look after a server see: open turns, failures, and facts of all processes."""

from __future__ import annotations

from turnwise.stores.base import Store
from turnwise.stores.claim import Outcome
from turnwise.testing.conformance.acting import Acting, answer, desk


def failed() -> Outcome:
    return Outcome("failed", error={"code": "handler_error", "message": "no"})


class OperatorConformance(Acting):
    """Listings over all sessions."""

    async def test_open_turns_are_listed(self, store: Store) -> None:
        """A running and a waiting turn, each with its session, its owner and its worker; neither
        an idle session nor one whose turn waits for a timer."""
        for name, owner in (("runs", "ada"), ("waits", None), ("idle", None)):
            await store.create(name, ttl=1000.0, name=f"{name} here", owner=owner)
        await self.say(store, "one", "runs")
        await self.say(store, "two", "runs")
        claim = await self.claimed(store)
        await self.say(store, "one", "waits")
        running, waiting = await store.busy(10)
        assert (running.session, running.name, running.owner) == ("runs", "runs here", "ada")
        assert (running.status, running.n, running.open, running.attempt) == ("running", 1, 2, 1)
        assert running.worker == "w1"
        assert running.started_at is not None
        assert (waiting.session, waiting.status, waiting.open) == ("waits", "queued", 1)
        assert (waiting.started_at, waiting.owner) == (None, None)
        await store.finish(claim, answer("ok"))
        assert {one.session: one.status for one in await store.busy(10)} == {
            "runs": "queued", "waits": "queued",
        }  # fmt: skip
        assert len(await store.busy(1)) == 1

    async def test_sessions_whose_turns_failed(self, store: Store) -> None:
        """The one that failed last comes first, each once; a deleted one is not there."""
        for name in ("a", "b", "c"):
            await self.made(store, name)
            await self.say(store, "hi", name)
            claim = await self.claimed(store)
            await store.finish(claim, failed() if name != "c" else answer("ok"))
            await self.pass_time(store, 1)
        assert await store.failing(10) == ["b", "a"]
        await self.say(store, "hi", "a")
        await store.finish(await self.claimed(store), failed())
        assert await store.failing(10) == ["a", "b"]
        assert await store.failing(1) == ["a"]
        await store.delete("a")
        assert await store.failing(10) == ["b"]

    async def test_a_turn_that_used_up_its_attempts_has_failed(self, store: Store) -> None:
        """Nobody was there to end it, and it is listed like any other failure."""
        await self.made(store)
        await self.say(store, "hi")
        at = desk(max_attempts=1, lease=1.0)
        await self.claimed(store, at)
        await self.pass_time(store, 40)
        assert await store.claim(at, 10) == []
        assert await store.failing(10) == ["s"]

    async def test_all_ids(self, store: Store) -> None:
        """In order and by pages: also a session that is in no list."""
        for name in ("b", "a", "d"):
            await self.made(store, name)
        await store.create("c", ttl=1000.0, unlisted=True)
        assert [one.id for one in await store.sessions()] == ["a", "b", "d"]
        assert await store.ids() == ["a", "b", "c", "d"]
        assert await store.ids(after="b", limit=1) == ["c"]

    async def test_published_facts(self, store: Store) -> None:
        """Kept by their names, found by how these begin, replaced and removed."""
        await store.publish("x:1", b"one")
        await store.publish("x:2", b"two")
        await store.publish("y", b"other")
        await store.publish("x:2", b"second")
        assert await store.published("x:") == {"x:1": b"one", "x:2": b"second"}
        await store.publish("x:1", None)
        assert await store.published("x:") == {"x:2": b"second"}
        assert await store.published("") != {}
