"""The header of a session: one small row, which every act on the session rewrites. Pure."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import orjson

from turnwise.conversation import Session, Status, parsed
from turnwise.errors import Damaged, StoreUnavailable

PLAIN, FORMAT = 5, 6
"""The formats of the headers that this version writes: of most sessions, and of those that have a
channel, which earlier versions do not know. One with a higher number is left alone."""


class Head:
    """The first turn of a mailbox. `keyed`: it has an idempotency key. `started_event` is the
    number of its last turn.started."""

    __slots__ = (
        "attempt",
        "first_event",
        "keyed",
        "n",
        "queued_at",
        "started_at",
        "started_event",
        "status",
        "stop",
    )

    def __init__(
        self,
        n: int,
        status: Status,
        attempt: int,
        stop: int,
        keyed: int,
        first_event: int,
        queued_at: float,
        started_at: float | None = None,
        started_event: int | None = None,
    ) -> None:
        self.n = n
        self.status: Status = status
        self.attempt = attempt
        self.stop = stop
        self.keyed = keyed
        self.first_event = first_event
        self.queued_at = queued_at
        self.started_at = started_at
        self.started_event = started_event

    def values(self) -> list[Any]:
        """Its fields, in the order of the constructor."""
        return [
            self.n,
            self.status,
            self.attempt,
            self.stop,
            self.keyed,
            self.first_event,
            self.queued_at,
            self.started_at,
            self.started_event,
        ]


class Header:
    """What every act on a session needs to know. Times are the store's, in seconds since 1970.

    `count` and `op` are its version: how many acts have changed it, and the last one. `events`,
    `turns`, `seq`: the last number given out; what is at or below `base_*` was removed by a reset.
    `open`: unfinished turns; `head` the first of them. `token`, `lease`, `origin`: the claim, when
    it lapses and the process that holds it; `written` events were written under it. `keeper`: the
    worker that caches this session. `reserved`: until then no turn starts. `ready_at`: since when
    the head waits for a worker. `states`: how often the state has changed, which is the number
    under which it is kept. `parts`: which of the larger parts there are. `asks`: those that wait
    for an answer, each [id, turn, place of its message in the reply]. `memory`: the number of the
    last memory entry; what is at or below `base_memory` was forgotten. `remembered`: bytes of all
    entries there ever were, `forgotten` of those that are gone. `used`: when it was used last, kept
    where it has an owner. `cuts`: what was taken back, each [first turn, last turn, first seq, last
    seq] in order; `taken_back` counts the acts that did so. `policy`: what a message does that
    finds the session busy, [when_busy, settle], if the session has its own. `merging`: the last
    turn that asks to be merged. `timer`: when the next one is due. `named`: a person has named it.
    `unlisted`: it is in no list. `answered`: asks that were closed last, each [id, turn, place, by
    which turn], to be open again if that is taken back. `since`: the entries that end turns up to
    this one do not say which state was before them, because an older version has written them.
    `channel`: the messenger of which the session is a chat, and `delivered` the last turn that was
    sent there, or never will be.
    """

    __slots__ = (
        "answered",
        "asks",
        "base_event",
        "base_memory",
        "base_seq",
        "base_turn",
        "channel",
        "count",
        "created",
        "cuts",
        "delivered",
        "events",
        "expires",
        "forgotten",
        "format",
        "generation",
        "head",
        "keeper",
        "lease",
        "memory",
        "merging",
        "name",
        "named",
        "op",
        "open",
        "origin",
        "owner",
        "parts",
        "policy",
        "ready_at",
        "remembered",
        "reserved",
        "seq",
        "since",
        "states",
        "taken_back",
        "timer",
        "token",
        "ttl",
        "turns",
        "unlisted",
        "used",
        "written",
    )

    def __init__(
        self,
        format: int,
        count: int,
        op: str,
        created: float,
        ttl: float,
        expires: float,
        generation: int,
        name: str | None = None,
        owner: str | None = None,
        parts: str = "",
        events: int = 0,
        turns: int = 0,
        seq: int = 0,
        base_event: int = 0,
        base_turn: int = 0,
        base_seq: int = 0,
        states: int = 0,
        open: int = 0,
        head: list[Any] | None = None,
        token: str | None = None,
        lease: float | None = None,
        origin: int | None = None,
        written: int = 0,
        keeper: str | None = None,
        reserved: float = 0,
        ready_at: float | None = None,
        asks: list[list[Any]] | None = None,
        memory: int = 0,
        base_memory: int = 0,
        remembered: int = 0,
        forgotten: int = 0,
        used: float = 0.0,
        cuts: list[list[int]] | None = None,
        taken_back: int = 0,
        policy: list[Any] | None = None,
        merging: int = 0,
        timer: float | None = None,
        named: int = 0,
        unlisted: int = 0,
        answered: list[list[Any]] | None = None,
        since: int = 0,
        channel: str | None = None,
        delivered: int = 0,
    ) -> None:
        self.format = format
        self.count = count
        self.op = op
        self.created = created
        self.ttl = ttl
        self.expires = expires
        self.generation = generation
        self.name = name
        self.owner = owner
        self.parts = parts
        self.events = events
        self.turns = turns
        self.seq = seq
        self.base_event = base_event
        self.base_turn = base_turn
        self.base_seq = base_seq
        self.states = states
        self.open = open
        self.head = Head(*head) if head is not None else None
        self.token = token
        self.lease = lease
        self.origin = origin
        self.written = written
        self.keeper = keeper
        self.reserved = reserved
        self.ready_at = ready_at
        self.asks = asks or []
        self.memory = memory
        self.base_memory = base_memory
        self.remembered = remembered
        self.forgotten = forgotten
        self.used = used
        self.cuts = cuts or []
        self.taken_back = taken_back
        self.policy = policy
        self.merging = merging
        self.timer = timer
        self.named = named
        self.unlisted = unlisted
        self.answered = answered or []
        self.since = since
        self.channel = channel
        self.delivered = delivered

    def encode(self) -> bytes:
        """The header as a JSON list, in the order of the constructor; few need the last ones."""
        rare: list[Any] = []
        channel = () if self.channel is None else (self.channel, self.delivered)
        more = (
            channel or self.taken_back or self.policy or self.merging or self.named or self.unlisted
        )
        if more or self.owner is not None or self.timer is not None or self.answered or self.since:
            rare = [
                self.asks, self.memory, self.base_memory, self.remembered, self.forgotten,
                self.used, self.cuts, self.taken_back, self.policy, self.merging, self.timer,
                self.named, self.unlisted, self.answered, self.since, *channel,
            ]  # fmt: skip
        elif self.asks or self.memory:
            rare = [
                self.asks, self.memory, self.base_memory, self.remembered, self.forgotten,
            ]  # fmt: skip
        return orjson.dumps(
            [
                FORMAT if channel else self.format,
                self.count,
                self.op,
                self.created,
                self.ttl,
                self.expires,
                self.generation,
                self.name,
                self.owner,
                self.parts,
                self.events,
                self.turns,
                self.seq,
                self.base_event,
                self.base_turn,
                self.base_seq,
                self.states,
                self.open,
                self.head and self.head.values(),
                self.token,
                self.lease,
                self.origin,
                self.written,
                self.keeper,
                self.reserved,
                self.ready_at,
                *rare,
            ]
        )

    @classmethod
    def decode(cls, body: bytes) -> Header:
        """The inverse of `encode`. Raises Damaged; WrittenByNewer for a newer format."""
        try:
            values = orjson.loads(body)
            if values[0] > FORMAT:
                raise WrittenByNewer("A newer Turnwise has written this session.")
            return cls(*values)
        except (ValueError, TypeError, LookupError):
            raise Damaged() from None

    @property
    def version(self) -> str:
        """A value that no other commit on this session ever had."""
        return f"{self.count:x}.{self.op}"

    @property
    def epoch(self) -> tuple[float, int, int]:
        """The session's period since it was created or reset, or since something of it was taken
        back."""
        return self.created, self.base_seq, self.taken_back

    def view(self, id: str, metadata: bytes | None, private: bytes | None = None) -> Session:
        """The session as its owner sees it, and what only its host sees."""
        running = self.head is not None and self.head.status == "running"
        return Session(
            id=id,
            name=self.name,
            metadata=parsed(metadata, id) if metadata else {},
            created_at=self.created,
            expires_at=self.expires,
            ttl=self.ttl,
            status="running" if running else "queued" if self.open else "idle",
            turns=self.turns - self.base_turn - sum(c[1] - c[0] + 1 for c in self.cuts),
            messages=self.seq - self.base_seq - sum(c[3] - c[2] + 1 for c in self.cuts),
            last_event=self.events,
            generation=self.generation,
            owner=self.owner,
            private=parsed(private, id) if private else {},
            used_at=self.used or None,
        )


class WrittenByNewer(StoreUnavailable):
    """A newer version has written this session; the others can be worked on."""


def readable(body: bytes | None) -> Header | None:
    """A header; None if there is none, or one that cannot be read and must hold up no other."""
    try:
        return None if body is None else Header.decode(body)
    except (Damaged, WrittenByNewer):
        return None


def needed_from(body: bytes | None) -> float:
    """The number of the first event that an open turn needs: what lies before may be removed. Of a
    session whose header cannot be read, nothing may."""
    header = readable(body)
    if header is None:
        return math.inf if body is None else 0.0
    return math.inf if header.head is None else header.head.first_event


PLACED = 1.0
"""A session that is ready within so many seconds gets a place in the line, and the others when they
are due. The line is taken in order of places, and within one by the time since when they are ready.
A session gets the place of the first of the line, but one behind the last of its own owner's. So
owners are served in turns, a session of each, and a session without an owner as if it were one."""


class Owned(NamedTuple):
    """By what the sessions of an owner are found: when it was used last, and how many turns of it
    are open and running. used: None for one that is in no list."""

    owner: str
    used: float | None
    open: int
    running: int


class Index(NamedTuple):
    """The parts of a header by which a store finds sessions.

    ready: from then on any worker may take its next turn; `keeper` at once. lease, origin: when its
    claim lapses, and the process that holds it. expires: when it may be deleted. owned: set if it
    has an owner. outbox: the channel on which something is to be sent.
    """

    ready: float | None
    keeper: str | None
    lease: float | None
    origin: int | None
    expires: float
    owned: Owned | None = None
    outbox: str | None = None
