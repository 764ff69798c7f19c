"""Delivering: sends a session's turns to its chat, in order, piece by piece.

A piece is a part of a message that the platform takes in one call. What has become of it is noted
before the next one is sent: so it is sent once, unless a process dies between the platform's answer
and the note. A message is sent when it is said, also while its turn goes on; a long text is shown
while it grows, where the platform can change what was sent. If an attempt is made anew, a piece
with the same text in the same place counts as sent; another text is sent as an edit, where the
platform can, and else as a new message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from typing import Any, NamedTuple

from turnwise import telemetry
from turnwise.conversation import Attachment, Message, TurnRecord
from turnwise.conversation.events import STARTED
from turnwise.errors import ClaimLost, NotFound, StoreUnavailable
from turnwise.messengers.heard import Heard, Said, messages_of
from turnwise.messengers.platform import HasGateway, Moved, Platform, Refused, Update

log = logging.getLogger("turnwise.messenger")

LEASE = 20.0
"""Seconds that this process is the one that sends, after its last word."""
BEAT = 6.0
"""Seconds between two words while a turn is waited for."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between attempts to send."""
GIVE_UP = 600.0
"""Seconds after which a piece is given up."""
SOON, TYPING = 1.0, 4.0
"""Seconds until the first sign that an answer is being made, and between two of them."""
AWAY = 1.0
"""Seconds between two attempts while the store is away."""
HOLD = 0.3
"""Seconds that a message that asks is held back, because the end of its turn brings the choices."""
GROWS = 1.5
"""Seconds until a text that grows is shown."""
CALL = 60.0
"""Seconds that one call of the platform may take."""
LONG = 4000
"""Characters from which on a text is read beside the loop."""
MOVES = 3
"""How often a chat may move while one piece is sent."""
Report = Callable[[Update, Message, str], Awaitable[None]]


class Sent(NamedTuple):
    """What has become of a piece: the place of its message and its own, "sent", "refused" or "given
    up", what it was, the platform's id of it, the attempt that said it, and why it was not sent."""

    message: int
    piece: int
    state: str
    what: str
    id: str | None
    attempt: int
    why: str | None


