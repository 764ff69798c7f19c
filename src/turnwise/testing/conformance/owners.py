"""Owners: whose a session is, what they list, and how they share the workers."""

from __future__ import annotations

import pytest

from turnwise.errors import NotFound, OwnerSet, QueueFull
from turnwise.stores.base import Store
from turnwise.stores.records import Submission
from turnwise.testing.conformance.acting import Acting, answer, desk, question


class OwnerConformance(Acting):
    """Sessions of owners: found by them, closed to others, served in turns."""

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
