"""The life cycle of a turn: submitted, answered, in order, once."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from turnwise.errors import KeyReused, QueueFull
from turnwise.stores.base import Store
from turnwise.stores.records import Submission
from turnwise.testing.conformance.acting import Acting, answer, delta, desk, question, texts


class TurnConformance(Acting):
    """Transitions from queued to completed, the order of arrival, and keys."""

    # queued -> running -> completed

    async def test_a_turn_passes_from_queued_to_completed(self, store: Store) -> None:
        """submit, claim, append, finish: the history and the log agree."""
        await self.made(store)
        record = await self.say(store, "hi")
        assert (record.status, record.position, record.attempt) == ("queued", 0, 0)
        claim = await self.claimed(store)
        assert (claim.turn, claim.attempt) == (1, 1)
        assert await self.status(store, 1) == "running"
        await store.append(claim, [delta(1, 1, "hel"), delta(1, 1, "lo")])
        await store.finish(claim, answer("hello"))
        done = await store.turn("s", 1)
        assert done is not None
        assert done.status == "completed"
        assert texts(done.replies_json) == ["hello"]
        history = await store.history("s")
        assert texts(history.messages_json) == ["hi", "hello"]
        assert [orjson.loads(m)["seq"] for m in history.messages_json] == [1, 2]
        expected = ["turn.queued", "turn.started", "delta", "delta", "message", "turn.completed"]
        assert await self.types(store) == expected
        assert history.cursor == 6

    async def test_an_idle_session_is_claimed_as_it_is_submitted(self, store: Store) -> None:
        """With a desk, an idle session's turn starts in the act that submits it."""
        await self.made(store)
        submitted, claim = await self.say_and_take(store, "hi", desk())
        assert claim is not None
        assert submitted.turn.status == "running"
        assert await store.claim(desk("w2"), 10) == []
        later, none = await self.say_and_take(store, "more", desk())
        assert none is None
        assert (later.turn.status, later.turn.position) == ("queued", 1)

    async def test_finish_claims_the_next_turn(self, store: Store) -> None:
        """With a desk in its outcome, `finish` claims the session's next turn."""
        await self.made(store)
        for text in ("one", "two"):
            await self.say(store, text)
        claim = await self.claimed(store)
        outcome = answer("1")
        outcome.next_desk = desk()
        following = await store.finish(claim, outcome)
        assert following is not None
        assert following.turn == 2
        assert texts(following.history) == ["one", "1"]
        assert await store.finish(following, answer("2")) is None

    async def test_the_state_is_committed_with_the_reply(self, store: Store) -> None:
        """The next claim holds the state of a finished turn; that of a failed one is not stored."""
        await self.made(store)
        await self.say(store, "one")
        claim = await self.claimed(store)
        assert claim.state == b"{}"
        outcome = answer("1")
        outcome.state = b'{"n":1}'
        await store.finish(claim, outcome)
        await self.say(store, "two")
        assert (await self.claimed(store)).state == b'{"n":1}'
        assert await store.state("s") == b'{"n":1}'

    # One at a time, in order

    async def test_one_turn_at_a_time_in_order_of_arrival(self, store: Store) -> None:
        """However many desks ask, a session's turns are claimed one by one, in order."""
        await self.made(store)
        for i in range(5):
            await self.say(store, f"m{i}")
        seen = []
        for _ in range(5):
            found = await asyncio.gather(*(store.claim(desk(f"w{i}"), 10) for i in range(4)))
            claims = [claim for claims in found for claim in claims]
            assert len(claims) == 1
            seen.append(claims[0].turn)
            await store.finish(claims[0], answer("ok"))
        assert seen == [1, 2, 3, 4, 5]
        history = await store.history("s")
        assert texts(history.messages_json) == [t for i in range(5) for t in (f"m{i}", "ok")]

    async def test_sessions_do_not_wait_for_each_other(self, store: Store) -> None:
        """While one session's turn runs, another's is claimed; the longest ready comes first."""
        for name in ("a", "b", "c"):
            await self.made(store, name)
            await self.say(store, "hi", name)
            await self.pass_time(store, 0.01)
        first = await store.claim(desk(), 2)
        assert [claim.session for claim in first] == ["a", "b"]
        assert [claim.session for claim in await store.claim(desk(), 2)] == ["c"]

    async def test_a_full_mailbox_is_told(self, store: Store) -> None:
        """Beyond the limit: QueueFull, and nothing has changed."""
        await self.made(store)
        await self.say(store, "one", limit=2)
        await self.say(store, "two", limit=2)
        with pytest.raises(QueueFull):
            await self.say(store, "three", limit=2)
        assert len((await store.history("s")).open) == 2

    # Idempotency

    async def test_the_same_key_is_one_turn(self, store: Store) -> None:
        """The same key gives the first turn, queued or finished; another body is refused."""
        await self.made(store)
        first = await self.say(store, "hi", key="k", fingerprint="f")
        wish = Submission("s", question("hi"), key="k", fingerprint="f")
        again = await store.submit(wish)
        assert (again.turn.n, again.created) == (first.n, False)
        await store.finish(await self.claimed(store), answer("hello"))
        done = (await store.submit(wish)).turn
        assert (done.n, done.status, texts(done.replies_json)) == (1, "completed", ["hello"])
        with pytest.raises(KeyReused):
            await self.say(store, "other", key="k", fingerprint="g")
        assert await self.types(store) == [
            "turn.queued", "turn.started", "message", "turn.completed",
        ]  # fmt: skip

    async def test_a_key_outlives_a_reset(self, store: Store) -> None:
        """A request repeated after a reset is still the first one's turn; its text is gone."""
        await self.made(store)
        await self.say(store, "hi", key="k", fingerprint="f")
        await store.reset("s")
        again = await store.submit(Submission("s", question("hi"), key="k", fingerprint="f"))
        assert not again.created
        assert (again.turn.n, again.turn.status, again.turn.message_json) == (1, "cancelled", None)

    async def test_many_at_once_in_one_session(self, store: Store) -> None:
        """Submissions, cancels and claims that overlap stand in line: no number is given twice, and
        the log has no hole."""
        await self.made(store)

        async def say(i: int) -> int:
            for _ in range(i % 5):
                await asyncio.sleep(0)
            record = await self.say(store, f"m{i}", limit=1000)
            if i % 3 == 0:
                await store.cancel("s", record.n)
            for claim in await store.claim(desk(f"w{i}"), 1):
                await store.finish(claim, answer("ok"))
            return record.n

        numbers = await asyncio.gather(*(say(i) for i in range(60)))
        assert sorted(numbers) == list(range(1, 61))
        while claims := await store.claim(desk(), 1):
            await store.finish(claims[0], answer("ok"))
        types = await self.types(store)
        assert types.count("turn.queued") == 60
        assert types.count("turn.completed") + types.count("turn.cancelled") == 60

    async def test_fifty_at_once_with_one_key(self, store: Store) -> None:
        """Concurrent requests with one key create one turn."""
        await self.made(store)
        wish = Submission("s", question("hi"), key="k", fingerprint="f")
        made = await asyncio.gather(*(store.submit(wish) for _ in range(50)))
        assert sum(submitted.created for submitted in made) == 1
        assert {submitted.turn.n for submitted in made} == {1}
