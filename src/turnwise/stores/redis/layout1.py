"""Layout 1: sessions in Redis as versions before this one kept them. They are only read.

Of a session there are s: a hash of its row, its turns ("t5" a header, "q5" the question, "e5" the
error, "u5" usage) and its keys ("k:key"); q: the mailbox; m: its messages; l: its log. Times are
microseconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Connection

from turnwise.conversation.events import Event
from turnwise.errors import Damaged
from turnwise.stores.earlier import Earlier, Turn
from turnwise.stores.redis.keys import Names, decoded
from turnwise.stores.redis.routes import Routes
from turnwise.stores.skipping import skip
from turnwise.stores.whole import Whole

SCHEMA = 1
PAGE = 500


async def sessions(routes: Routes, names: Names) -> AsyncIterator[Whole]:
    """Every session."""
    for base in names.bases:
        connection = await routes.connect(base)
        try:
            last = b"-"
            while page := await _ask(
                connection, "ZRANGEBYLEX", base + b"ids", last, "+", "LIMIT", 0, PAGE
            ):
                for id in page:
                    try:
                        found = await _session(connection, base, id)
                    except (ValueError, TypeError, LookupError):
                        skip(decoded(id), Damaged())
                        continue
                    if found is not None:
                        yield found
                last = b"(" + page[-1]
        finally:
            await connection.disconnect()


async def _ask(connection: Connection, *command: Any) -> Any:
    await connection.send_command(*command)
    return await connection.read_response()


async def _session(connection: Connection, base: bytes, id: bytes) -> Whole | None:
    flat = await _ask(connection, "HGETALL", base + b"s:" + id)
    row = dict(zip(flat[::2], flat[1::2], strict=True))
    if b"created" not in row:
        return None  # its keys have expired
    mailbox = await _ask(connection, "LRANGE", base + b"q:" + id, 0, -1)
    stored = await _ask(connection, "LRANGE", base + b"m:" + id, 0, -1)
    log = await _ask(connection, "XRANGE", base + b"l:" + id, "-", "+")
    ready = await _ask(connection, "ZSCORE", base + b"ready", id)
    return _earlier(decoded(id), row, mailbox, stored, log, ready).whole()


def _earlier(
    session: str, row: dict[bytes, bytes], mailbox: Any, stored: Any, log: Any, ready: Any
) -> Earlier:
    def number(field: bytes) -> int:
        return int(float(row.get(field) or 0))

    def time(field: bytes) -> float | None:
        return None if row.get(field) is None else _seconds(row[field])

    def text(field: bytes) -> str | None:
        return None if row.get(field) is None else row[field].decode()

    first = number(b"base_seq") + 1
    messages = [message.partition(b" ")[2] for message in stored]
    events = [pair for _, fields in log for pair in _events(fields)]
    return Earlier(
        session=session,
        name=text(b"name"),
        metadata=row[b"metadata"],
        created=time(b"created") or 0.0,
        ttl=time(b"ttl") or 0.0,
        expires=time(b"expires") or 0.0,
        generation=number(b"generation"),
        last_event=number(b"last_event"),
        floor=number(b"floor"),
        last_turn=number(b"last_turn"),
        base_turn=number(b"base_turn"),
        last_seq=number(b"last_seq"),
        base_seq=number(b"base_seq"),
        open=len(mailbox),
        token=text(b"token"),
        lease=time(b"lease"),
        origin=None,
        ready=None if ready is None else _seconds(ready),
        keeper=text(b"keeper"),
        reserved=time(b"reserved") or 0.0,
        state=row.get(b"state"),
        turns=_turns(row),
        log=events,
        messages=lambda low, high: messages[low - first : high - first + 1],
    )


def _seconds(micros: bytes) -> float:
    """A time in whole milliseconds, cut off as those versions showed it."""
    return int(float(micros)) // 1000 / 1000


def _events(fields: list[bytes]) -> list[tuple[Event, float]]:
    """The events of an entry of the log, and when they were written."""
    entry = dict(zip(fields[::2], fields[1::2], strict=True))
    first, *parts = entry[b"e"].split(b"\n")
    at = _seconds(entry[b"a"])
    threes = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return [
        (Event(int(first) + i, type.decode(), int(turn or 0) or None, tail), at)
        for i, (type, turn, tail) in enumerate(threes)
    ]


def _turns(row: dict[bytes, bytes]) -> list[Turn]:
    keys: dict[int, tuple[str, str]] = {}
    for field, value in row.items():
        if field.startswith(b"k:"):
            n, _, fingerprint = value.partition(b" ")
            keys[int(n)] = decoded(field[2:]), fingerprint.decode()
    numbers = (int(field[1:]) for field in row if field[:1] == b"t" and field[1:].isdigit())
    return [_turn(row, n, *keys.get(n, (None, None))) for n in sorted(numbers)]


def _turn(row: dict[bytes, bytes], n: int, key: str | None, fingerprint: str | None) -> Turn:
    words = [None if word == b"-" else word for word in row[b"t%d" % n].split(b" ")]
    status, attempt, seq, replies, queued, started, finished, first, started_event = words[:9]

    def time(word: bytes | None) -> float | None:
        return None if word is None else _seconds(word)

    return Turn(
        n=n,
        status=(status or b"").decode(),
        attempt=int(attempt or 0),
        stop=int(float(row.get(b"stop") or 0) == n),
        message=row.get(b"q%d" % n),
        seq=None if seq is None else int(seq),
        replies=int(replies or 0),
        error=row.get(b"e%d" % n),
        usage=row.get(b"u%d" % n),
        key=key,
        fingerprint=fingerprint,
        queued_at=time(queued) or 0.0,
        started_at=time(started),
        finished_at=time(finished),
        first_event=int(first or 0),
        started_event=None if started_event is None else int(started_event),
    )