class Delivering:
    """One stretch of sending: until all that has been said in the session was sent."""

    def __init__(
        self, runtime: HasGateway, platform: Platform, session: str, name: str, report: Report
    ) -> None:
        self._runtime = runtime
        self._platform = platform
        self._session = session
        self._name = name
        self._report = report
        self._noted_at = 0.0
        self._grown_at = math.inf
        """When the text that grows may be shown next."""
        self._quiet_until = 0.0
        """Until then the platform wants no calls."""

    async def run(self) -> None:
        """Send, unless another process does."""
        deliveries = self._runtime.gateway.deliveries
        channel = self._platform.channel
        found = await self._patiently(
            lambda: deliveries.begin(self._session, channel, self._name, LEASE)
        )
        if found is None:
            return
        self._noted_at = time.monotonic()
        try:
            while found.channel == channel and found.delivered < found.last:
                n = found.delivered + 1
                self._n, self._update = n, Update(f"turn {n}", self._session, "", found.to)
                self._sent = [Sent(*one) for one in found.turns.get(str(n), ())]
                self._shown: dict[tuple[int, int], str] = {}
                found = await self._turn(n)
        except (ClaimLost, NotFound):
            return  # another one sends by now, or the session is gone
        finally:
            with contextlib.suppress(StoreUnavailable):
                await deliveries.leave(self._session, self._name)

    async def _turn(self, n: int) -> Any:
        """Send all of a turn, and return what is to be sent then."""
        try:
            record = await self._patiently(lambda: self._runtime.gateway.turn(self._session, n))
        except NotFound:  # a reset has removed it
            return await self._note(over=True)
        if record.open:
            record = await self._while_it_goes_on(record)
        if not record.superseded:
            for place, message in messages_of(record):
                await self._say(place, message, record.attempt)
        return await self._note(over=True)

    # While the turn goes on

    async def _while_it_goes_on(self, record: TurnRecord) -> TurnRecord:
        """Send each message when it is complete, or while it grows; returns the turn's record at
        its end."""
        gateway, n = self._runtime.gateway, record.n
        self._heard, self._next = Heard(record.attempt), 0
        async with self._typing():
            with gateway.follow(self._session, record.first_event - 1, turn=n) as reader:
                while not (reader.ended or reader.closed):
                    try:
                        told = await reader.read(timeout=self._patience())
                    except StoreUnavailable:
                        continue
                    await self._beat()
                    for event in told:
                        if event.type == STARTED:
                            self._next = 0
                        self._heard.hear(event)
                    if not reader.ended:  # else the record says it all
                        await self._say_what_is_heard(quiet=not told)
            while True:  # where streams are closed, this process is about to stop
                record = await self._patiently(lambda: gateway.turn(self._session, n))
                if not record.open:
                    return record
                await asyncio.sleep(0.1)
                await self._beat()

    def _patience(self) -> float:
        """Seconds until there is something to do even if nothing more is heard."""
        said = self._heard.after(self._next)
        if said is None:
            return BEAT
        return HOLD if said.complete else min(BEAT, max(HOLD, self._grown_at - time.monotonic()))

    async def _say_what_is_heard(self, quiet: bool) -> None:
        """Send what is complete, in order. One that asks is held back until nothing more is heard
        for a moment, because the end of its turn may bring what it asks."""
        while (said := self._heard.after(self._next)) is not None:
            if not said.complete:
                await self._grow(said)
                return
            if said.asks and not quiet:
                return
            await self._say(said.place, said.message, self._heard.attempt)
            self._next += 1
            self._grown_at = math.inf

    async def _grow(self, said: Said) -> None:
        """Show a text that is not complete yet, where the platform can change it later. What fails
        here is made good when it is complete."""
        pace, now = self._platform.pace(self._update), time.monotonic()
        if pace is None or not said.message.text.strip():
            return
        if self._grown_at == math.inf:
            self._grown_at = now + GROWS
        if now < self._grown_at:
            return
        self._grown_at = now + pace
        try:
            pieces = await self._pieces(said.message)
        except Exception:
            return  # it is told when the message is complete
        for number, piece in enumerate(pieces):
            before, what = self._before(said.place, number), _what(piece)
            if before is None:
                # What it is is not noted: whoever goes on changes it to what is complete.
                await self._piece(said.place, number, piece, self._heard.attempt, growing=True)
            elif before.id is not None and self._shown.get((said.place, number)) != what:
                try:
                    edit = self._platform.edit(self._update, before.id, piece)
                    if await self._beating(edit):
                        self._shown[said.place, number] = what
                    else:  # it is gone, and sent anew when it is complete
                        self._forget(before)
                except (ClaimLost, NotFound):
                    raise
                except Moved as moved:
                    await self._follow(moved)
                    return self._forget(*self._sent)
                except Refused:  # the person's loss is reported when the text is complete
                    self._grown_at = time.monotonic() + GIVE_UP
                    return
                except Exception as error:
                    wanted = float(getattr(error, "retry_after", None) or pace)
                    self._grown_at = self._quiet_until = time.monotonic() + wanted
                    return

    @contextlib.asynccontextmanager
    async def _typing(self) -> AsyncIterator[None]:
        async def show() -> None:
            await asyncio.sleep(SOON)  # a quick answer needs no sign
            while True:
                with contextlib.suppress(Exception):
                    await self._platform.typing(self._update)
                await asyncio.sleep(TYPING)

        task = asyncio.get_running_loop().create_task(show())
        try:
            yield
        finally:
            task.cancel()

    # Pieces

    async def _say(self, place: int, message: Message, attempt: int) -> None:
        try:
            pieces = await self._pieces(message)
        except Exception as error:  # the platform cannot make anything of it
            log.exception("a message cannot be sent on %s", self._platform.channel)
            await self._end(Sent(place, 0, "refused", "", None, attempt, type(error).__name__))
            return
        for number, piece in enumerate(pieces):
            await self._piece(place, number, piece, attempt)

    async def _pieces(self, message: Message) -> list[Message]:
        """A message as the platform takes it. There are texts of which a parser of Markdown reads a
        second; a long one is read in a thread, and holds up nobody."""
        if len(message.text) < LONG:
            return list(self._platform.pieces(message))
        return list(await asyncio.to_thread(self._platform.pieces, message))

    def _before(self, place: int, number: int) -> Sent | None:
        """What has become of this piece so far."""
        return next((sent for sent in self._sent if sent[:2] == (place, number)), None)

    async def _piece(
        self, place: int, number: int, piece: Message, attempt: int, growing: bool = False
    ) -> None:
        """Send a piece that was not sent yet, or change it, and note it; of one that is `growing`
        it is not noted what it says."""
        what = _what(piece)
        before = self._before(place, number)
        if before is not None and before.what == what:
            return
        if before is not None:
            shown = self._shown.get((place, number)) == what
            if shown or await self._edited(before, piece):
                await self._end(before._replace(what=what, attempt=attempt))
                return
        state, id, why = await self._send(piece)
        telemetry.PIECES.labels(self._platform.name, state).inc()
        self._shown[place, number] = what
        await self._end(Sent(place, number, state, "" if growing else what, id, attempt, why))
        if state != "sent":
            await self._report(self._update, piece, why or state)

    async def _end(self, sent: Sent) -> None:
        """Note what has become of a piece."""
        self._sent = [one for one in self._sent if one[:2] != sent[:2]] + [sent]
        await self._note()

    def _forget(self, *sent: Sent) -> None:
        """These pieces cannot be changed any more."""
        gone = {one[:2] for one in sent}
        self._sent = [one._replace(id=None) if one[:2] in gone else one for one in self._sent]

    async def _edited(self, before: Sent, piece: Message) -> bool:
        """Whether the piece that was sent before says this now."""
        if before.state != "sent" or before.id is None:
            return False
        await self._sleep(self._quiet_until - time.monotonic())
        for pause in (*PAUSES, None):
            try:
                edit = self._platform.edit(self._update, before.id, piece)
                return bool(await self._beating(edit))
            except (ClaimLost, NotFound):
                raise
            except Moved as moved:
                await self._follow(moved)
                self._forget(*self._sent)  # what was there has no number here
                return False
            except Refused:
                return False
            except Exception as error:
                if pause is None:
                    return False
                await self._sleep(float(getattr(error, "retry_after", None) or pause))
        return False

    async def _beating(self, call: Awaitable[Any]) -> Any:
        """The result of a call of the platform, during which this process stays the one that
        sends."""
        task = asyncio.ensure_future(call)
        until = time.monotonic() + CALL
        try:
            while not task.done():
                if time.monotonic() > until:
                    raise TimeoutError
                await asyncio.wait({task}, timeout=BEAT)
                await self._beat()
        except BaseException:
            task.cancel()
            raise
        return task.result()

    async def _send(self, piece: Message) -> tuple[str, str | None, str | None]:
        """Send until the platform has it, refuses it, or it is time to give up."""
        until = time.monotonic() + GIVE_UP
        tries = moves = 0
        while True:
            try:
                return "sent", await self._beating(self._platform.send(self._update, piece)), None
            except (ClaimLost, NotFound):
                raise
            except Moved as moved:
                moves += 1
                if moves > MOVES:
                    return "refused", None, "the chat moves again and again"
                await self._follow(moved)
                continue
            except Refused as refused:
                if not piece.attachments:
                    return "refused", None, str(refused)
                words = _in_words(piece.attachments[0])
                piece = Message(words)  # the person knows at least that there was something
                continue
            except Exception as error:
                pause = float(getattr(error, "retry_after", None) or PAUSES[min(tries, 6)])
                if time.monotonic() + pause > until:
                    return "given up", None, type(error).__name__
                tries += 1
            await self._sleep(pause)

    async def _follow(self, moved: Moved) -> None:
        """The chat has another address: so has the session."""
        channel, deliveries = self._platform.channel, self._runtime.gateway.deliveries
        await self._patiently(lambda: deliveries.move(self._session, channel, moved.to, moved.chat))
        self._update.to = moved.to

    # Words to the store

    async def _note(self, over: bool = False) -> Any:
        pieces = [list(sent) for sent in self._sent]
        found = await self._patiently(
            lambda: self._runtime.gateway.deliveries.note(
                self._session, self._name, LEASE, self._n, pieces, over
            )
        )
        self._noted_at = time.monotonic()
        return found

    async def _beat(self) -> None:
        """Stay the one that sends. Raises ClaimLost."""
        if time.monotonic() - self._noted_at >= BEAT:
            await self._note()

    async def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, BEAT))
            await self._beat()

    async def _patiently(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await ask()
            except StoreUnavailable:
                await asyncio.sleep(AWAY)


def _what(piece: Message) -> str:
    """Stands for what a piece says."""
    said = [piece.text, *(attachment.url for attachment in piece.attachments)]
    if piece.ask is not None:
        said.append(piece.ask.id)
    return sha256("\0".join(said).encode("utf-8", "replace")).hexdigest()[:16]


def _in_words(attachment: Attachment) -> str:
    """What a person reads in the place of a file that the platform does not take."""
    name = attachment.name or attachment.type
    link = attachment.url if attachment.url.startswith(("http://", "https://")) else ""
    return f"{name}: {link}" if link else f"({name} could not be sent.)"
