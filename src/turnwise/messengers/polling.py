"""Polling: for platforms whose updates must be requested.

It polls continuously, backs off while the platform does not answer, and never stops at an error.
Each request confirms the previous updates to the platform, so it is sent only after all of them
are stored.
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import abstractmethod
from collections.abc import Sequence

from turnwise.conversation import Message
from turnwise.errors import StoreUnavailable
from turnwise.messengers.courier import Courier
from turnwise.messengers.platform import (
    ChooseSession,
    HasGateway,
    Platform,
    Undelivered,
    Update,
)
from turnwise.stores.header import WrittenByNewer

log = logging.getLogger("turnwise.messenger")

LONGEST = 30.0
"""Maximum seconds between two attempts."""
NEWER = "Your message was not accepted, because the system is being updated. Please repeat it soon."


class PolledPlatform(Platform):
    """A platform that can be polled."""

    @abstractmethod
    async def updates(self) -> Sequence[Update]:
        """Wait for the next updates; this confirms the previous ones."""


class Polling:
    """`async with Polling(runtime, platform):` answers the platform's users inside the block.

    `session(update)` returns the session of an update, if it is not the platform's default: for
    users with one session on several channels. `undelivered(update, message, reason)` is called for
    each piece that a person does not get. `first_pause` is the pause in seconds after the
    first error; each later pause is twice as long, up to 30 seconds.
    """

    def __init__(
        self,
        runtime: HasGateway,
        platform: PolledPlatform,
        *,
        session: ChooseSession | None = None,
        undelivered: Undelivered | None = None,
        first_pause: float = 0.5,
    ) -> None:
        self._platform = platform
        self._first_pause = first_pause
        self._courier = Courier(runtime, platform, session=session, undelivered=undelivered)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Polling:
        self._courier.begin()
        self._task = asyncio.get_running_loop().create_task(self._poll_forever())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._courier.close()

    async def _poll_forever(self) -> None:
        while True:
            for update in await self._updates():
                await self._take(update)

    async def _updates(self) -> Sequence[Update]:
        """The next updates, however long the platform is unavailable."""
        pause = self._first_pause
        while True:
            try:
                # Who the bot is decides what is meant for it, and what is read is confirmed.
                await self._courier.begin_with_platform()
                return await self._platform.updates()
            except Exception as error:  # polling continues after any error
                log.warning("%s does not answer: %s", self._platform.name, type(error).__name__)
                wanted = float(getattr(error, "retry_after", None) or 0)
            await asyncio.sleep(max(wanted, pause * random.uniform(0.8, 1.2)))
            pause = min(LONGEST, 2 * pause)

    async def _take(self, update: Update) -> None:
        """Store an update, however long the store is unavailable; skip one that fails."""
        pause = self._first_pause
        while True:
            try:
                return await self._courier.take(update)
            except WrittenByNewer:  # waiting for a newer process would hold up everybody
                log.error("%s: a newer version has written the session", self._platform.channel)
                return await self._courier.tell(update, Message(NEWER))
            except StoreUnavailable:
                await asyncio.sleep(pause)
                pause = min(LONGEST, 2 * pause)
            except Exception:
                log.exception("an update of %s cannot be accepted", self._platform.name)
                return
