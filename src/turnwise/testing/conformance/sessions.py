"""Sessions: created, changed, emptied, deleted, expired."""

from __future__ import annotations

import pytest

from turnwise.errors import ClaimLost, NotFound, Unauthorized
from turnwise.stores.base import Store
from turnwise.stores.notices import Notice, Signal
from turnwise.testing.conformance.acting import Acting, answer, delta, desk, texts


class SessionConformance(Acting):
    """The life cycle of a session."""

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
        assert (history.messages_json, history.open) == ([], [])
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
        """A session expires `ttl` seconds after its last turn, as if it had never existed."""
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
        """An accepted message is answered, however short the session's ttl is."""
        await self.made(store, ttl=1.0)
        await self.say(store, "hi")
        await self.pass_time(store, 5.0)
        assert await store.sweep(retention=1000.0) == 0
        await store.finish(await self.claimed(store), answer("ok"))
        assert texts((await store.history("s")).messages_json) == ["hi", "ok"]

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
        """The sweep deletes what attempts wrote past its retention, but none of an open turn's."""
        await self.made(store)
        await self.say(store, "one")
        first = await self.claimed(store)
        await store.append(first, [delta(1, 1, "x")])
        await store.finish(first, answer("1"))
        await self.say(store, "two")
        claim = await self.claimed(store)
        await store.append(claim, [delta(2, 1, "x")])
        await self.pass_time(store, 100.0)
        await store.sweep(retention=50.0)
        log = await store.log("s", 0)
        assert log is not None
        assert 3 <= log.floor <= 5
        assert [event.turn for event in log.events if event.id > 5] == [2, 2, 2]
        assert (await self.types(store)).count("delta") == 1
        await store.renew([claim], 30.0)
        assert texts((await store.history("s")).messages_json) == ["one", "1"]

    # Sessions, tokens, creation on first use

    async def test_create_is_idempotent(self, store: Store) -> None:
        """Creating a session that exists returns it unchanged."""
        first = await store.create("s", name="a", metadata=b'{"x":1}', ttl=100.0)
        again = await store.create("s", name="b", metadata=b"{}", ttl=5.0)
        assert (again.name, again.metadata, again.ttl) == ("a", {"x": 1}, 100.0)
        assert again.created_at == first.created_at

    async def test_a_session_is_made_on_first_use_if_asked(self, store: Store) -> None:
        """With `create` the submission creates it; without, NotFound is raised."""
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
            assert [texts([turn.message_json or b""]) for turn in opened] == [[name]]

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
