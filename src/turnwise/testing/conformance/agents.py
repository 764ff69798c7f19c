"""What an agent needs of a store: its memory, its asks, and what a dead attempt leaves."""

from __future__ import annotations

import orjson
import pytest

from turnwise.conversation import Answer, Ask, Attachment, Message
from turnwise.conversation.events import ASK, ASK_CLOSED, STEP, Draft, draft
from turnwise.errors import AskClosed, ClaimLost, Invalid, MemoryFull
from turnwise.stores.base import Store
from turnwise.stores.claim import UNENDED, Outcome
from turnwise.stores.records import Submission
from turnwise.testing.conformance.acting import Acting, answer, delta, desk, started, texts


def step(turn: int, attempt: int, status: str) -> Draft:
    told = {"id": "s", "kind": "tool", "name": "look", "status": status}
    return draft(STEP, turn, 0.0, attempt=attempt, step=told)


class AgentConformance(Acting):
    """Memory, asks, steps."""

    # Memory

    async def test_memory_is_kept_at_once_and_stays(self, store: Store) -> None:
        """In order, whatever becomes of the turn; numbers go on after a reset."""
        await self.made(store)
        await self.say(store, "hi")
        claim = await self.claimed(store)
        assert await store.remember(claim, [b"1", b"2"], 1000) == 2
        assert await store.remember(claim, [b"3"], 1000) == 3
        await store.finish(claim, Outcome("failed", error={"code": "x", "message": "x"}))
        assert [(one.n, one.turn, one.body) for one in await store.memory("s")] == [
            (1, 1, b"1"), (2, 1, b"2"), (3, 1, b"3"),
        ]  # fmt: skip
        assert [one.n for one in await store.memory("s", limit=2)] == [2, 3]
        assert [one.n for one in await store.memory("s", after=2)] == [3]
        assert await self.types(store) == ["turn.queued", "turn.started", "turn.failed"]
        await store.reset("s")
        assert await store.memory("s") == []
        await self.say(store, "again")
        claim = await self.claimed(store)
        assert claim.memory == claim.base_memory == 3
        assert await store.remember(claim, [b"4"], 1000) == 4

    async def test_a_claim_tells_how_far_the_memory_goes(self, store: Store) -> None:
        """So a worker knows whether what it holds is all; forgotten entries are gone."""
        await self.made(store)
        await self.say(store, "hi")
        claim = await self.claimed(store)
        await store.remember(claim, [b"%d" % i for i in range(1, 8)], 1000)
        assert await store.forget_memory(claim, 5) == 4
        assert await store.forget_memory(claim, 3) == 4
        await store.finish(claim, answer("ok"))
        await self.say(store, "more")
        claim = await self.claimed(store)
        assert (claim.memory, claim.base_memory) == (7, 4)
        assert [one.n for one in await store.memory("s")] == [5, 6, 7]
        assert await store.forget_memory(claim, 99) == 7
        assert await store.memory("s") == []

    async def test_memory_is_bounded(self, store: Store) -> None:
        """What would not fit is refused whole; what is forgotten counts no more."""
        await self.made(store)
        await self.say(store, "hi")
        claim = await self.claimed(store)
        await store.remember(claim, [b"12345", b"678"], 10)
        with pytest.raises(MemoryFull):
            await store.remember(claim, [b"1", b"23"], 10)
        await store.forget_memory(claim, 2)
        assert await store.remember(claim, [b"1234567"], 10) == 3
        with pytest.raises(MemoryFull):
            await store.remember(claim, [b"1"], 10)

    async def test_only_the_claim_writes_the_memory(self, store: Store) -> None:
        """A worker that has lost it neither adds nor forgets."""
        await self.made(store)
        await self.say(store, "hi")
        old = await self.claimed(store, desk(lease=1.0))
        await store.remember(old, [b"1"], 1000)
        await self.pass_time(store, 1.1)
        new = await self.claimed(store, desk("w2"))
        for act in (store.remember(old, [b"2"], 1000), store.forget_memory(old, 9)):
            with pytest.raises(ClaimLost):
                await act
        assert [one.body for one in await store.memory("s")] == [b"1"]
        assert (new.memory, new.attempt) == (1, 2)

    async def test_an_addition_that_was_given_up_is_done_once(self, store: Store) -> None:
        """The same operation again, after its answer was lost."""
        await self.made(store)
        await self.say(store, "hi")
        claim = await self.claimed(store)
        for again in (False, True, True):
            last = await store.remember(claim, [b"1", b"2"], 1000, operation="op-1", again=again)
            assert last == 2
        assert await store.remember(claim, [b"3"], 1000, operation="op-2", again=True) == 3
        assert len(await store.memory("s")) == 3

    # What a dead attempt leaves

    async def test_what_was_said_is_kept_when_attempts_are_used_up(self, store: Store) -> None:
        """As partial messages, with the ids of `message.started`; only of the last attempt. Its
        steps have failed."""
        await self.made(store)
        await self.say(store, "hi")
        for attempt, word in ((1, "first"), (2, "second")):
            claim = await self.claimed(store, desk(f"w{attempt}", lease=1.0, max_attempts=2))
            photo = Attachment("image", f"http://x/{word}")
            parts = [started(1, attempt, f"m{attempt}", photo), delta(1, attempt, word)]
            await store.append(claim, [*parts, step(1, attempt, "running")])
            await store.append(claim, [delta(1, attempt, " half")])
            await self.pass_time(store, 1.1)
        assert await store.claim(desk(max_attempts=2), 10) == []
        record = await store.turn("s", 1)
        assert record is not None
        assert record.status == "failed"
        (said,) = [orjson.loads(reply) for reply in record.replies_json]
        assert (said["id"], said["text"], said["partial"]) == ("m2", "second half", True)
        assert [one["url"] for one in said["attachments"]] == ["http://x/second"]
        assert [(one.status, one.error and one.error.code) for one in record.steps] == [
            ("failed", "interrupted")
        ]
        history = await store.history("s")
        assert texts(history.messages_json) == ["hi", "second half"]
        assert (await self.types(store))[-3:] == ["message.ended", "message", "turn.failed"]

    async def test_what_a_stopped_turn_said_is_kept_when_its_worker_dies(
        self, store: Store
    ) -> None:
        """It ends as cancelled, with what the log holds of it."""
        await self.made(store)
        await self.say(store, "hi")
        claim = await self.claimed(store, desk(lease=1.0))
        await store.append(claim, [started(1, 1), delta(1, 1, "half")])
        await store.cancel("s", 1)
        await self.pass_time(store, 1.1)
        assert await store.claim(desk(), 10) == []
        record = await store.turn("s", 1)
        assert record is not None
        assert (record.status, texts(record.replies_json)) == ("cancelled", ["half"])

    # Asks

    async def asked(self, store: Store, n: int = 1) -> str:
        """A turn that ends with an ask; returns the ask's id."""
        await self.say(store, f"question {n}")
        claim = await self.claimed(store)
        ask = Ask("sure?", choices=["yes", "no"])
        assert ask.ask is not None
        outcome = Outcome("completed", [ask.encode()], asks=[(0, ask.ask.id)], told=UNENDED)
        await store.append(claim, [started(claim.turn, 1, ask.id), delta(claim.turn, 1, "sure?")])
        await store.finish(claim, outcome)
        return ask.ask.id

    async def answered(self, store: Store, ask: str, value: str, **more: str) -> int:
        answers = [Answer(ask, value)]
        message = Message(role="user", answers=answers).encode()
        submitted = await store.submit(Submission("s", message, answers=answers, **more))  # type: ignore[arg-type]
        return submitted.turn.n

    async def test_an_ask_takes_one_answer(self, store: Store) -> None:
        """One of its choices; it opens and closes with events; the same key is the same turn."""
        await self.made(store)
        ask = await self.asked(store)
        assert list((await store.history("s")).asks) == [ask]
        with pytest.raises(Invalid):
            await self.answered(store, ask, "perhaps")
        assert await self.answered(store, ask, "yes", key="k", fingerprint="f") == 2
        assert await self.answered(store, ask, "yes", key="k", fingerprint="f") == 2
        with pytest.raises(AskClosed):
            await self.answered(store, ask, "yes")
        log = await store.log("s", 0)
        assert log is not None
        told = [event.json() for event in log.events if event.type in (ASK, ASK_CLOSED)]
        assert [(one["type"], one["ask"]["id"]) for one in told] == [(ASK, ask), (ASK_CLOSED, ask)]
        (claim,) = await store.claim(desk(), 5)
        assert Message.decode(claim.message).answers == [Answer(ask, "yes")]
        record = await store.turn("s", 2)
        assert record is not None
        assert record.first_event == log.last - 1

    async def test_a_later_message_closes_an_ask_and_an_earlier_one_does_not(
        self, store: Store
    ) -> None:
        """What was accepted before the commit neither answers nor closes it."""
        await self.made(store)
        await self.say(store, "question 1")
        claim = await self.claimed(store)
        await self.say(store, "yes")
        ask = Ask("sure?")
        assert ask.ask is not None
        outcome = Outcome("completed", [ask.encode()], asks=[(0, ask.ask.id)])
        outcome.next_desk = desk()
        following = await store.finish(claim, outcome)
        assert following is not None
        assert list((await store.history("s")).asks) == [ask.ask.id]
        await self.say(store, "something else")
        assert list((await store.history("s")).asks) == []
        with pytest.raises(AskClosed):
            await self.answered(store, ask.ask.id, "yes")

    async def test_open_asks_are_bounded(self, store: Store) -> None:
        """Beyond 100 the oldest are closed, with an event for each."""
        await self.made(store)
        asks = [Ask(str(i), choices=["yes"]) for i in range(110)]
        for start in range(0, 110, 20):
            some = asks[start : start + 20]
            await self.say(store, "go") if start == 0 else await self.answered(
                store, asks[start - 1].ask.id, "yes"
            )
            claim = await self.claimed(store)
            outcome = Outcome(
                "completed",
                [ask.encode() for ask in some],
                asks=[(i, ask.ask.id) for i, ask in enumerate(some)],
            )
            await store.finish(claim, outcome)
        # Five were answered, so 105 would be open.
        answered = {asks[start - 1].ask.id for start in range(20, 110, 20)}
        waiting = [ask.ask.id for ask in asks if ask.ask.id not in answered]
        assert list((await store.history("s")).asks) == waiting[-100:]
        log = await store.log("s", 0)
        assert log is not None
        assert [event.id for event in log.events] == list(range(1, log.last + 1))
        closed = [event.json() for event in log.events if event.type == ASK_CLOSED]
        assert [one["ask"]["id"] for one in closed if one["why"] == "limit"] == waiting[:5]
        with pytest.raises(AskClosed):
            await self.answered(store, waiting[0], "yes")

    async def test_a_reset_closes_asks(self, store: Store) -> None:
        """And the log has an event for each."""
        await self.made(store)
        first = await self.asked(store)
        await store.reset("s")
        with pytest.raises(AskClosed):
            await self.answered(store, first, "yes")
        log = await store.log("s", 0)
        assert log is not None
        assert [event.type for event in log.events][-2:] == [ASK_CLOSED, "session.reset"]

    async def test_an_end_names_those_that_wait(self, store: Store) -> None:
        """In order, so that every position can be read from it."""
        await self.made(store)
        for i in range(4):
            await self.say(store, str(i))
        claim = await self.claimed(store)
        await store.cancel("s", 3)
        await store.finish(claim, answer("ok"))
        log = await store.log("s", 0)
        assert log is not None
        ends = [e.json() for e in log.events if e.type in ("turn.completed", "turn.cancelled")]
        assert [one["waiting"] for one in ends] == [[2, 4], [2, 4]]

    async def test_a_session_moves_with_memory_and_asks(self, store: Store) -> None:
        """All of it, in order; the memory goes on where it was."""
        await self.made(store)
        await self.say(store, "hi")
        claim = await self.claimed(store)
        await store.remember(claim, [b"1", b"2", b"3"], 1000)
        await store.forget_memory(claim, 2)
        await store.finish(claim, answer("ok"))
        ask = await self.asked(store, 2)
        whole = await store.whole("s")
        assert whole is not None
        await store.delete("s")
        assert await store.put(whole)
        assert [(one.n, one.body) for one in await store.memory("s")] == [(2, b"2"), (3, b"3")]
        assert await self.answered(store, ask, "yes") == 3
        claim = await self.claimed(store)
        assert await store.remember(claim, [b"4"], 1000) == 4
