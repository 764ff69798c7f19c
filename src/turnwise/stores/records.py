"""Records: what is given to a store and what it returns, beside sessions, turns and claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from turnwise.conversation import (
    QUEUE,
    Answer,
    Message,
    Policy,
    Status,
    TurnRecord,
    WhenBusy,
)
from turnwise.conversation.events import Event

Place = tuple[float, str]
"""Where a session stands in the list of its owner's: when it was used last, and its id."""


@dataclass(slots=True)
class Submission:
    """A message to be submitted as a turn. `message` is encoded.

    `key` makes the act idempotent: the same key and `fingerprint` return the existing turn.
    `generation` is the token's, checked inside the act (None: the caller is trusted), and `owner`
    whose session it must be. `create`: create the session if it does not exist. `limit` is the
    maximum size of the mailbox, `owner_limit` of open turns of one owner. `answers`: what the
    message answers. `note`: JSON of the door that brings it.
    `reason` and `given` are for turns without a message; see Question. `replaces`: the turn that is
    taken back, with all behind it; with `again` its own message is submitted once more. `behind`:
    the turn that must be the session's last one.
    `when_busy` and `settle` (seconds) say what happens if earlier messages are unanswered; without
    them the session's own policy does, or `policy`. `files`: the session's files that it names.
    `address`: the messenger's channel, and where on it the chat is (JSON). `group`: it is a part of
    a message that comes in parts, for which `settle` seconds are waited.
    """

    session: str
    message: bytes
    key: str | None = None
    fingerprint: str = ""
    limit: int = 100
    generation: int | None = None
    create: bool = False
    ttl: float = 0.0
    answers: Sequence[Answer] = ()
    note: bytes | None = None
    owner: str | None = None
    owner_limit: int | None = None
    reason: str | None = None
    given: Sequence[bytes] = ()
    replaces: int | None = None
    again: bool = False
    behind: int | None = None
    when_busy: WhenBusy | None = None
    settle: float = 0.0
    policy: Policy = QUEUE
    files: Sequence[str] = ()
    address: tuple[str, Any] | None = None
    group: str | None = None


@dataclass(slots=True)
class Creation:
    """A session to be created. `metadata` and `private` are encoded; it expires `ttl` seconds after
    its last turn. `messages` are its history at the beginning, encoded. `unlisted`: it is in no
    list. `policy`: its own answer to a message that finds it busy."""

    ttl: float
    name: str | None = None
    metadata: bytes = b"{}"
    owner: str | None = None
    private: bytes = b"{}"
    messages: Sequence[bytes] = ()
    unlisted: bool = False
    policy: Policy | None = None


def is_many(names: str) -> bool:
    """Whether this stands for all published facts whose names begin so."""
    return not names or names.endswith(":")


class Timer(NamedTuple):
    """What the bot is to say when it is `at` (seconds since 1970): for a `reason`, or what is
    `given` (messages, encoded)."""

    at: float
    key: str
    reason: str | None = None
    given: Sequence[bytes] = ()
    fingerprint: str = ""


class FileRecord(NamedTuple):
    """A file of a session: its name, its media type, its bytes, when it came (seconds since 1970),
    and the first turn that names it."""

    id: str
    name: str
    type: str
    size: int
    at: float = 0.0
    turn: int | None = None


class Busy(NamedTuple):
    """A session with open turns: how many, and the first of them. `worker` runs it, or is the one
    that has the session in its cache; times are seconds since 1970."""

    session: str
    name: str | None
    owner: str | None
    open: int
    n: int
    status: Status
    attempt: int
    queued_at: float
    started_at: float | None
    worker: str | None


class Delivery(NamedTuple):
    """What a messenger has to send: on which channel, where to, the last turn that was delivered,
    the session's last turn, and of some turns, by their numbers as texts, what has become of their
    pieces."""

    channel: str
    to: Any
    delivered: int
    last: int
    turns: Mapping[str, list[Any]]


class Submitted(NamedTuple):
    """The result of a submission: the turn and whether this call created it."""

    turn: TurnRecord
    created: bool


class History(NamedTuple):
    """The history, the open turns, the event number to follow from, with its event's tag, and the
    ids of the asks that wait for an answer.

    The events after `cursor` contain the whole output of the running turn and all later events, but
    none of the messages that are already in the history.
    """

    messages_json: list[bytes]
    has_more: bool
    open: list[TurnRecord]
    cursor: int
    tag: str = ""
    asks: Sequence[str] = ()

    @property
    def messages(self) -> list[Message]:
        """The messages, decoded."""
        return [Message.decode(message) for message in self.messages_json]


class Log(NamedTuple):
    """A page of a session's event log, read as one snapshot.

    `events` are those after the cursor that was asked for; the log holds events from `floor` + 1
    to `last`. A cursor below `floor` or above `last` cannot be continued: that is a gap.
    `resume` is set if the event at the cursor is another one than the cursor names: a gap, after
    which it goes on from there.
    """

    events: list[Event]
    floor: int
    last: int
    resume: int | None = None
