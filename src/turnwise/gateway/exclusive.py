"""Exclusive access to a session between its turns, for the program around the bot."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from turnwise.conversation import not_json
from turnwise.errors import BadOutput, ClaimLost, ReplyTimeout, StoreUnavailable
from turnwise.stores.base import Store
from turnwise.stores.claim import Claim

LEASE = 10.0
"""Seconds that a claim lasts without being renewed."""
PAUSE = 0.02
"""Seconds between two attempts to claim a busy session."""
_giving_back: set[asyncio.Future[None]] = set()
"""Claims that are being released: the event loop itself keeps no reference to them."""


class HeldSession:
    """Exclusive access to a session: change `state`; it is saved on exit."""

    def __init__(self, claim: Claim) -> None:
        self.id = claim.session
        self.name = claim.name
        self.metadata: dict[str, Any] = orjson.loads(claim.metadata)
        self.state: dict[str, Any] = orjson.loads(claim.state)


@contextlib.asynccontextmanager
async def held(
    store: Store, session_id: str, timeout: float | None, check: Callable[[bytes], None]
) -> AsyncIterator[HeldSession]:
    """The session, once its running turn has ended; its `state` is saved on exit.

    `check(state)` raises BadOutput for a state that is too large. Raises ReplyTimeout after
    `timeout` seconds, NotFound, ClaimLost, BadOutput, StoreUnavailable.
    """
    try:
        async with asyncio.timeout(timeout):
            claim = await _claimed(store, session_id)
    except TimeoutError:
        raise ReplyTimeout("The session is busy.") from None
    renewing = asyncio.get_running_loop().create_task(_renew(store, claim))
    session = HeldSession(claim)
    try:
        yield session
        state = _encoded(session.state)
        if state != claim.state:
            check(state)
    except BaseException:
        with contextlib.suppress(ClaimLost, StoreUnavailable):  # the lease ends by itself
            await store.save(claim, None)
        raise
    else:
        changed = None if state == claim.state else state
        await store.save(claim, changed)
    finally:
        renewing.cancel()


async def _claimed(store: Store, session_id: str) -> Claim:
    owner = f"hold-{secrets.token_hex(4)}"
    while True:
        claiming = asyncio.ensure_future(store.hold(session_id, owner, LEASE))
        try:
            claim = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(lambda done: _give_back(store, done))
            raise
        if claim is not None:
            return claim
        await asyncio.sleep(PAUSE)


def _give_back(store: Store, claiming: asyncio.Future[Claim | None]) -> None:
    """The caller that asked for the session was cancelled: release the session."""
    if claiming.cancelled() or claiming.exception() is not None:
        return
    claim = claiming.result()
    if claim is not None:
        saving = asyncio.ensure_future(store.save(claim, None))
        _giving_back.add(saving)
        saving.add_done_callback(_giving_back.discard)


async def _renew(store: Store, claim: Claim) -> None:
    while True:
        await asyncio.sleep(LEASE / 3)
        with contextlib.suppress(StoreUnavailable):
            await store.renew([claim], LEASE)


def _encoded(state: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(state)
    except (TypeError, ValueError) as error:
        where = not_json(state)
        raise BadOutput(f"The session's state{where} is not JSON.", code="bad_state") from error
