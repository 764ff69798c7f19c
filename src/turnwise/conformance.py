"""The promise of `turnwise.stores.base.Store` as a suite of tests, for any store.

    class TestMyStore(StoreConformance):
        @pytest.fixture
        async def store(self): ...          # an open, empty store

        async def pass_time(self, store, seconds): ...

It needs pytest with pytest-asyncio in auto mode, and walks the table of a turn's states: every
arrow is taken through the store's acts, and what is no arrow is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from turnwise.conversation import Message, TurnRecord
from turnwise.errors import ClaimLost, KeyReused, NotFound, QueueFull, Unauthorized
from turnwise.events import Draft, draft
from turnwise.stores.base import (
    NO_EPOCH,
    Claim,
    Desk,
    Outcome,
    Store,
    Submission,
    Submitted,
)
from turnwise.stores.notices import Appended, Notice, Signal


def desk(worker: str = "w1", *, lease: float = 30.0, max_attempts: int = 3) -> Desk:
    """A worker's desk that holds nothing of any session."""
    return Desk(worker, lease, max_attempts, 50, lambda _: (NO_EPOCH, 0))


def question(text: str) -> bytes:
    return Message(text, role="user").encode()


def answer(text: str) -> Outcome:
    return Outcome("completed", [Message(text).encode()])


def delta(turn: int, attempt: int, text: str) -> Draft:
    return draft("delta", turn, 0.0, attempt=attempt, text=text)


def texts(messages: Sequence[bytes]) -> list[str]:
    return [orjson.loads(message)["text"] for message in messages]


