"""The right to write: leases that expire, turns that are stopped, sessions that are held."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from turnwise.conversation import Message
from turnwise.errors import ClaimLost, NotFound
from turnwise.stores.base import Store
from turnwise.stores.claim import Claim, Outcome
from turnwise.stores.notices import Notice, Signal
from turnwise.stores.records import Submission
from turnwise.testing.conformance.acting import Acting, answer, delta, desk, question, texts


class ClaimConformance(Acting):
    """Transitions under a claim, and what is refused after a claim is lost."""

    # The claim

    async def test_a_lapsed_lease_is_taken_over_and_the_old_claim_is_dead(
        self, store: Store
    ) -> None:
        """After the lease another worker starts attempt 2; the first can no longer write."""
        await self.made(store)
        await self.say(store, "hi")
        old = await self.claimed(store, desk("w1", lease=10.0))
        assert await store.claim(desk("w2"), 10) == []
        await self.pass_time(store, 11.0)
        new = await self.claimed(store, desk("w2"))
        assert (new.turn, new.attempt) == (1, 2)
        before = await self.types(store)
        with pytest.raises(ClaimLost):
            await store.append(old, [delta(1, 1, "stale")])
        with pytest.raises(ClaimLost):
            await store.finish(old, answer("stale"))
        await store.release(old)
        assert (await store.renew([old, new], 30.0)).lost == {old.token}
        assert await self.types(store) == before
        await store.finish(new, answer("fresh"))
        assert texts((await store.history("s")).messages_json) == ["hi", "fresh"]

    async def test_claims_made_at_once_are_apart(self, store: Store) -> None:
        """Sessions that are claimed in one call have a token each, and end each for itself."""
        for name in ("a", "b", "c"):
            await self.made(store, name)
            await self.say(store, "hi", name)
        claims = await store.claim(desk(), 10)
        assert len({claim.token for claim in claims}) == 3
        first, second, third = claims
        await store.finish(first, answer("ok"))
        await store.cancel(second.session, 1)
        assert not await store.append(third, [delta(1, 1, "x")])
        assert await store.append(second, [delta(1, 1, "x")])
        await store.finish(third, answer("ok"))

    async def test_a_commit_that_is_repeated_is_done_once(self, store: Store) -> None:
        """The same outcome again, after its answer was lost: no error, and nothing twice. What an
        append wrote whose answer was lost is not written again with the commit."""
        await self.made(store)
        await self.say(store, "hi")
        claim = await self.claimed(store)
        drafts = [delta(1, 1, "a"), delta(1, 1, "b")]
        await store.append(claim, drafts)
        claim.written = 0  # as the worker knows it if the answer was lost
        outcome = answer("ab")
        outcome.drafts = [*drafts, delta(1, 1, "c")]
        await store.finish(claim, outcome)
        await store.finish(claim, outcome)
        assert texts((await store.history("s")).messages_json) == ["hi", "ab"]
        assert (await self.types(store)).count("delta") == 3

    async def test_a_renewed_lease_holds(self, store: Store) -> None:
        """A claim that is renewed in time is not taken over."""
        await self.made(store)
        await self.say(store, "hi")
        claim = await self.claimed(store, desk(lease=10.0))
        for _ in range(3):
            await self.pass_time(store, 6.0)
            assert not (await store.renew([claim], 10.0)).lost
            assert await store.claim(desk("w2"), 10) == []
        await store.finish(claim, answer("ok"))

    async def test_attempts_are_used_up(self, store: Store) -> None:
        """A turn whose workers die each time fails, and the session continues."""
        await self.made(store)
        await self.say(store, "poison")
        await self.say(store, "fine")
        for attempt in (1, 2):
            claim = await self.claimed(store, desk(lease=1.0, max_attempts=2))
            assert (claim.turn, claim.attempt) == (1, attempt)
            await self.pass_time(store, 1.1)
        claim = await self.claimed(store, desk(max_attempts=2))
        assert claim.turn == 2
        failed = await store.turn("s", 1)
        assert failed is not None
        assert failed.status == "failed"
        assert orjson.loads(failed.error_json or b"")["code"] == "attempts_exhausted"
        assert (await self.types(store)).count("turn.failed") == 1

    async def test_a_release_does_not_count(self, store: Store) -> None:
        """A released turn is claimed again at once, with the same attempt number."""
        await self.made(store)
        await self.say(store, "hi")
        for _ in range(5):
            claim = await self.claimed(store, desk(max_attempts=2))
            assert claim.attempt == 1
            await store.release(claim)
            assert await self.status(store, 1) == "queued"

    async def test_finishing_twice_is_refused(self, store: Store) -> None:
        """A claim ends with its turn."""
        await self.made(store)
        await self.say(store, "hi")
        claim = await self.claimed(store)
        await store.finish(claim, answer("ok"))
        with pytest.raises(ClaimLost):
            await store.finish(claim, answer("ok"))
        assert texts((await store.history("s")).messages_json) == ["hi", "ok"]

    async def test_the_keeper_comes_first_for_a_moment(self, store: Store) -> None:
        """A session cached by a worker is reserved for it, but others get it within a second."""
        await self.made(store)
        await self.say(store, "one")
        outcome = answer("1")
        outcome.keep = "w1"
        await store.finish(await self.claimed(store, desk("w1")), outcome)
        _, none = await self.say_and_take(store, "two", desk("w2"))
        assert none is None
        assert await store.claim(desk("w2"), 10) == []
        await self.pass_time(store, 0.9)
        outcome = answer("2")
        outcome.keep = "w2"
        await store.finish(await self.claimed(store, desk("w2")), outcome)
        await store.forget("w2", ["s"])
        await self.say(store, "three")
        assert (await self.claimed(store, desk("w1"))).turn == 3

    async def test_take_is_called_even_when_the_caller_has_gone(self, store: Store) -> None:
        """A submission whose caller is cancelled still hands its claim to the worker."""
        await self.made(store)
        taken: asyncio.Queue[Claim | None] = asyncio.Queue()
        wish = Submission("s", question("hi"))
        caller = asyncio.ensure_future(store.submit(wish, desk(), taken.put_nowait))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        caller.cancel()
        async with asyncio.timeout(10):
            claim = await taken.get()
        assert claim is not None
        await store.finish(claim, answer("ok"))

    # Cancel

    async def test_cancel_withdraws_a_queued_turn(self, store: Store) -> None:
        """It never runs and never enters the history; the turns behind it move up."""
        await self.made(store)
        for text in ("one", "two", "three"):
            await self.say(store, text)
        assert (await store.cancel("s", 2)).status == "cancelled"
        assert (await store.cancel("s", 2)).status == "cancelled"
        third = await store.turn("s", 3)
        assert third is not None
        assert third.position == 1
        for expected in (1, 3):
            claim = await self.claimed(store)
            assert claim.turn == expected
            await store.finish(claim, answer("ok"))
        assert texts((await store.history("s")).messages_json) == ["one", "ok", "three", "ok"]
        withdrawn = await store.turn("s", 2)
        assert withdrawn is not None
        assert withdrawn.message is not None
        assert (await self.types(store)).count("turn.cancelled") == 1

    async def test_cancelling_the_only_queued_turn_leaves_the_session_idle(
        self, store: Store
    ) -> None:
        """Nothing is left to claim, and the next message starts at once."""
        await self.made(store)
        await self.say(store, "one")
        await store.cancel("s", 1)
        assert await store.claim(desk(), 10) == []
        session = await store.session("s")
        assert session is not None
        assert session.status == "idle"
        _, claim = await self.say_and_take(store, "two", desk())
        assert claim is not None
        assert claim.turn == 2

    async def test_cancel_asks_a_running_turn_to_stop(self, store: Store) -> None:
        """The holder is notified in three ways, and finishes it as cancelled."""
        heard: list[Notice] = []
        unlisten = store.listen(heard.append)
        await self.made(store)
        await self.say(store, "hi")
        claim = await self.claimed(store)
        assert not await store.append(claim, [delta(1, 1, "par")])
        assert (await store.cancel("s", 1)).status == "running"
        assert Signal("cancel", "s", 1) in heard
        assert await store.append(claim, [delta(1, 1, "tial")])
        assert (await store.renew([claim], 30.0)).cancelled == {claim.token}
        partial = Message("partial", partial=True).encode()
        await store.finish(claim, Outcome("cancelled", [partial]))
        done = await store.cancel("s", 1)
        assert done.status == "cancelled"
        assert texts(done.replies_json) == ["partial"]
        unlisten()

    async def test_a_stopped_turn_whose_worker_died_is_not_tried_again(self, store: Store) -> None:
        """It ends as cancelled when its lease runs out."""
        await self.made(store)
        await self.say(store, "hi")
        await self.claimed(store, desk(lease=1.0))
        await store.cancel("s", 1)
        await self.pass_time(store, 1.1)
        assert await store.claim(desk(), 10) == []
        assert await self.status(store, 1) == "cancelled"

    async def test_cancel_of_what_is_not_there(self, store: Store) -> None:
        """NotFound for a turn or a session that does not exist."""
        await self.made(store)
        with pytest.raises(NotFound):
            await store.cancel("s", 1)
        with pytest.raises(NotFound):
            await store.cancel("nobody", 1)

    # Holding a session

    async def test_a_hold_excludes_turns(self, store: Store) -> None:
        """While a session is held no turn starts; what arrives waits and runs afterwards."""
        await self.made(store)
        held = await store.hold("s", "me", 30.0)
        assert held is not None
        assert await store.hold("s", "you", 30.0) is None
        _, none = await self.say_and_take(store, "hi", desk())
        assert none is None
        assert await store.claim(desk(), 10) == []
        await store.save(held, b'{"n":7}')
        await self.pass_time(store, 5.0)
        claim = await self.claimed(store)
        assert claim.state == b'{"n":7}'
        with pytest.raises(ClaimLost):
            await store.save(held, b"{}")

    async def test_a_hold_waits_for_the_running_turn_and_goes_first(self, store: Store) -> None:
        """Asked for in mid-turn, it comes before the next turn, which is not lost."""
        await self.made(store)
        await self.say(store, "one")
        await self.say(store, "two")
        claim = await self.claimed(store)
        assert await store.hold("s", "me", 30.0) is None
        outcome = answer("1")
        outcome.next_desk = desk()
        assert await store.finish(claim, outcome) is None
        assert await store.claim(desk(), 10) == []
        held = await store.hold("s", "me", 30.0)
        assert held is not None
        await store.save(held, None)
        assert (await self.claimed(store)).turn == 2

    async def test_a_hold_lapses(self, store: Store) -> None:
        """A process that dies while it holds a session does not keep it."""
        await self.made(store)
        held = await store.hold("s", "me", 1.0)
        assert held is not None
        await self.say(store, "hi")
        await self.pass_time(store, 1.1)
        assert (await self.claimed(store)).turn == 1
        with pytest.raises(ClaimLost):
            await store.save(held, b'{"n":7}')
