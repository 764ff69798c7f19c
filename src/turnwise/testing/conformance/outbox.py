"""What is to be sent to a messenger's chat: found, sent by one at a time, noted piece by piece."""

from __future__ import annotations

from typing import Any

import pytest

from turnwise.errors import ClaimLost
from turnwise.stores.base import Store
from turnwise.stores.claim import Claim
from turnwise.testing.conformance.acting import Acting, answer

PIECE = [0, 0, "sent", "hash", "77", 1, None]


class OutboxConformance(Acting):
    """Addresses, leases and pieces."""

    async def chat(self, store: Store, text: str, **more: Any) -> Claim:
        """A message that came on a channel, and the claim on its turn."""
        address = ("pager:1", {"chat": 7})
        await self.say(store, text, create=True, ttl=1000.0, address=address, **more)
        return await self.claimed(store)

    async def test_what_has_ended_is_found_until_it_is_delivered(self, store: Store) -> None:
        """On its own channel only; not while the turn runs, nor when all of it was sent."""
        claim = await self.chat(store, "hi")
        assert await store.outbox("pager:1", 10) == []
        await store.finish(claim, answer("hello"))
        assert await store.outbox("pager:1", 10) == ["s"]
        assert await store.outbox("pager:2", 10) == []
        found = await store.deliver("s", "pager:1", "me", 30.0)
        assert found is not None
        assert (found.to, found.delivered, found.last, found.turns) == ({"chat": 7}, 0, 1, {})
        found = await store.delivered("s", "me", 30.0, 1, [PIECE], False)
        assert found.turns == {"1": [PIECE]}
        assert await store.outbox("pager:1", 10) == ["s"]
        found = await store.delivered("s", "me", 30.0, 1, [PIECE], True)
        assert found.delivered == 1
        assert await store.outbox("pager:1", 10) == []
        record = await store.turn("s", 1)
        assert record is not None
        sent = {"message": 0, "piece": 0, "state": "sent", "why": None}
        assert list(record.delivery) == [sent]
        page, _ = await store.turns("s", status=None, before=None, after=None, limit=5)
        assert list(page[0].delivery) == [sent]

    async def test_one_sends_at_a_time(self, store: Store) -> None:
        """Another one waits until the lease has lapsed, or the first one leaves; the first one then
        notes nothing more."""
        await store.finish(await self.chat(store, "hi"), answer("hello"))
        assert await store.deliver("s", "pager:1", "me", 10.0) is not None
        assert await store.deliver("s", "pager:1", "other", 10.0) is None
        assert await store.deliver("s", "pager:2", "me", 10.0) is None
        await self.pass_time(store, 11)
        assert await store.deliver("s", "pager:1", "other", 10.0) is not None
        with pytest.raises(ClaimLost):
            await store.delivered("s", "me", 10.0, 1, [PIECE], True)
        await store.leave("s", "me")
        assert await store.deliver("s", "pager:1", "me", 10.0) is None
        await store.leave("s", "other")
        assert await store.deliver("s", "pager:1", "me", 10.0) is not None
        assert await store.deliver("gone", "pager:1", "me", 10.0) is None

    async def test_what_the_bot_says_by_itself(self, store: Store) -> None:
        """A session with an address is found whoever has made its turn end; one that gets its
        address later is not sent what was said before."""
        await self.made(store)
        await self.exchange(store, "on the web")
        claim = await self.chat(store, "on the pager")
        await store.finish(claim, answer("hello"))
        found = await store.deliver("s", "pager:1", "me", 10.0)
        assert found is not None
        assert found.delivered == 1
        await store.delivered("s", "me", 10.0, 2, [], True)
        await self.exchange(store, "on the web again")
        assert await store.outbox("pager:1", 10) == ["s"]

    async def test_a_person_who_goes_elsewhere(self, store: Store) -> None:
        """What was not sent in the one chat is sent in the other, where the person is now, once who
        was sending in the first one has noted what it has sent."""
        await store.finish(await self.chat(store, "hi"), answer("hello"))
        assert await store.deliver("s", "pager:1", "me", 10.0) is not None
        await self.say(store, "here", address=("pager:2", 9))
        assert await store.outbox("pager:1", 10) == []
        assert await store.outbox("pager:2", 10) == ["s"]
        assert await store.deliver("s", "pager:2", "other", 10.0) is None
        found = await store.delivered("s", "me", 10.0, 1, [PIECE], True)
        assert found.channel == "pager:2"
        await store.leave("s", "me")
        elsewhere = await store.deliver("s", "pager:2", "other", 10.0)
        assert elsewhere is not None
        assert (elsewhere.to, elsewhere.delivered, elsewhere.last) == (9, 1, 2)

    async def test_what_does_not_arrive(self, store: Store) -> None:
        """The platform says later that it does not deliver a piece: that is noted once, also while
        somebody is sending, who knows the piece as sent; of others there is nothing to note."""
        await store.finish(await self.chat(store, "hi"), answer("hello"))
        assert await store.deliver("s", "pager:1", "me", 10.0) is not None
        await store.delivered("s", "me", 10.0, 1, [PIECE], False)
        for channel, id in (("pager:2", "77"), ("pager:1", "78")):
            assert await store.turn_down("s", channel, id, "gone") is None
        assert await store.turn_down("none", "pager:1", "77", "gone") is None
        assert await store.turn_down("s", "pager:1", "77", "gone") == (1, 0, 0)
        assert await store.turn_down("s", "pager:1", "77", "gone") is None
        found = await store.delivered("s", "me", 10.0, 1, [PIECE], True)
        assert found.turns["1"] == [[0, 0, "refused", "hash", "77", 1, "gone"]]
        turn = await store.turn("s", 1)
        assert turn is not None
        assert [piece["why"] for piece in turn.delivery] == ["gone"]

    async def test_a_chat_that_moves(self, store: Store) -> None:
        """The next one that sends knows the new address; after a reset only what comes then is to
        be sent, and a session that is deleted is not found."""
        await store.finish(await self.chat(store, "hi"), answer("hello"))
        await store.readdress("s", "pager:1", {"chat": 8})
        found = await store.deliver("s", "pager:1", "me", 10.0)
        assert found is not None
        assert (found.to, found.delivered) == ({"chat": 8}, 0)
        await store.reset("s")
        assert await store.outbox("pager:1", 10) == []
        await self.exchange(store, "after the reset")
        assert await store.outbox("pager:1", 10) == ["s"]
        await store.delete("s")
        assert await store.outbox("pager:1", 10) == []