class StoreConformance:
    """Subclass it, give it a `store` fixture, and say how time passes there."""

    async def pass_time(self, store: Store, seconds: float) -> None:
        """Let `seconds` pass by the store's clock."""
        raise NotImplementedError

    # Shorthands

    async def made(self, store: Store, session: str = "s", ttl: float = 1000.0) -> str:
        await store.create(session, name=None, metadata=b"{}", ttl=ttl)
        return session

    async def say(self, store: Store, text: str, session: str = "s", **more: Any) -> TurnRecord:
        submitted = await store.submit(Submission(session, question(text), **more))
        return submitted.turn

    async def say_and_take(
        self, store: Store, text: str, at: Desk, session: str = "s"
    ) -> tuple[Submitted, Claim | None]:
        taken: list[Claim | None] = []
        wish = Submission(session, question(text))
        submitted = await store.submit(wish, at, taken.append)
        assert len(taken) == 1
        return submitted, taken[0]

    async def claimed(self, store: Store, at: Desk | None = None) -> Claim:
        claims = await store.claim(at or desk(), 10)
        assert len(claims) == 1
        return claims[0]

    async def types(self, store: Store, session: str = "s") -> list[str]:
        """The types of the session's events; their numbers have no gap."""
        log = await store.log(session, 0)
        assert log is not None
        first = log.floor + 1
        assert [event.id for event in log.events] == list(range(first, log.last + 1))
        return [event.type for event in log.events]

    async def status(self, store: Store, n: int, session: str = "s") -> str:
        record = await store.turn(session, n)
        assert record is not None
        return record.status

    # queued -> running -> completed

    async def test_a_turn_passes_from_queued_to_completed(self, store: Store) -> None:
        """submit, claim, append, finish: the history and the log tell the same story."""
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
        assert texts(done.replies) == ["hello"]
        history = await store.history("s")
        assert texts(history.messages) == ["hi", "hello"]
        assert [orjson.loads(m)["seq"] for m in history.messages] == [1, 2]
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
        """With a desk in its outcome, `finish` goes on with the session's next turn."""
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
        """A finished turn's state is what the next claim holds; a failed one's is not kept."""
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
        assert texts(history.messages) == [t for i in range(5) for t in (f"m{i}", "ok")]

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
        assert (done.n, done.status, texts(done.replies)) == (1, "completed", ["hello"])
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
        assert (again.turn.n, again.turn.status, again.turn.message) == (1, "cancelled", None)

    async def test_fifty_at_once_with_one_key(self, store: Store) -> None:
        """Concurrent requests with one key make one turn."""
        await self.made(store)
        wish = Submission("s", question("hi"), key="k", fingerprint="f")
        made = await asyncio.gather(*(store.submit(wish) for _ in range(50)))
        assert sum(submitted.created for submitted in made) == 1
        assert {submitted.turn.n for submitted in made} == {1}

    # The claim

    async def test_a_lapsed_lease_is_taken_over_and_the_old_claim_is_dead(
        self, store: Store
    ) -> None:
        """After the lease another worker goes on with attempt 2; the first can write nothing."""
        await self.made(store)
        await self.say(store, "hi")
        old = await self.claimed(store, desk("w1", lease=1.0))
        assert await store.claim(desk("w2"), 10) == []
        await self.pass_time(store, 1.1)
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
        assert texts((await store.history("s")).messages) == ["hi", "fresh"]

    async def test_a_renewed_lease_holds(self, store: Store) -> None:
        """A claim that is renewed in time is not taken over."""
        await self.made(store)
        await self.say(store, "hi")
        claim = await self.claimed(store, desk(lease=1.0))
        for _ in range(3):
            await self.pass_time(store, 0.6)
            assert not (await store.renew([claim], 1.0)).lost
            assert await store.claim(desk("w2"), 10) == []
        await store.finish(claim, answer("ok"))

    async def test_attempts_are_used_up(self, store: Store) -> None:
        """A turn whose workers die each time fails, and the session goes on."""
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
        assert orjson.loads(failed.error or b"")["code"] == "attempts_exhausted"
        assert (await self.types(store)).count("turn.failed") == 1

    async def test_a_release_does_not_count(self, store: Store) -> None:
        """A turn handed back is claimed again at once, with the same attempt number."""
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
        assert texts((await store.history("s")).messages) == ["hi", "ok"]

    async def test_the_keeper_comes_first_for_a_moment(self, store: Store) -> None:
        """A session that a worker keeps is left to it, and falls to others within a second."""
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
        assert texts((await store.history("s")).messages) == ["one", "ok", "three", "ok"]
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
        """The holder hears of it in three ways, and finishes it as cancelled."""
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
        assert texts(done.replies) == ["partial"]
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
        """Whoever died holding a session does not keep it."""
        await self.made(store)
        held = await store.hold("s", "me", 1.0)
        assert held is not None
        await self.say(store, "hi")
        await self.pass_time(store, 1.1)
        assert (await self.claimed(store)).turn == 1
        with pytest.raises(ClaimLost):
            await store.save(held, b'{"n":7}')

    # Reset, delete, expiry

    async def test_reset_empties_and_numbers_go_on(self, store: Store) -> None:
        """Messages, state, mailbox and log are gone; each open turn has its last event."""
        await self.made(store)
        await self.say(store, "one")
        outcome = answer("1")
        outcome.state = b'{"n":1}'
        await store.finish(await self.claimed(store), outcome)
        await self.say(store, "two")
        claim = await self.claimed(store)
        await self.say(store, "three")
        before = await store.log("s", 0)
        assert before is not None
        session = await store.reset("s")
        assert (session.messages, session.turns, session.status) == (0, 0, "idle")
        assert await store.state("s") == b"{}"
        history = await store.history("s")
        assert (history.messages, history.open) == ([], [])
        log = await store.log("s", before.last)
        assert log is not None
        assert [(e.id - before.last, e.type, e.turn) for e in log.events] == [
            (1, "turn.cancelled", 2),
            (2, "turn.cancelled", 3),
            (3, "session.reset", None),
        ]
        assert log.floor == before.last
        with pytest.raises(ClaimLost):
            await store.finish(claim, answer("stale"))
        _, claim_after = await self.say_and_take(store, "four", desk())
        assert claim_after is not None
        assert (claim_after.turn, list(claim_after.history)) == (4, [])
        assert claim_after.epoch != claim.epoch

    async def test_delete_leaves_nothing(self, store: Store) -> None:
        """The session and all that belongs to it is gone; its neighbour with a longer id is not."""
        await self.made(store, "user1")
        await self.made(store, "user10")
        for name in ("user1", "user10"):
            await self.say(store, "hi", name, key="k", fingerprint="f")
        heard: list[Notice] = []
        unlisten = store.listen(heard.append)
        assert await store.delete("user1")
        assert not await store.delete("user1")
        unlisten()
        assert Signal("gone", "user1") in heard
        assert await store.session("user1") is None
        assert await store.log("user1", 0) is None
        assert await store.turn("user1", 1) is None
        for reading in (store.history("user1"), store.state("user1")):
            with pytest.raises(NotFound):
                await reading
        assert (await store.turn("user10", 1)) is not None
        await self.made(store, "user1")
        assert await self.types(store, "user1") == []

    async def test_expiry_slides_with_each_turn(self, store: Store) -> None:
        """A session lives `ttl` seconds after its last turn, and then is as if never made."""
        await self.made(store, ttl=10.0)
        for _ in range(3):
            await self.pass_time(store, 8.0)
            await self.say(store, "hi")
            await store.finish(await self.claimed(store), answer("ok"))
        await self.pass_time(store, 10.5)
        assert await store.session("s") is None
        with pytest.raises(NotFound):
            await self.say(store, "hi")
        await store.sweep(retention=1000.0)
        assert await store.sessions() == []
        await self.made(store)
        assert await self.types(store) == []

    async def test_a_session_with_open_turns_does_not_expire(self, store: Store) -> None:
        """What was accepted is answered, however short the session's life."""
        await self.made(store, ttl=1.0)
        await self.say(store, "hi")
        await self.pass_time(store, 5.0)
        assert await store.sweep(retention=1000.0) == 0
        await store.finish(await self.claimed(store), answer("ok"))
        assert texts((await store.history("s")).messages) == ["hi", "ok"]

    async def test_a_session_lives_on_after_a_turn_that_was_withdrawn(self, store: Store) -> None:
        """Its life counts from the end of its last turn, however that turn ended."""
        await self.made(store, ttl=60.0)
        await self.say(store, "one")
        await self.pass_time(store, 120.0)
        await store.cancel("s", 1)
        assert await store.session("s") is not None
        await self.say(store, "two")
        await self.claimed(store, desk(lease=1.0, max_attempts=1))
        await self.pass_time(store, 120.0)
        assert await store.claim(desk(max_attempts=1), 10) == []
        assert await self.status(store, 2) == "failed"

    async def test_old_events_are_trimmed_and_never_in_mid_turn(self, store: Store) -> None:
        """The sweep forgets events past their retention, but none of an open turn."""
        await self.made(store)
        await self.say(store, "one")
        await store.finish(await self.claimed(store), answer("1"))
        await self.say(store, "two")
        claim = await self.claimed(store)
        await store.append(claim, [delta(2, 1, "x")])
        await self.pass_time(store, 100.0)
        await store.sweep(retention=50.0)
        log = await store.log("s", 0)
        assert log is not None
        assert log.floor == 4
        assert [event.turn for event in log.events] == [2, 2, 2]
        await store.renew([claim], 30.0)
        assert texts((await store.history("s")).messages) == ["one", "1"]

    # Sessions, tokens, creation on first use

    async def test_create_is_idempotent(self, store: Store) -> None:
        """Making a session that is there returns it as it is."""
        first = await store.create("s", name="a", metadata=b'{"x":1}', ttl=100.0)
        again = await store.create("s", name="b", metadata=b"{}", ttl=5.0)
        assert (again.name, again.metadata, again.ttl) == ("a", {"x": 1}, 100.0)
        assert again.created_at == first.created_at

    async def test_a_session_is_made_on_first_use_if_asked(self, store: Store) -> None:
        """`create` in the submission makes it; without, there is no such session."""
        with pytest.raises(NotFound):
            await self.say(store, "hi")
        record = await self.say(store, "hi", create=True, ttl=100.0)
        assert record.n == 1

    async def test_odd_names_are_names(self, store: Store) -> None:
        """Any text may name a session, and no two texts name the same."""
        names = ["user 42", "a/b", "a:b", "{x}", "*", "[a]", "../../x", "a\x00b", "é", "e\u0301"]
        for name in names:
            await self.made(store, name)
            await self.say(store, name, name)
        for name in names:
            opened = (await store.history(name)).open
            assert [texts([turn.message or b""]) for turn in opened] == [[name]]

    async def test_generations_of_tokens(self, store: Store) -> None:
        """A submission with another generation than the session's is refused."""
        await self.made(store)
        session = await store.session("s")
        assert session is not None
        await self.say(store, "hi", generation=session.generation)
        fresh = await store.rotate("s")
        assert fresh != session.generation
        with pytest.raises(Unauthorized):
            await self.say(store, "hi", generation=session.generation)
        await self.say(store, "hi", generation=fresh)

    async def test_update_changes_what_it_names(self, store: Store) -> None:
        """Name, metadata and ttl change one by one."""
        await self.made(store)
        await store.update("s", {"name": "n"})
        await store.update("s", {"metadata": b'{"a":1}'})
        session = await store.update("s", {"ttl": 7.0})
        assert (session.name, session.metadata, session.ttl) == ("n", {"a": 1}, 7.0)
        with pytest.raises(NotFound):
            await store.update("nobody", {"name": "n"})

    async def test_the_secret_is_made_once(self, store: Store) -> None:
        """Every process signs with the same 32 bytes."""
        first = await store.secret()
        assert len(first) == 32
        assert await store.secret() == first

    # Reading

    async def test_history_by_pages(self, store: Store) -> None:
        """The latest, those before and those after a seq, with word of more."""
        await self.made(store)
        for i in range(5):
            await self.say(store, f"m{i}")
            await store.finish(await self.claimed(store), answer(f"r{i}"))
        latest = await store.history("s", limit=4)
        assert (texts(latest.messages), latest.has_more) == (["m3", "r3", "m4", "r4"], True)
        earlier = await store.history("s", before=7, limit=100)
        assert (len(earlier.messages), earlier.has_more) == (6, False)
        later = await store.history("s", after=8, limit=100)
        assert (texts(later.messages), later.has_more) == (["m4", "r4"], False)

    async def test_following_from_the_histories_cursor(self, store: Store) -> None:
        """In mid-turn the events after the cursor hold the whole answer so far, and no message
        that the history holds already."""
        await self.made(store)
        await self.say(store, "one")
        first = await self.claimed(store)
        await self.say(store, "two")
        outcome = answer("1")
        outcome.next_desk = desk()
        second = await store.finish(first, outcome)
        assert second is not None
        await store.append(second, [delta(2, 1, "par"), delta(2, 1, "tial")])
        history = await store.history("s")
        assert texts(history.messages) == ["one", "1"]
        assert [turn.n for turn in history.open] == [2]
        log = await store.log("s", history.cursor)
        assert log is not None
        assert [event.type for event in log.events] == ["turn.started", "delta", "delta"]

    async def test_turns_by_pages(self, store: Store) -> None:
        """The latest, those before and after a number, and by status."""
        await self.made(store)
        for i in range(4):
            await self.say(store, f"m{i}")
        await store.finish(await self.claimed(store), answer("ok"))

        async def numbers(**more: Any) -> tuple[list[int], bool]:
            asked = {"status": None, "before": None, "after": None, "limit": 10, **more}
            found, has_more = await store.turns("s", **asked)
            return [turn.n for turn in found], has_more

        assert await numbers() == ([1, 2, 3, 4], False)
        assert await numbers(limit=2) == ([3, 4], True)
        assert await numbers(before=3) == ([1, 2], False)
        assert await numbers(after=1, limit=2) == ([2, 3], True)
        assert await numbers(status="completed") == ([1], False)

    async def test_the_log_from_any_cursor(self, store: Store) -> None:
        """From every cursor exactly the events behind it, of all turns or of one."""
        await self.made(store)
        for text in ("one", "two"):
            await self.say(store, text)
            await store.finish(await self.claimed(store), answer("ok"))
        for cursor in range(9):
            log = await store.log("s", cursor)
            assert log is not None
            assert [event.id for event in log.events] == list(range(cursor + 1, 9))
        second = await store.log("s", 0, turn=2)
        assert second is not None
        assert [event.id for event in second.events] == [5, 6, 7, 8]

    async def test_listeners_hear_events_once_and_in_order(self, store: Store) -> None:
        """What is appended in this process is heard as it is committed."""
        heard: list[Notice] = []
        unlisten = store.listen(heard.append)
        await self.made(store)
        await asyncio.gather(*(self.say(store, f"m{i}") for i in range(20)))
        while claims := await store.claim(desk(), 10):
            for claim in claims:
                await store.finish(claim, answer("ok"))
        unlisten()
        numbers = [e.id for n in heard if isinstance(n, Appended) for e in n.events]
        assert numbers == list(range(1, 81))
