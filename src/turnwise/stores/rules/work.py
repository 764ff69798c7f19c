"""What all rules share: the changes of an act, as they come together, and the turn table."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turnwise.conversation import after
from turnwise.conversation.events import Draft
from turnwise.errors import ClaimLost, NotFound
from turnwise.stores.claim import AFFINITY, Claim
from turnwise.stores.entry_events import pack
from turnwise.stores.header import PLAIN, Head, Header, Index, Owned, readable
from turnwise.stores.notices import Notice, Ready
from turnwise.stores.records import Busy
from turnwise.stores.rows import ACCEPTED, ENDED, Entry, acceptance, body, head_of, operation_of

LINE = 100
"""Maximum number of waiting turns that an event names."""
STATES = 100
"""How many earlier states of a session are kept, so that it can go back to one: those of the last
50 turns that changed it, because each of them may have followed a cut, which restores one."""


Ask = tuple[Any, ...]


@dataclass(slots=True)
class Changes:
    """The result of an act: what to commit, and the `answer` for its caller.

    header: the new one, or None if nothing changes; `was` and `index`: by what the session was and
    is found. keys: what idempotency keys stand for. states: new states, by their numbers. fresh:
    whatever the session had is removed first, and `last_version` is None for one that did not
    exist. erase: entries up to this event are removed, in slices; forgotten: memory entries up to
    this number; unlearned: memory entries from one number to another. delete: all of it.
    """

    answer: Any = None
    header: Header | None = None
    was: Index | None = None
    last_version: str | None = None
    entries: Sequence[Entry] = ()
    keys: Sequence[tuple[str, bytes]] = ()
    states: Mapping[int, bytes] = field(default_factory=dict)
    parts: Mapping[str, bytes] = field(default_factory=dict)
    notices: Sequence[Notice] = ()
    ended: Entry | None = None
    fresh: bool = False
    erase: bool = False
    forgotten: int | None = None
    unlearned: tuple[int, int] | None = None
    delete: bool = False


NOTHING = Changes()


Rule = Generator[tuple[Ask, ...], tuple[Any, ...], Changes]


Shows = Callable[[bytes | None, float], bool]
"""Whether a session with this header is shown at this time."""


Part = Generator[tuple[Ask, ...], tuple[Any, ...], Any]


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of one process. `origin` is the process's number at this store, `incarnation`
    that of the store's data (see Claim).

    `since` is set for a repetition after a lost answer: the number of the session's last event as
    it was known before. Then the act first looks whether it was done.
    """

    id: str
    origin: int
    since: int | None = None
    incarnation: int = 0


def index(header: Header) -> Index:
    """By what a session is found."""
    ready = header.ready_at
    if ready is not None:
        if header.keeper is not None:
            ready += AFFINITY
        ready = max(ready, header.reserved)
    elif header.timer is not None and header.token is None:
        ready = max(header.timer, header.reserved)
    keeper = header.keeper if header.ready_at is not None else None
    outbox = header.channel
    if outbox is not None and last_ended(header) <= header.delivered:
        outbox = None
    if header.owner is None:
        return Index(ready, keeper, header.lease, header.origin, header.expires, None, outbox)
    runs = int(header.head is not None and header.head.status == "running")
    owned = Owned(header.owner, None if header.unlisted else header.used, header.open, runs)
    return Index(ready, keeper, header.lease, header.origin, header.expires, owned, outbox)


def last_ended(header: Header) -> int:
    """The last turn before which all have ended."""
    return header.turns if header.head is None else header.head.n - 1


def alive(header: Header | None, now: float) -> bool:
    """Whether a session exists: one with an open turn or a claim does not expire."""
    return header is not None and bool(
        header.open or header.token is not None or header.expires > now
    )


def listed(body: bytes | None, now: float) -> bool:
    """Whether a session with this header is in the list; one that cannot be read is not."""
    header = readable(body)
    return header is not None and alive(header, now) and not header.unlisted


def kept(body: bytes | None, now: float) -> bool:
    """Whether there is a session with this header, in a list or not, to be read or not."""
    header = readable(body)
    return body is not None if header is None else alive(header, now)


def busy(session: str, body: bytes | None) -> Busy | None:
    """What an operator sees of a session with open turns; None of any other, and of one that cannot
    be read."""
    header = readable(body)
    if header is None or header.head is None:
        return None
    head = header.head
    worker = header.keeper if header.token is None else header.token.rpartition(".")[0]
    return Busy(
        session, header.name, header.owner, header.open,
        head.n, head.status, head.attempt, head.queued_at, head.started_at, worker,
    )  # fmt: skip


def failed_at(entries: Sequence[Entry]) -> float | None:
    """When a turn failed whose end is among an act's entries (seconds since 1970)."""
    for entry in entries:
        if entry.kind == "f":
            return float(head_of(entry)[1])
    return None


def found(header: Header | None, now: float) -> Header:
    """The header of a session that exists. Raises NotFound."""
    if header is None or not alive(header, now):
        raise NotFound("This session does not exist.")
    return header


