"""Taking back: edits, other answers and branches; and what becomes of a message afterwards."""

from __future__ import annotations

import orjson
import pytest

from turnwise.conversation import Answer, Asked, Message
from turnwise.errors import (
    AskClosed,
    ClaimLost,
    KeyReused,
    MovedOn,
    NotFound,
    NotQueued,
    Superseded,
    TooFarBack,
)
from turnwise.stores.base import Store
from turnwise.stores.claim import Outcome
from turnwise.stores.records import Submission
from turnwise.stores.rules import STATES
from turnwise.testing.conformance.acting import Acting, answer, delta, desk, texts


class TakingBackConformance(Acting):
    """Edits, another answer, forks; messages that are changed, stopped or judged."""

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
        """It cannot be taken back by itself any more."""
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
        for i in range(STATES + 3):
            await self.exchange(store, f"m{i}", b'{"n":%d}' % i)
        with pytest.raises(TooFarBack):
            await self.say(store, "x", replaces=2)
        assert (await store.history("s", limit=1)).messages[0].text == f"M{STATES + 2}"
        assert (await self.say(store, "x", replaces=10)).n == STATES + 4
        assert await store.state("s") == b'{"n":8}'

    async def test_an_answer_that_is_made_anew_often_keeps_the_way_back(self, store: Store) -> None:
        """Each time it restores a state, which costs none of the 50 that one may go back."""
        await self.made(store)
        for i in range(3):
            await self.exchange(store, f"m{i}", b'{"n":%d}' % i)
        for n in range(3, 48):
            await self.anew(store, n)
            claim = await self.claimed(store)
            outcome = answer("M2")
            outcome.state = b'{"n":2}'
            await store.finish(claim, outcome)
        await self.say(store, "x", replaces=2)
        assert await store.state("s") == b'{"n":0}'

    async def test_an_answer_given_again_leaves_other_asks_open(self, store: Store) -> None:
        """The repeated message closes what it answers, as it did before, and nothing else."""
        await self.made(store)
        await self.say(store, "plan")
        claim = await self.claimed(store)
        asking = [Message(name, ask=Asked(f"ask_{name}")) for name in "ab"]
        replies = [message.encode() for message in asking]
        asks = [(i, f"ask_{name}") for i, name in enumerate("ab")]
        await store.finish(claim, Outcome("completed", replies, asks=asks))
        given = Message("", role="user", answers=[Answer("ask_a", "yes")])
        wish = Submission("s", given.encode(), answers=given.answers)
        await store.submit(wish)
        await store.finish(await self.claimed(store), answer("sent"))
        await self.anew(store, 2)
        assert (await store.history("s")).asks == ["ask_b"]

    async def test_a_turn_is_continued_only_as_the_last_one(self, store: Store) -> None:
        """Whatever came behind it: a turn that waits, an answer, an edit; but a message that was
        withdrawn is nothing. The act that accepts the message decides it."""
        await self.made(store)
        await self.exchange(store, "one")
        assert (await self.say(store, "two", behind=1)).n == 2
        with pytest.raises(MovedOn):
            await self.say(store, "also two", behind=1)
        assert (await self.say(store, "three", behind=2)).n == 3
        for n in (3, 2):
            await store.cancel("s", n)
        assert (await self.say(store, "four", behind=1)).n == 4
        await store.finish(await self.claimed(store), answer("FOUR"))
        with pytest.raises(MovedOn):
            await self.say(store, "x", behind=1)
        await self.say(store, "quattro", replaces=4)
        for n in (4, 7):
            with pytest.raises(MovedOn):
                await self.say(store, "x", behind=n)

    async def test_one_key_stops_once(self, store: Store) -> None:
        """A request that is repeated does not stop what came after it, even if there was nothing to
        stop; a key of something else is refused."""
        await self.made(store)
        assert await store.stop("s", "k") == []
        await self.say(store, "one", key="q", fingerprint="f")
        assert await store.stop("s", "k") == []
        assert await self.status(store, 1) == "queued"
        assert [record.n for record in await store.stop("s", "l")] == [1]
        with pytest.raises(KeyReused):
            await store.stop("s", "q")

    async def test_what_only_the_log_has_goes_with_it(self, store: Store) -> None:
        """Changes of a session or of a waiting message, and feedback: requests that no limit counts
        do not fill the store for ever."""
        await self.made(store)
        await self.exchange(store, "one")
        reply = (await store.history("s")).messages[1].id
        for i in range(5):
            await store.update("s", {"metadata": b'{"i":%d}' % i})
            await store.judge("s", reply, {"value": "up", "comment": str(i)})
        await self.pass_time(store, 10.0)
        await store.sweep(retention=0.5)
        whole = await store.whole("s")
        assert whole is not None
        assert not [entry.kind for entry in whole.entries if entry.kind in "nv"]
        found = await store.session("s")
        assert found is not None
        assert found.metadata == {"i": 4}
        assert b'"comment":"4"' in (await store.history("s")).messages_json[1]

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
