"""Decodes the answers of the scripts in lua/.

The scripts answer with arrays of bytes and integers; times are microseconds since 1970.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from turnwise.conversation import Session, Status, TurnRecord, events, placed
from turnwise.errors import (
    ClaimLost,
    KeyReused,
    NotFound,
    QueueFull,
    TurnwiseError,
    Unauthorized,
)
from turnwise.stores.base import Claim
from turnwise.stores.notices import Appended, Notice, Ready, Signal
from turnwise.stores.redis.subscriber import events_of

MICRO = 1_000_000


class Names:
    """The names of all keys, defined only here (and in lua/common.lua, which adds its suffixes to
    a partition's base).

    All keys of a partition have the same hash tag, so a Cluster stores them on one server.
    """

    def __init__(self, prefix: str, partitions: int) -> None:
        self.partitions = partitions
        self.bases = [f"{prefix}:{{{prefix}.{i}}}:".encode() for i in range(partitions)]

    def partition(self, session: str) -> tuple[int, bytes]:
        """A session's partition and its id as bytes, which end a key: any text is possible.

        Session ids are validated where sessions are created.
        """
        ident = session.encode("utf-8", "surrogatepass")
        return (zlib.crc32(ident) % self.partitions if self.partitions > 1 else 0), ident

    @property
    def meta(self) -> bytes:
        """The hash with the shared facts: the secret, the schema, the number of partitions."""
        return self.bases[0] + b"meta"


def refusal(code: bytes) -> TurnwiseError:
    """The error for a script's refusal."""
    match code:
        case b"no_session":
            return NotFound("This session does not exist.")
        case b"no_turn":
            return NotFound("This turn does not exist.")
        case b"unauthorized":
            return Unauthorized()
        case b"key_reused":
            return KeyReused()
        case b"queue_full":
            return QueueFull()
        case _:
            return ClaimLost()


def notices(found: Sequence[Any]) -> Iterator[Notice]:
    """The notices of an act."""
    for kind, *rest in found:
        if kind == b"events":
            session, text = rest
            yield Appended(session.decode(), events=events_of(text))
        elif kind == b"signal":
            signal, session, turn = rest
            yield Signal(signal.decode(), session.decode(), turn)
        else:
            yield Ready()


def moment(text: bytes) -> float | None:
    return None if text == b"-" else int(text) / MICRO


def session_of(found: Sequence[Any]) -> Session:
    """A session from `told` in lua/common.lua."""
    ident, name, metadata, created, ttl, expires, generation = found[:7]
    turns, messages, last_event, waiting, running, named = found[7:]
    return Session(
        id=ident.decode(),
        name=name.decode() if named else None,
        metadata=events.loads(metadata),
        created_at=int(created) / MICRO,
        expires_at=int(expires) / MICRO,
        ttl=int(ttl) / MICRO,
        status="idle" if not waiting else "running" if running else "queued",
        turns=turns,
        messages=messages,
        last_event=last_event,
        generation=int(generation),
    )


def message_of(stored: bytes, seq: int) -> bytes:
    """A message from the history, placed."""
    turn, _, body = stored.partition(b" ")
    return placed(body, int(turn), seq)


def turn_of(session: str, found: Sequence[Any]) -> TurnRecord:
    """A turn from `record` in lua/common.lua."""
    n, header, place, question, error, usage, stored = found
    n = int(n)
    status, attempt, seq, _, queued, started, finished, first, *_ = header.split(b" ")
    message: bytes | None = placed(question, n, None) if question else None
    replies: list[bytes] = []
    if stored:
        message, *replies = [message_of(body, int(seq) + i) for i, body in enumerate(stored)]
    known: Status = status.decode()
    return TurnRecord(
        session=session,
        n=n,
        status=known,
        attempt=int(attempt),
        position=place if place >= 0 else None,
        message_json=message,
        replies_json=replies,
        error_json=error or None,
        usage_json=usage or None,
        queued_at=moment(queued) or 0.0,
        started_at=moment(started),
        finished_at=moment(finished),
        first_event=int(first),
    )


def claim_of(incarnation: int, found: Sequence[Any], question: bytes | None = None) -> Claim:
    """A claim from `claimed` in lua/common.lua; `question` is its message if not included."""
    ident, token, n, attempt, name, metadata, message, state, seq = found[:9]
    first, whole, created, base_seq, queued, started, first_event, stored = found[9:]
    return Claim(
        session=ident.decode(),
        token=token.decode(),
        turn=n,
        attempt=attempt,
        name=name.decode() or None,
        metadata=metadata,
        message=message if question is None else question,
        state=state,
        seq=seq,
        history=[message_of(body, first + 1 + i) for i, body in enumerate(stored)],
        history_from=first,
        whole=bool(whole),
        epoch=(float(created), base_seq),
        incarnation=incarnation,
        queued_at=int(queued) / MICRO,
        started_at=int(started) / MICRO,
        first_event=first_event,
    )