class Work:
    """One act's changes to one header, as they come together."""

    __slots__ = ("entries", "header", "last_version", "more", "notices", "now", "op", "was")

    def __init__(self, header: Header, op: Op, now: float) -> None:
        self.header = header
        self.op = op
        self.now = now
        self.was: Index | None = index(header)
        self.last_version: str | None = header.version
        self.entries: list[Entry] = []
        self.notices: list[Notice] = []
        self.more: dict[str, Any] | None = None
        if header.format < PLAIN and header.states:
            header.since = header.turns
        header.format, header.count, header.op = PLAIN, header.count + 1, op.id

    def add(
        self,
        kind: str,
        events: int,
        text: bytes,
        *,
        turn: int | None = None,
        seq: int | None = None,
        at: float | None = None,
    ) -> None:
        """Append an entry of so many events."""
        self.header.events += events
        self.entries.append(Entry(self.header.events, kind, turn, seq, at, text))

    def also(self, name: str) -> Any:
        """What few acts change besides, to be added to: `keys`, `states`, `parts`."""
        if self.more is None:
            self.more = {"keys": [], "states": {}, "parts": {}}
        return self.more[name]

    def unlearn(self, first: int, last: int) -> None:
        """Remove these entries of the memory."""
        self.also("keys")
        assert self.more is not None
        self.more["unlearned"] = first, last

    def note(self, what: str) -> None:
        """Append an entry without events: other processes' repetitions find it by its operation."""
        self.add("o", 0, body([what, self.now, self.op.id]))

    def slide(self) -> None:
        """The session's life counts from now; a move by less than a hundredth is not worth it.
        While a timer is set, it only gets longer."""
        header = self.header
        longer = self.now + header.ttl - header.expires
        if longer > header.ttl / 100 or (header.timer is None and -longer > header.ttl / 100):
            header.expires = self.now + header.ttl

    def let_go(self) -> None:
        """The claim ends."""
        header = self.header
        header.token = header.lease = header.origin = None
        header.written = 0

    def line_up(self) -> None:
        """Mark since when the session is ready for a worker.

        Sessions are taken in the order they became ready, so one that sends a hundred messages at
        once does not delay the others.
        """
        header = self.header
        header.ready_at = self.now if header.head is not None and header.token is None else None
        if header.ready_at is not None:
            self.notices.append(Ready(max(0.0, header.reserved - self.now)))

    def done(self, answer: Any = None, **more: Any) -> Changes:
        if self.more is not None:
            more = {**self.more, **more}
        return Changes(
            answer,
            self.header,
            self.was,
            self.last_version,
            entries=self.entries,
            notices=self.notices,
            **more,
        )


def move(head: Head, act: str) -> None:
    """The one place where a turn's status changes. Raises Invalid if the table forbids it."""
    head.status = after(head.status, act)


def free(header: Header, worker: str, now: float) -> bool:
    """Whether `worker` may take the session's next turn at once."""
    if header.token is not None or header.reserved > now:
        return False
    if header.keeper is None or header.keeper == worker:
        return True
    return header.ready_at is not None and header.ready_at + AFFINITY <= now


def held(header: Header | None, claim: Claim) -> Header:
    """The header of a session that `claim` holds. Raises ClaimLost."""
    if header is None or header.token != claim.token:
        raise ClaimLost()
    return header


def token_of(worker: str, op: Op) -> str:
    """The token of a claim that `op` made: a repetition recognises its own."""
    return f"{worker}.{op.id}"


def first_generation(now: float) -> int:
    """The first generation of a session's tokens: higher than any earlier one of this id."""
    return int(now * 1000)


def born(
    now: float,
    ttl: float,
    op: Op,
    last: Header | None,
    name: str | None = None,
    owner: str | None = None,
) -> Work:
    """The header of a new session. Its numbers go on from those of the last session with this id,
    so that none is used twice."""
    made = Header(PLAIN, 0, op.id, now, ttl, now + ttl, first_generation(now), name, owner)
    if owner is not None:
        made.used = now
    if last is not None:
        made.count = last.count
        made.generation = max(made.generation, last.generation + 1)
        made.events = made.base_event = last.events
        made.turns = made.base_turn = last.turns
        made.seq = made.base_seq = last.seq
    work = Work(made, op, now)
    work.was = None if last is None else index(last)
    work.last_version = None if last is None else last.version
    return work


def done_before(op: Op, kind: str = "") -> Part:
    """The entry that this operation wrote, if it was done and its answer was lost: any, or the last
    one of a `kind`."""
    first, limit, found = op.since or 0, 200, None
    while True:
        (entries,) = yield (("log", first, limit),)
        for entry in entries:
            if operation_of(entry) == op.id and entry.kind in (kind or entry.kind):
                found = entry
                if not kind:
                    return entry
        if len(entries) < limit:
            return found
        if entries[-1].last == first:  # so many acts without an event
            limit *= 2
        first = entries[-1].last


def write(work: Work, drafts: Sequence[Draft]) -> None:
    head = work.header.head
    assert head is not None
    packed = body([head.n, work.now, work.op.id], pack(drafts))
    work.add("d", len(drafts), packed, at=work.now)


def queued(entry: Entry) -> Head:
    """The turn that an entry of acceptance adds, as it waits."""
    n, first, at = acceptance(entry)
    return Head(n, "queued", 0, 0, int(head_of(entry)[4] is not None), first, at)


def waiting(work: Work, first: int, limit: int | None) -> Part:
    """Entries of acceptance of open turns from `first` on, with what this act has written itself:
    the store does not have that yet."""
    (entries,) = yield (("open", first, limit),)
    if not work.entries:
        return entries
    found = {entry.turn: entry for entry in entries}
    for entry in work.entries:
        if entry.kind in ACCEPTED and (entry.turn or 0) >= first:
            found[entry.turn] = entry
        elif entry.kind in ENDED:
            found.pop(entry.turn, None)
    return list(found.values())[:limit]
