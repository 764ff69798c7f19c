"""People: owners, taking back, messages that find a session busy, timers, what the bot begins."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from turnwise.conversation import Answer, Asked, Message
from turnwise.errors import (
    AskClosed,
    Busy,
    ClaimLost,
    KeyReused,
    NotFound,
    NotQueued,
    OwnerSet,
    QueueFull,
    Superseded,
    TooFarBack,
)
from turnwise.stores.base import Store, Submission
from turnwise.stores.claim import Claim, Outcome
from turnwise.testing.conformance.acting import Acting, answer, delta, desk, question, texts


def wake(reason: str, session: str = "s", **more: Any) -> Submission:
    return Submission(session, b"", reason=reason, **more)


class PeopleConformance(Acting):
    """What people expect of their conversations."""

    async def exchange(
        self, store: Store, text: str, state: bytes | None = None, **more: Any
    ) -> Claim:
        """A message and its answer, which is the message in capitals."""
        await self.say(store, text, **more)
        claim = await self.claimed(store)
        outcome = answer(text.upper())
        outcome.state = state
        await store.finish(claim, outcome)
        return claim

    async def shown(
        self, store: Store, session: str = "s", *, superseded: bool = False
    ) -> list[str]:
        history = await store.history(session, superseded=superseded)
        return texts(history.messages_json)

    # Owners

    async def test_an_owner_lists_the_last_used_first(self, store: Store) -> None:
        """By pages, without gaps, and without other owners' sessions and those in no list."""
        for name in ("a", "b", "c", "d"):
            await store.create(name, ttl=1000.0, owner="ada")
            await self.pass_time(store, 1.0)
        await store.create("other", ttl=1000.0, owner="bob")
        await store.create("guest", ttl=1000.0)
        await store.create("hidden", ttl=1000.0, owner="ada", unlisted=True)
        await self.say(store, "hi", session="b")
        page = await store.owned("ada", before=None, limit=2)
        assert [session.id for session in page] == ["b", "d"]
        last = page[-1]
        assert last.used_at is not None
        page = await store.owned("ada", before=(last.used_at, last.id), limit=5)
        assert [session.id for session in page] == ["c", "a"]
        await store.delete("d")
        assert [s.id for s in await store.owned("ada", before=None, limit=9)] == ["b", "c", "a"]

    async def test_an_owner_is_set_once(self, store: Store) -> None:
        """A guest's session gets an owner, who then has it in the list; another never gets it."""
        await self.made(store)
        assert (await store.own("s", "ada")).owner == "ada"
        assert (await store.own("s", "ada")).owner == "ada"
        with pytest.raises(OwnerSet):
            await store.own("s", "bob")
        assert [session.id for session in await store.owned("ada", before=None, limit=9)] == ["s"]
        assert await store.owned("bob", before=None, limit=9) == []

    async def test_nobody_writes_into_anothers_session(self, store: Store) -> None:
        """A submission for another owner, or a creation, finds no session."""
        await store.create("s", ttl=1000.0, owner="ada")
        with pytest.raises(NotFound):
            await store.submit(Submission("s", question("hi"), owner="bob"))
        with pytest.raises(NotFound):
            await store.create("s", ttl=1000.0, owner="bob")
        assert (await store.submit(Submission("s", question("hi"), owner="ada"))).turn.n == 1

    async def test_what_is_private_reaches_only_the_bot(self, store: Store) -> None:
        """It is kept beside the metadata, and both come with the claim."""
        await store.create("s", ttl=1000.0, metadata=b'{"a":1}', private=b'{"plan":"free"}')
        await store.update("s", {"private": b'{"plan":"pro"}'})
        await self.say(store, "hi")
        claim = await self.claimed(store)
        assert (claim.metadata, claim.private) == (b'{"a":1}', b'{"plan":"pro"}')
        found = await store.session("s")
        assert found is not None
        assert found.private == {"plan": "pro"}
        assert "private" not in found.as_dict()

    async def test_owners_are_served_in_turns(self, store: Store) -> None:
        """One owner's hundred sessions do not delay another's; one without an owner is a unit."""
        for i in range(6):
            await store.create(f"flood{i}", ttl=1000.0, owner="flood")
            await self.say(store, "hi", session=f"flood{i}")
        for name, owner in (("x", "ada"), ("y", "bob"), ("z", None)):
            await store.create(name, ttl=1000.0, owner=owner)
            await self.say(store, "hi", session=name)
        order: list[str] = []
        while claims := await store.claim(desk(), 2):
            order += [claim.session for claim in claims]
        assert set(order[:4]) >= {"x", "y", "z"}
        assert len(order) == 9

    async def test_a_returning_owner_waits_behind_the_others(self, store: Store) -> None:
        """An owner who was served and comes again stands behind those who have waited."""
        for name, owner in (("a1", "ada"), ("b1", "bob"), ("c1", "cyd")):
            await store.create(name, ttl=1000.0, owner=owner)
            await self.say(store, "hi", session=name)
            await self.pass_time(store, 1.0)
        (first,) = await store.claim(desk(), 1)
        await store.create("again", ttl=1000.0, owner={"a": "ada", "b": "bob", "c": "cyd"}[
            first.session[0]
        ])  # fmt: skip
        await self.say(store, "hi", session="again")
        order = [claim.session for _ in range(3) for claim in await store.claim(desk(), 1)]
        assert order[-1] == "again"

    async def test_an_owners_running_turns_are_limited(self, store: Store) -> None:
        """Over all sessions of the owner; the others go on, and the next starts when one ends."""
        limited = desk()._replace(owner_limit=2)
        for i in range(4):
            await store.create(f"f{i}", ttl=1000.0, owner="flood")
            await self.say(store, "hi", session=f"f{i}")
        await store.create("x", ttl=1000.0, owner="ada")
        await self.say(store, "hi", session="x")
        claims = await store.claim(limited, 9)
        claims += await store.claim(limited, 9)
        assert sorted(claim.session[0] for claim in claims) == ["f", "f", "x"]
        assert await store.claim(limited, 9) == []
        running = next(claim for claim in claims if claim.session != "x")
        await store.finish(running, answer("done"))
        assert len(await store.claim(limited, 9)) == 1

    async def test_what_was_due_takes_its_place(self, store: Store) -> None:
        """Sessions that settle stand in line like others when their time has come, and those of an
        owner of whose turns enough are running hold up nobody."""
        limited = desk()._replace(owner_limit=1)
        for i in range(4):
            await store.create(f"a{i}", ttl=1000.0, owner="ada")
        await self.say(store, "hi", session="a0")
        assert len(await store.claim(limited, 1)) == 1
        for i in (1, 2, 3):
            await self.say(store, "hi", session=f"a{i}", when_busy="merge", settle=2.0)
        await store.create("b", ttl=1000.0, owner="bob")
        await self.say(store, "hi", session="b")
        await self.pass_time(store, 3.0)
        assert [claim.session for claim in await store.claim(limited, 2)] == ["b"]
        await store.create("c", ttl=1000.0)
        await self.say(store, "hi", session="c")
        order = [claim.session for _ in range(4) for claim in await store.claim(desk(), 1)]
        assert "c" in order[:2]

    async def test_an_owners_open_turns_are_limited(self, store: Store) -> None:
        """Over all sessions of the owner, with the time to wait."""
        for name in ("a", "b"):
            await store.create(name, ttl=1000.0, owner="ada")
        await self.say(store, "1", session="a", owner_limit=2)
        await self.say(store, "2", session="b", owner_limit=2)
        with pytest.raises(QueueFull) as refused:
            await self.say(store, "3", session="b", owner_limit=2)
        assert 1.0 <= refused.value.retry_after <= 60.0

    # Taking back

    async def test_an_edit_takes_back_what_was_behind(self, store: Store) -> None:
        """History, state and numbers: what was cut is left out, and there when it is asked for."""
        await self.made(store)
        await self.exchange(store, "one", b'{"n":1}')
        await self.exchange(store, "two", b'{"n":2}')
        await self.exchange(store, "three")
        again = await self.say(store, "zwei", replaces=2)
        assert again.n == 4
        claim = await self.claimed(store)
        assert claim.state == b'{"n":1}'
        assert texts(claim.history) == ["one", "ONE"]
        await store.finish(claim, answer("ZWEI"))
        assert await self.shown(store) == ["one", "ONE", "zwei", "ZWEI"]
        every = ["one", "ONE", "two", "TWO", "three", "THREE", "zwei", "ZWEI"]
        assert await self.shown(store, superseded=True) == every
        turns, _ = await store.turns("s", status=None, before=None, after=None, limit=9)
        assert [turn.n for turn in turns] == [1, 4]
        turns, _ = await store.turns(
            "s", status=None, before=None, after=None, limit=9, superseded=True
        )
        assert [(turn.n, turn.superseded) for turn in turns] == [
            (1, False), (2, True), (3, True), (4, False),
        ]  # fmt: skip
        assert await store.state("s") == b'{"n":1}'
        session = await store.session("s")
        assert session is not None
        assert (session.turns, session.messages) == (2, 4)
        log = await store.log("s", 0)
        assert log is not None
        (cut,) = [event.json() for event in log.events if event.type == "history.cut"]
        assert (cut["after"], cut["turns"]) == (2, [2, 3])

    async def test_of_two_edits_one_wins(self, store: Store) -> None:
        """A turn that was taken back, waits, or does not exist cannot be taken back."""
        await self.made(store)
        await self.exchange(store, "one")
        await self.say(store, "uno", replaces=1)
        for n in (1, 2, 7):
            with pytest.raises(Superseded):
                await self.say(store, "eins", replaces=n)

    async def test_a_running_turn_is_taken_back(self, store: Store) -> None:
        """It is cancelled with what it had said, and those that waited behind it are withdrawn."""
        await self.made(store)
        await self.say(store, "one")
        claim = await self.claimed(store)
        await store.append(claim, [delta(1, 1, "x")])
        await self.say(store, "two")
        submitted = await self.say(store, "uno", replaces=1)
        assert submitted.n == 3
        assert [await self.status(store, n) for n in (1, 2, 3)] == [
            "cancelled", "cancelled", "queued",
        ]  # fmt: skip
        claim = await self.claimed(store)
        assert (claim.turn, texts(claim.history)) == (3, [])

    async def test_a_merged_turn_is_taken_back_with_the_one_that_answers(
        self, store: Store
    ) -> None:
        """By itself it is no longer there."""
        await self.made(store)
        for text in ("one", "two"):
            await self.say(store, text, when_busy="merge")
        await store.finish(await self.claimed(store), answer("both"))
        with pytest.raises(Superseded):
            await self.say(store, "zwei", replaces=2)
        await self.say(store, "eins", replaces=1)
        assert await self.shown(store) == []

    async def test_who_holds_the_session_loses_it_to_a_cut(self, store: Store) -> None:
        """What was taken before the cut is not written behind it."""
        await self.made(store)
        await self.exchange(store, "one", b'{"n":1}')
        await self.exchange(store, "two", b'{"n":2}')
        held = await store.hold("s", "me", 30.0)
        assert held is not None
        await self.say(store, "zwei", replaces=2)
        with pytest.raises(ClaimLost):
            await store.save(held, b'{"n":3}')
        assert (await self.claimed(store)).state == b'{"n":1}'

    async def test_a_withdrawn_turn_is_taken_back(self, store: Store) -> None:
        """Those that are still open before it go on."""
        await self.made(store)
        for text in ("one", "two", "three"):
            await self.say(store, text)
        claim = await self.claimed(store)
        await store.cancel("s", 3)
        assert (await self.say(store, "drei", replaces=3)).n == 4
        outcome = answer("ONE")
        outcome.next_desk = desk()
        following = await store.finish(claim, outcome)
        assert following is not None
        await store.finish(following, answer("TWO"))
        await store.finish(await self.claimed(store), answer("DREI"))
        assert await self.shown(store) == ["one", "ONE", "two", "TWO", "drei", "DREI"]
        assert (await self.say(store, "DREI", replaces=4)).n == 5
        assert await self.shown(store) == ["one", "ONE", "two", "TWO"]

    async def test_again_submits_the_same_message(self, store: Store) -> None:
        """The same message, with its id, is answered anew."""
        await self.made(store)
        await self.exchange(store, "one")
        before = (await store.history("s")).messages[0]
        submitted = await store.submit(Submission("s", b"", replaces=1, again=True))
        assert submitted.turn.message is not None
        assert submitted.turn.message.id == before.id
        claim = await self.claimed(store)
        await store.finish(claim, answer("better"))
        assert await self.shown(store) == ["one", "better"]

    async def test_memory_and_asks_go_back(self, store: Store) -> None:
        """The bot forgets what it had learned since, and an ask that was answered is open again."""
        await self.made(store)
        await self.say(store, "one")
        claim = await self.claimed(store)
        await store.remember(claim, [b"1"], 1000)
        outcome = Outcome(
            "completed", [Message("may I?", ask=Asked("q")).encode()], asks=[(0, "q")]
        )
        await store.finish(claim, outcome)
        await self.say(store, "yes", answers=[Answer("q", "yes")])
        claim = await self.claimed(store)
        await store.remember(claim, [b"2", b"3"], 1000)
        await store.finish(claim, answer("done"))
        await self.say(store, "no", replaces=2, answers=[Answer("q", "no")])
        claim = await self.claimed(store)
        assert [one.body for one in await store.memory("s")] == [b"1"]
        last = await store.remember(claim, [b"4"], 1000)
        assert [one.body for one in await store.memory("s", limit=2)] == [b"1", b"4"]
        await store.finish(claim, answer("ok"))
        with pytest.raises(AskClosed):
            await self.say(store, "yes", answers=[Answer("q", "yes")])
        await self.say(store, "more")
        claim = await self.claimed(store)
        assert (claim.memory, claim.base_memory) == (last, 0)

    async def test_a_state_that_is_gone_is_too_far_back(self, store: Store) -> None:
        """Nothing is changed; a session without a state goes back as far as one likes."""
        await self.made(store)
        for i in range(53):
            await self.exchange(store, f"m{i}", b'{"n":%d}' % i)
        with pytest.raises(TooFarBack):
            await self.say(store, "x", replaces=2)
        assert (await store.history("s", limit=1)).messages[0].text == "M52"
        assert (await self.say(store, "x", replaces=10)).n == 54
        assert await store.state("s") == b'{"n":8}'

    async def test_a_fork_has_everything_up_to_a_turn(self, store: Store) -> None:
        """History, state and memory; from then on both go their own ways."""
        await store.create("s", ttl=1000.0, owner="ada", name="Trip", metadata=b'{"a":1}')
        await self.exchange(store, "one", b'{"n":1}')
        claim = await self.exchange(store, "zwei", b'{"n":2}')
        await self.say(store, "two", replaces=claim.turn)
        claim = await self.claimed(store)
        await store.remember(claim, [b"7"], 1000)
        outcome = answer("TWO")
        outcome.state = b'{"n":3}'
        await store.finish(claim, outcome)
        await self.exchange(store, "three", b'{"n":4}')
        made = await store.fork("s", 3, "f", None)
        assert (made.id, made.owner, made.name, made.metadata) == ("f", "ada", "Trip", {"a": 1})
        assert await self.shown(store, "f") == ["one", "ONE", "two", "TWO"]
        assert await store.state("f") == b'{"n":3}'
        assert [one.body for one in await store.memory("f")] == [b"7"]
        await self.say(store, "drei", session="f")
        claim = await self.claimed(store)
        assert (claim.turn, claim.state) == (4, b'{"n":3}')
        assert texts(claim.history) == ["one", "ONE", "two", "TWO"]
        await store.finish(claim, answer("DREI"))
        assert (await self.shown(store, "f"))[-2:] == ["drei", "DREI"]
        assert (await self.shown(store))[-2:] == ["three", "THREE"]
        assert (await self.say(store, "uno", session="f", replaces=1)).n == 5
        with pytest.raises(Superseded):
            await store.fork("s", 2, "g", None)

    async def test_a_fork_behind_a_cut_goes_on(self, store: Store) -> None:
        """What is said in it is not taken for what was taken back, and its memory has room."""
        await self.made(store)
        await self.exchange(store, "one")
        await self.say(store, "two")
        claim = await self.claimed(store)
        await store.remember(claim, [b"1" * 900], 1000)
        await store.finish(claim, answer("TWO"))
        await self.say(store, "zwei", replaces=2)
        await store.cancel("s", 3)
        await store.fork("s", None, "f", None)
        await self.say(store, "three", session="f")
        claim = await self.claimed(store)
        await store.remember(claim, [b"1" * 900], 1000)
        await store.finish(claim, answer("THREE"))
        assert await self.shown(store, "f") == ["one", "ONE", "three", "THREE"]

    async def test_a_queued_message_is_changed(self, store: Store) -> None:
        """While it waits; its key still finds it, and what is answered is the new text."""
        await self.made(store)
        await self.say(store, "one")
        await self.say(store, "two", key="k", fingerprint="f")
        claim = await self.claimed(store)
        changed = await store.change("s", 2, "zwei")
        assert (changed.message and changed.message.text, changed.status) == ("zwei", "queued")
        with pytest.raises(NotQueued):
            await store.change("s", 1, "uno")
        outcome = answer("ONE")
        outcome.next_desk = desk()
        following = await store.finish(claim, outcome)
        assert following is not None
        assert Message.decode(following.message).text == "zwei"
        await store.finish(following, answer("ZWEI"))
        found = await store.turn_by_key("s", "k")
        assert found is not None
        assert found.n == 2
        assert await self.shown(store) == ["one", "ONE", "zwei", "ZWEI"]
        assert "turn.changed" in await self.types(store)

    async def test_stop_ends_everything(self, store: Store) -> None:
        """The running turn is asked to stop, and those that wait are withdrawn."""
        await self.made(store)
        await self.say(store, "one")
        claim = await self.claimed(store)
        await self.say(store, "two")
        await self.say(store, "three")
        records = await store.stop("s")
        assert [(r.n, r.status) for r in records] == [
            (1, "running"), (2, "cancelled"), (3, "cancelled"),
        ]  # fmt: skip
        assert await store.append(claim, [delta(1, 1, "x")])
        await store.finish(claim, Outcome("cancelled"))
        assert await store.stop("s") == []

    async def test_feedback_is_kept_with_its_message(self, store: Store) -> None:
        """Shown with the message, delivered to followers, gone after a reset."""
        await self.made(store)
        await self.exchange(store, "one")
        id = (await store.history("s")).messages[1].id
        await store.judge("s", id, {"value": "down", "comment": "no"})
        shown = [orjson.loads(m) for m in (await store.history("s")).messages_json]
        assert [m.get("feedback") for m in shown] == [None, {"value": "down", "comment": "no"}]
        assert "feedback" in await self.types(store)
        with pytest.raises(NotFound):
            await store.judge("s", "nobody", {"value": "up"})

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
