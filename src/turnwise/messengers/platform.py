"""Platform: what a courier needs of a messenger, and the words for what happens to a message."""

from __future__ import annotations

import json
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import orjson
from pydantic import ValidationError

from turnwise import telemetry
from turnwise.bot import Bot
from turnwise.conversation import Answer, Attachment, Message
from turnwise.errors import StoreUnavailable, TurnwiseError
from turnwise.gateway.files import Files, id_in
from turnwise.gateway.gateway import Gateway
from turnwise.media import Media
from turnwise.settings import Settings

log = logging.getLogger("turnwise.messenger")


@dataclass(slots=True)
class Update:
    """A message that a person sent on a platform, or the chat to which something is sent.

    `id` is the platform's own unique id; `session` is the conversation it belongs to; `to` is the
    chat, as JSON in the platform's format. `answers` are what a pressed button answers. `earlier`:
    the session that an earlier version has made for this chat. `note` is kept with the turn.
    `known`: it is meant for the bot only if its session is there already. `edits`: the note of the
    turn of which this is the changed message. `pressed`: the ask and the number of its choice.
    `album`: it is one of several that are one message, each in an update of its own.
    """

    id: str
    session: str
    text: str
    to: Any
    attachments: Sequence[Attachment] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    answers: Sequence[Answer] = ()
    earlier: str | None = None
    note: dict[str, Any] = field(default_factory=dict)
    known: bool = False
    edits: dict[str, Any] | None = None
    pressed: tuple[str, int] | None = None
    album: str | None = None

    def check(self) -> None:
        """Raises TypeError if a platform gave something else where texts belong."""
        texts = [self.id, self.session, self.text]
        for one in self.attachments:
            texts += [one.type, one.url, one.name or ""]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a text of the update is not a text")


def parsed(body: bytes) -> Any:
    """A call's JSON, mended. Raises ValueError."""
    try:
        return orjson.loads(body)
    except ValueError:
        try:
            return mended(json.loads(body))
        except RecursionError:
            raise ValueError("too many levels") from None


def mended(found: Any) -> Any:
    """JSON in which U+FFFD stands for each half of a character pair: platforms cut texts, and a
    half is not a text. Raises ValueError."""
    return orjson.loads(_HALF.sub("\ufffd", json.dumps(found, ensure_ascii=False)))


_HALF = re.compile("[\ud800-\udfff]")
ChooseSession = Callable[[Update], "str | Awaitable[str]"]
"""Returns the session of an update: for users with one session on several channels."""
Undelivered = Callable[[Update, Message, str], "Awaitable[None] | None"]
"""Is called for a piece that the person does not get, with the reason."""


@contextmanager
def skipping(platform: str, what: str) -> Iterator[None]:
    """Whatever cannot be read in here is logged, counted and passed over: a platform sends what is
    not acknowledged again, for hours, and what is behind it must not wait."""
    try:
        yield
    except Exception as error:
        telemetry.SKIPPED.labels(platform).inc()
        wrong: Any = type(error).__name__
        if isinstance(error, ValidationError):
            wrong = error.errors()[0]["loc"]
        log.warning("%s cannot be read: %s", what[:200], wrong)


class Failure(NamedTuple):
    """A piece that the platform has taken, with the `id` that it gave it, and does not deliver."""

    session: str
    to: Any
    id: str
    why: str


class Refused(Exception):
    """The platform will never take this: the chat is gone, the bot is blocked, the message is
    malformed. Its text says why; nothing is tried again."""


class Moved(Exception):
    """The chat has another address now, `to`, and would be the session `chat`."""

    def __init__(self, to: Any, chat: str) -> None:
        super().__init__(f"to {to}")
        self.to = to
        self.chat = chat


class Platform(ABC):
    """The part of a messenger platform that a courier needs."""

    name: str
    """Short and unique; what `metadata["channel"]` says."""
    files: Files | None = None
    """The files of sessions; the courier gives them."""

    async def fetch(self, session: str, url: str) -> bytes:
        """The bytes of a session's file. Raises Refused if there is none at this address."""
        try:
            id = id_in(session, url)
            if self.files is None or id is None:
                raise Refused("there is no such file")
            return (await self.files.read(session, id))[1]
        except StoreUnavailable:
            raise
        except TurnwiseError as error:
            raise Refused(f"the file cannot be read: {error.code}") from None

    @property
    def channel(self) -> str:
        """Names the bot on this platform, of which there may be several."""
        return self.name

    async def start(self) -> None:  # noqa: B027 -- optional, as all that follows
        """Learn who the bot is. May raise; it is called again before the next update."""

    def pieces(self, message: Message) -> Sequence[Message]:
        """A message as the platform takes it: long texts in parts, each attachment by itself."""
        return [message]

    @abstractmethod
    async def send(self, update: Update, message: Message) -> str | None:
        """Send one piece to the chat of `update`; returns the platform's id of it, if it has one.

        Raises Refused for what will never be accepted, and Moved. After any other exception it is
        sent again, after the error's `retry_after` seconds if it has them.
        """

    async def edit(self, update: Update, id: str, message: Message) -> bool:
        """Change a piece that was sent; False if the platform cannot."""
        return False

    def pace(self, update: Update) -> float | None:
        """Seconds between two changes of a text that grows in this chat; None if a text is sent
        when it is complete."""
        return None

    async def open(self, url: str, most: int) -> bytes | None:
        """The bytes of a file that a person has sent, by its attachment's `url`; None if this is
        not such an address. Raises Refused if there are none, TooLarge above `most` bytes."""
        return None

    async def taken(self, update: Update) -> None:  # noqa: B027
        """An update is stored: what the platform waits for beside the answer."""

    async def typing(self, update: Update) -> None:  # noqa: B027
        """Show that an answer is being made, for some seconds."""

    async def close(self) -> None:  # noqa: B027
        """Close the connections; nothing is sent afterwards."""


class HasGateway(Protocol):
    """The part of a runtime that is used here."""

    bot: Bot
    media: Media

    @property
    def gateway(self) -> Gateway: ...

    @property
    def settings(self) -> Settings: ...
