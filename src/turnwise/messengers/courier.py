"""Courier: receives a messenger platform's updates and sends what the bot says.

It serves platforms that are polled (polling.py) and those that call a webhook. An update is stored
under its own id before it is acknowledged to the platform, so an update that is delivered twice
creates one turn. What is to be sent is found in the store's outbox, so it is sent whoever has made
the bot speak, by one process at a time, in order for each chat, and after a crash by another one:
delivery.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from turnwise.conversation import Answer, Message, TurnRecord
from turnwise.errors import (
    Damaged,
    KeyReused,
    NotFound,
    NotQueued,
    Rejected,
    StoreUnavailable,
)
from turnwise.media import CHANNEL
from turnwise.messengers.answering import answers_in, label_of
from turnwise.messengers.delivery import Delivering
from turnwise.messengers.heard import messages_of
from turnwise.messengers.platform import (
    ChooseSession,
    Failure,
    HasGateway,
    Platform,
    Undelivered,
    Update,
)

log = logging.getLogger("turnwise.messenger")

LOOK = 1.0
"""Seconds between two looks for what others have left to be sent."""
AT_ONCE = 1000
"""Sessions that one look finds."""
PATIENCE = 10.0
"""Seconds that unfinished replies may take when the process stops."""
REPORTING = 10.0
"""Seconds that the callback about a piece that is not delivered may take."""
ALBUM = 1.0
"""Seconds that the rest of an album is waited for."""
REST = 30.0
"""Seconds until a session is tried again that could not be read or sent."""


class Courier:
    """Receives the updates of one platform and sends the replies.

    `session(update)` chooses the session of an update. `undelivered(update, message, reason)` is
    called for each piece that a person does not get.
    """

    def __init__(
        self,
        runtime: HasGateway,
        platform: Platform,
        *,
        session: ChooseSession | None = None,
        undelivered: Undelivered | None = None,
    ) -> None:
        self._runtime = runtime
        self._platform = platform
        self._session = session
        self._undelivered = undelivered
        self._name = f"c{secrets.token_hex(6)}"
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._resting: dict[str, float] = {}
        self._reports: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._started = False
        self._closing = False

    # Receiving

    async def take(self, update: Update) -> None:
        """Return when the update is durably stored; its reply follows later.

        Raises StoreUnavailable; the platform should then deliver the update again.
        """
        await self.begin_with_platform()
        session = await self._session_of(update)
        gateway, channel = self._runtime.gateway, self._platform.channel
        if update.known and not await self._exists(session):
            return
        replaces = None
        if update.edits is not None:
            last = await self._turn_with(session, update.edits)
            if last is None or await self._changed(session, last, update):
                return  # what was changed is not what was said last, or all is done
            replaces = last.n
            if update.album is not None and last.message is not None:
                update.attachments = last.message.attachments  # of which one came again
        answers = await self._answers(session, update)
        if update.pressed is not None and not answers and not update.text:
            update.text = await label_of(gateway, session, update.pressed)
        album = update.album if replaces is None else None
        try:
            await gateway.submit(
                session,
                "" if update.pressed is not None and answers else update.text,
                key=f"{channel}:{update.id}",
                attachments=update.attachments,
                metadata={"channel": self._platform.name, **update.metadata},
                answers=answers,
                note={**update.note, CHANNEL: channel},
                replaces=replaces,
                group=album,
                settle=0.0 if album is None else ALBUM,
                create=True,
                address=(channel, update.to),
            )
        except KeyReused:
            log.warning("%s: update %s came with another content", channel, update.id)
        except Damaged:
            log.error("%s: the session of update %s cannot be read", channel, update.id)
            return
        except Rejected as error:  # it will never be accepted: the person is told
            await self.tell(update, Message(error.message))
        self.deliver(session)
        with contextlib.suppress(Exception):
            await self._platform.taken(update)

    async def begin_with_platform(self) -> None:
        """Know who the bot is on its platform. Raises what the platform raises."""
        if not self._started:
            self._platform.files = self._runtime.gateway.files
            await self._platform.start()
            self._runtime.media.learn(self._platform.channel, self._platform.open)
            self._started = True

    async def _session_of(self, update: Update) -> str:
        """The update's session; a callback that raises must not lose the message."""
        if self._session is not None:
            try:
                chosen = self._session(update)
                return chosen if isinstance(chosen, str) else await chosen
            except Exception:
                log.exception("no session was chosen for an update of %s", self._platform.channel)
        deliveries = self._runtime.gateway.deliveries
        return await deliveries.session_of(update.session, update.earlier)

    async def _exists(self, session: str) -> bool:
        try:
            await self._runtime.gateway.session(session)
        except NotFound:
            return False
        return True

    async def _changed(self, session: str, turn: TurnRecord, update: Update) -> bool:
        """Whether the turn's message says now what the update says: it did already, because the
        update came before, or it still waited."""
        said = turn.message
        if said is not None and said.text == update.text and not update.attachments:
            return True
        if turn.status != "queued" or update.attachments or not update.text:
            return False
        try:
            await self._runtime.gateway.change(session, turn.n, update.text)
        except NotQueued:
            return False
        except Rejected as error:
            await self.tell(update, Message(error.message))
        return True

    async def _turn_with(self, session: str, note: dict[str, Any]) -> TurnRecord | None:
        """The session's last turn, if it has this note."""
        gateway = self._runtime.gateway
        try:
            (last,), _ = await gateway.turns(session, limit=1)
            if last.merged_into is not None:  # a part of an album, which that turn answers
                last = await gateway.turn(session, last.merged_into)
        except (NotFound, ValueError):
            return None
        return last if note.items() <= last.note.items() else None

    async def _answers(self, session: str, update: Update) -> Sequence[Answer]:
        """What the update answers, if its platform does not say that itself."""
        silent = not update.text and update.pressed is None
        if update.answers or update.attachments or silent:
            return update.answers
        key = f"{self._platform.channel}:{update.id}"
        return await answers_in(
            self._runtime.gateway, session, update.text, key=key, pressed=update.pressed
        )

    async def turned_down(self, failure: Failure) -> None:
        """The platform says that a piece, which it has taken, does not arrive. Raises
        StoreUnavailable; the platform should then say it again."""
        gateway, channel = self._runtime.gateway, self._platform.channel
        update = Update(failure.id, failure.session, "", failure.to)
        update.session = await self._session_of(update)
        found = await gateway.deliveries.turn_down(update.session, channel, failure.id, failure.why)
        if found is None:
            return
        n, place, number = found
        said = dict(messages_of(await gateway.turn(update.session, n)))
        pieces: Sequence[Message] = ()
        if place in said:
            pieces = await asyncio.to_thread(self._platform.pieces, said[place])
        piece = pieces[number] if number < len(pieces) else Message("")
        await self._report(update, piece, failure.why)

    async def tell(self, update: Update, message: Message) -> None:
        """Send words about an update that was not accepted; they are not kept."""
        try:
            await self._platform.send(update, message)
        except Exception as error:
            log.warning("%s: %s", self._platform.channel, type(error).__name__)

    # Sending

    def deliver(self, session: str) -> None:
        """Send what is to be sent in this session, if this process may."""
        if session in self._sending:
            self._again.add(session)
            return
        if self._closing:
            return
        task = asyncio.get_running_loop().create_task(self._deliver(session))
        self._sending[session] = task
        task.add_done_callback(lambda done: self._delivered(session, done))

    async def _deliver(self, session: str) -> None:
        while True:
            self._again.discard(session)
            work = Delivering(self._runtime, self._platform, session, self._name, self._report)
            await work.run()
            if session not in self._again:
                return

    def _delivered(self, session: str, task: asyncio.Task[None]) -> None:
        self._sending.pop(session, None)
        if session in self._again:  # between the last look and now
            self._again.discard(session)
            self.deliver(session)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a reply was not delivered", exc_info=error)
            self._resting[session] = time.monotonic() + REST

    async def _report(self, update: Update, message: Message, why: str) -> None:
        """A person does not get this piece."""
        log.warning("%s: a piece is not delivered: %s", self._platform.channel, why)
        task = asyncio.get_running_loop().create_task(self._tell_users(update, message, why))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _tell_users(self, update: Update, message: Message, why: str) -> None:
        """Call the functions that want to know, which may raise or hang: neither holds anything
        up."""
        if self._undelivered is not None:
            await _called(self._undelivered, update, message, why)
        for function in self._runtime.bot.told_undelivered:
            await _called(function, update.session, message, why)

    async def _look_forever(self) -> None:
        """Find what others have left: a process that died, `say`, `wake`, another door."""
        while True:
            try:
                await self.begin_with_platform()
                gateway = self._runtime.gateway
                now = time.monotonic()
                self._resting = {s: until for s, until in self._resting.items() if until > now}
                for session in await gateway.deliveries.waiting(self._platform.channel, AT_ONCE):
                    if session not in self._resting:
                        self.deliver(session)
            except StoreUnavailable:
                pass
            except Exception as error:
                log.warning("%s: %s", self._platform.channel, type(error).__name__)
            await asyncio.sleep(LOOK)

    # Life

    async def __aenter__(self) -> Courier:
        self.begin()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def begin(self) -> None:
        """Send from now on also what others have left."""
        self._looking = asyncio.get_running_loop().create_task(self._look_forever())

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """The lifespan of a webhook's router: closes the courier when the application ends."""
        self.begin()
        try:
            yield
        finally:
            await self.close()

    async def close(self, patience: float = PATIENCE) -> None:
        """Send the replies that are ready within `patience` seconds, then disconnect. What is left
        is sent by another process, or by the next one."""
        self._closing = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        if self._sending:
            _, late = await asyncio.wait(self._sending.values(), timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._platform.close()


async def _called(function: Callable[..., Any], *args: Any) -> None:
    """Call a user's function, of either kind; what it raises is logged."""
    try:
        async with asyncio.timeout(REPORTING):
            told = function(*args)
            if inspect.isawaitable(told):
                await told
    except Exception:
        log.exception("the report of a piece that is not delivered")


__all__ = ["ChooseSession", "Courier", "HasGateway", "Platform", "Undelivered", "Update"]
