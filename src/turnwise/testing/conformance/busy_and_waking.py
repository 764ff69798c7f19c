"""Messages that find a session busy, and the bot that speaks first: at once, or at a time."""

from __future__ import annotations

from typing import Any

import pytest

from turnwise.conversation import Answer, Asked, Message
from turnwise.errors import Busy, KeyReused, QueueFull
from turnwise.stores.base import Store
from turnwise.stores.claim import Outcome
from turnwise.stores.records import FileRecord, Submission
from turnwise.testing.conformance.acting import Acting, answer, desk, texts


def wake(reason: str, session: str = "s", **more: Any) -> Submission:
    return Submission(session, b"", reason=reason, **more)


class BusyAndWakingConformance(Acting):
    """What a message does that is not alone, and turns without a message."""

    # When busy

    async def test_reject_and_interrupt(self, store: Store) -> None:
        """One is refused while a turn is open; the other stops it, and is next."""
        await self.made(store)
        await self.say(store, "one", when_busy="reject")
        claim = await self.claimed(store)
        with pytest.raises(Busy):
            await self.say(store, "no", when_busy="reject")
        await self.say(store, "two")
        await self.say(store, "now", when_busy="interrupt")
        assert [await self.status(store, n) for n in (1, 2, 3)] == [
            "running", "cancelled", "queued",
        ]  # fmt: skip
        outcome = Outcome("cancelled", [Message("so", partial=True).encode()], next_desk=desk())
        following = await store.finish(claim, outcome)
        assert following is not None
        assert following.turn == 3

    async def test_an_interruption_of_a_turn_that_was_begun_knows_it(self, store: Store) -> None:
        """Its message belongs to the history of the next claim, once, and in its place."""
        await self.made(store)
        for text in ("one", "two"):
            await self.exchange(store, text)
        await self.say(store, "dies")
        await self.claimed(store, desk("w2", lease=1.0))
        await self.pass_time(store, 2.0)
        assert await store.claim(desk("w3"), 0) == []
        _, claim = await self.say_and_take(store, "new", desk("w3"), when_busy="interrupt")
        if claim is None:
            await self.pass_time(store, 10.0)
            claim = await self.claimed(store, desk("w3"))
        assert texts(claim.history) == ["one", "ONE", "two", "TWO", "dies"]

    async def test_an_owners_limit_holds_for_edits(self, store: Store) -> None:
        """And does not count what the same act ends or stops."""
        for session in ("s", "t"):
            await store.create(session, ttl=1000.0, owner="ada")
            await self.exchange(store, "one", session=session)
        await self.say(store, "two", owner_limit=1)
        with pytest.raises(QueueFull):
            await self.say(store, "uno", "t", replaces=1, owner_limit=1)
        claim = await self.claimed(store)
        more: Any = {"owner_limit": 1, "when_busy": "interrupt"}
        assert (await self.say(store, "now", **more)).n == 3
        await store.finish(claim, Outcome("cancelled"))
        assert (await self.say(store, "eins", replaces=1, owner_limit=1)).n == 4

    async def test_merged_messages_are_at_most_one_message(self, store: Store) -> None:
        """One that would make it too large waits for a turn of its own."""
        await self.made(store)
        for text in ("a" * 60_000, "b" * 30_000, "c" * 60_000):
            given = Message(text, role="user", answers=[Answer("ask", text[:1])])
            await store.submit(Submission("s", given.encode(), when_busy="merge"))
        claim = await self.claimed(store)
        assert [await self.status(store, n) for n in (1, 2, 3)] == ["running", "merged", "queued"]
        await store.finish(claim, answer("so"))
        assert (await self.claimed(store)).turn == 3

    async def test_merged_turns_keep_their_notes_and_files(self, store: Store) -> None:
        """A fork at the turn that answers them has the files that they named."""
        await self.made(store)
        await self.say(store, "one", when_busy="merge")
        await store.attach("s", FileRecord("f", "a.txt", "text/plain", 5), 100)
        more: Any = {"files": ["f"], "note": b'{"id":"c2"}', "when_busy": "merge"}
        await self.say(store, "two", **more)
        await store.finish(await self.claimed(store), answer("so"))
        record = await store.turn("s", 2)
        assert record is not None
        assert (record.status, record.note) == ("merged", {"id": "c2"})
        await store.fork("s", 1, "fork", None)
        assert list(await store.files("fork") or ()) == ["f"]

    async def test_an_interruption_needs_no_room(self, store: Store) -> None:
        """It makes it: by the limit of the session and by that of the owner."""
        await store.create("s", ttl=1000.0, owner="ada")
        await self.say(store, "one")
        await self.claimed(store)
        for text in ("two", "three"):
            await self.say(store, text)
        more: Any = {"limit": 1, "owner_limit": 3, "when_busy": "interrupt"}
        assert (await self.say(store, "now", **more)).n == 4

    async def test_a_due_timer_survives_an_interruption(self, store: Store) -> None:
        """It rings behind the message; and a session that has only a due timer is not busy."""
        await self.made(store)
        session = await store.session("s")
        assert session is not None
        await store.schedule(wake("pill", key="p", fingerprint="f"), session.created_at + 5.0)
        await self.say(store, "one")
        claim = await self.claimed(store)
        await self.pass_time(store, 10.0)
        await self.say(store, "now", when_busy="interrupt")
        outcome = Outcome("cancelled", next_desk=desk())
        following = await store.finish(claim, outcome)
        assert following is not None
        outcome = answer("NOW")
        outcome.next_desk = desk()
        rung = await store.finish(following, outcome)
        assert rung is not None
        assert rung.reason == "pill"
        await store.finish(rung, answer("Pill!"))
        await store.schedule(wake("tea", key="t", fingerprint="f"), session.created_at + 11.0)
        await self.pass_time(store, 10.0)
        assert (await self.say(store, "hi", when_busy="reject")).n == 5

    async def test_messages_of_one_group_are_one(self, store: Store) -> None:
        """They are merged with each other, and with nobody else's who waits; the first one meets
        the policy like any message, and the others come with it."""
        await self.made(store)
        await self.say(store, "first")
        claim = await self.claimed(store)
        await self.say(store, "another's")
        for group, said in (("a", ("one", "two")), ("b", ("three", "four"))):
            for text in said:
                await self.say(store, text, group=group, settle=0.5)
        with pytest.raises(Busy):
            await self.say(store, "no", group="c", settle=0.5, when_busy="reject")
        heard = []
        for _ in range(3):
            await store.finish(claim, answer("so"))
            await self.pass_time(store, 2.0)
            claim = await self.claimed(store)
            heard.append(Message.decode(claim.message).text)
        assert heard == ["another's", "one\n\ntwo", "three\n\nfour"]
        await self.say(store, "now", group="d", settle=0.5, when_busy="interrupt")
        for text in ("and", "then"):
            await self.say(store, text, group="d", settle=0.5, when_busy="interrupt")
        await store.finish(claim, Outcome("cancelled"))
        await self.pass_time(store, 2.0)
        assert Message.decode((await self.claimed(store)).message).text == "now\n\nand\n\nthen"

    async def test_what_settles_is_over_when_it_is_withdrawn(self, store: Store) -> None:
        """The next message need not wait for those that are no longer there."""
        await self.made(store)
        await self.say(store, "one", when_busy="merge", settle=5.0)
        await store.stop("s")
        _, claim = await self.say_and_take(store, "two", desk())
        assert claim is not None

    async def test_a_merged_turn_shares_the_end(self, store: Store) -> None:
        """It has no reply if the turn that answers it was stopped."""
        await self.made(store)
        for text in ("one", "two"):
            await self.say(store, text, when_busy="merge")
        await store.finish(await self.claimed(store), Outcome("cancelled"))
        record = await store.turn("s", 2)
        assert record is not None
        assert (record.status, record.reply, record.open) == ("merged", None, False)

    async def test_messages_are_merged_when_a_turn_starts(self, store: Store) -> None:
        """Those right behind it that ask for it: one message, their records say where they went."""
        await self.made(store)
        await self.say(store, "busy")
        claim = await self.claimed(store)
        for text in ("one", "two", "three"):
            await self.say(store, text, when_busy="merge")
        await self.say(store, "alone")
        outcome = answer("B")
        outcome.next_desk = desk()
        merged = await store.finish(claim, outcome)
        assert merged is not None
        message = Message.decode(merged.message)
        assert message.text == "one\n\ntwo\n\nthree"
        assert [part["text"] for part in message.parts] == ["one", "two", "three"]
        await store.release(merged)  # another attempt answers the same message
        merged = await self.claimed(store)
        assert Message.decode(merged.message).text == "one\n\ntwo\n\nthree"
        await store.finish(merged, answer("all"))
        record = await store.turn("s", 3)
        assert record is not None
        assert (record.status, record.merged_into) == ("merged", 2)
        assert record.reply is not None
        assert record.reply.text == "all"
        assert await self.shown(store) == ["busy", "B", "one\n\ntwo\n\nthree", "all"]
        assert (await self.claimed(store)).turn == 5

    async def test_a_turn_settles(self, store: Store) -> None:
        """It starts when no message came for that long, at most five seconds after the first."""
        await self.made(store)
        for text in ("one", "two"):
            _, claim = await self.say_and_take(store, text, desk(), when_busy="merge", settle=2.0)
            assert claim is None
            assert await store.claim(desk(), 1) == []
            await self.pass_time(store, 1.0)
        await self.pass_time(store, 1.5)
        claim = await self.claimed(store)
        assert Message.decode(claim.message).text == "one\n\ntwo"

    async def test_a_session_has_its_own_policy(self, store: Store) -> None:
        """It goes before that of the gateway, and behind that of the message."""
        await store.create("s", ttl=1000.0, policy=("reject", 0.0))
        await self.say(store, "one")
        with pytest.raises(Busy):
            await self.say(store, "two")
        assert (await self.say(store, "two", when_busy="queue")).n == 2

    # The bot speaks first

    async def test_a_wake_has_a_reason_and_no_message(self, store: Store) -> None:
        """In order with the others, once for a key; the history has the answer alone."""
        await self.made(store)
        await self.exchange(store, "one")
        wish = wake("tea is ready", key="k", fingerprint="f")
        assert (await store.submit(wish)).turn.reason == "tea is ready"
        assert not (await store.submit(wish)).created
        claim = await self.claimed(store)
        assert (claim.reason, claim.message, texts(claim.history)) == (
            "tea is ready", b"", ["one", "ONE"],
        )  # fmt: skip
        await store.finish(claim, answer("Your tea is ready."))
        assert await self.shown(store) == ["one", "ONE", "Your tea is ready."]
        record = await store.turn("s", 2)
        assert record is not None
        assert (record.reason, record.message) == ("tea is ready", None)
        assert record.reply is not None
        assert record.reply.messages[0].seq == 3
        await self.exchange(store, "thanks")
        assert (await store.history("s")).messages[-1].seq == 5

    async def test_what_is_given_is_said_without_a_worker(self, store: Store) -> None:
        """At once while the session is idle; behind the running turn otherwise."""
        await self.made(store)
        given = Submission("s", b"", given=[Message("news").encode()])
        await store.submit(given)
        assert await self.shown(store) == ["news"]
        await self.say(store, "one")
        claim = await self.claimed(store)
        given = Submission("s", b"", given=[Message("more").encode(), Message("and").encode()])
        await store.submit(given)
        await self.say(store, "two")
        outcome = answer("ONE")
        outcome.next_desk = desk()
        following = await store.finish(claim, outcome)
        assert following is not None
        assert (following.turn, texts(following.history)[-3:]) == (4, ["ONE", "more", "and"])
        await store.finish(following, answer("TWO"))
        assert await self.shown(store) == ["news", "one", "ONE", "more", "and", "two", "TWO"]

    async def test_what_was_streamed_of_it_is_trimmed(self, store: Store) -> None:
        """Retention removes its deltas as it does others'."""
        await self.made(store)
        await store.submit(Submission("s", b"", given=[Message("news").encode()]))
        await self.pass_time(store, 100.0)
        await store.sweep(retention=10.0)
        log = await store.log("s", 0)
        assert log is not None
        assert log.floor > 0
        assert await self.shown(store) == ["news"]

    async def test_neither_closes_an_ask(self, store: Store) -> None:
        """An open question outlives what the bot says by itself."""
        await self.made(store)
        asking = Message("may I?", ask=Asked("q")).encode()
        await store.submit(Submission("s", b"", given=[asking]))
        await store.submit(Submission("s", b"", given=[Message("news").encode()]))
        assert (await store.history("s")).asks == ["q"]

    async def test_a_timer_fires_once_in_order(self, store: Store) -> None:
        """Not before its time, whoever comes first then: a worker, or a message."""
        await self.made(store)
        session = await store.session("s")
        assert session is not None
        due = session.created_at + 10.0
        timer = await store.schedule(wake("tea", key="k", fingerprint="f"), due)
        assert timer is not None
        again = await store.schedule(wake("tea", key="k", fingerprint="f"), due)
        assert again == timer
        with pytest.raises(KeyReused):
            await store.schedule(wake("tea", key="k", fingerprint="other"), due)
        await store.schedule(wake("coffee", key="c", fingerprint="f"), due + 5.0)
        assert [one.key for one in await store.timers("s")] == ["k", "c"]
        assert await store.claim(desk(), 1) == []
        await self.pass_time(store, 11.0)
        claim = await self.claimed(store)
        assert claim.reason == "tea"
        await store.finish(claim, answer("Tea!"))
        assert await store.schedule(wake("tea", key="k", fingerprint="f"), due) is None
        assert await store.claim(desk(), 1) == []
        await self.pass_time(store, 5.0)
        late = await self.say(store, "hello")
        assert late.n == 3
        claim = await self.claimed(store)
        assert (claim.turn, claim.reason) == (2, "coffee")
        assert await store.timers("s") == []

    async def test_a_timer_is_taken_back_and_keeps_its_session(self, store: Store) -> None:
        """The session lives until its ttl after the last timer; a reset leaves none."""
        await self.made(store, ttl=20.0)
        session = await store.session("s")
        assert session is not None
        await store.schedule(wake("a", key="a", fingerprint="f"), session.created_at + 100.0)
        await store.schedule(wake("b", key="b", fingerprint="f"), session.created_at + 50.0)
        assert await store.unschedule("s", "b")
        assert not await store.unschedule("s", "b")
        await self.pass_time(store, 60.0)
        assert await store.claim(desk(), 1) == []
        await self.pass_time(store, 50.0)
        assert (await self.claimed(store)).reason == "a"
        await store.reset("s")
        await store.schedule(wake("c", key="c", fingerprint="f"), session.created_at + 1e4)
        await store.reset("s")
        assert await store.timers("s") == []

    async def test_a_session_begins_with_a_history(self, store: Store) -> None:
        """Questions and answers as given; what follows continues it."""
        given = [
            Message("Hello!", role="assistant"), Message("one", role="user"), Message("ONE"),
        ]  # fmt: skip
        await store.create("s", ttl=1000.0, messages=[message.encode() for message in given])
        assert await self.shown(store) == ["Hello!", "one", "ONE"]
        claim = await self.exchange(store, "two")
        assert texts(claim.history) == ["Hello!", "one", "ONE"]
        assert [m.seq for m in (await store.history("s")).messages] == [1, 2, 3, 4, 5]

    async def test_a_name_that_a_person_gave_stays(self, store: Store) -> None:
        """The bot names a session that nobody has named; afterwards only a person does."""
        await self.made(store)
        await self.say(store, "one")
        outcome = answer("ONE")
        outcome.name = "By the bot"
        await store.finish(await self.claimed(store), outcome)
        found = await store.session("s")
        assert found is not None
        assert found.name == "By the bot"
        await store.update("s", {"name": "Mine"})
        await self.say(store, "two")
        outcome = answer("TWO")
        outcome.name = "By the bot"
        await store.finish(await self.claimed(store), outcome)
        found = await store.session("s")
        assert found is not None
        assert found.name == "Mine"
        assert (await self.types(store)).count("session.changed") == 2
