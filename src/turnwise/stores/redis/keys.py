"""What stands in Redis: the names of all keys, and how an entry is kept. Pure.

Of a session, in its partition:

    h:<id>   a hash: v its version, h its header, b its birth (the version with which it was
             created), z its horizon, o its owner, p<name> a larger part, k<key> an idempotency key,
             t<n> a turn: the whole entry of its acceptance while it is open, then where its end is
    s:<id>   a hash: its states, by their numbers
    e:<id>   a stream: its entries, but those of running attempts
    d:<id>   a stream: what its attempts wrote while they ran
    m:<id>   a stream: its memory, by the numbers of the entries

An entry's id in a stream is the number of its last event, and then what orders entries of one
number. Of a partition: ids, ready, line (places), later (not yet in the line), leases, expiry, trim
and failed (sorted sets of sessions), keepers and erasing (hashes). Of an owner: o:<owner> the
sessions by their last use, r:<owner> those in the line, n:<owner> the numbers of open and running
turns. Of a messenger's channel: x:<channel> the sessions with something to be sent.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from turnwise.stores.rows import Entry

PLACES = 1 << 20
"""The entries that one act may write under one event number."""
TOLD = b"\0"
"""Stands between the entries of a message: no entry holds it, for what is in it is JSON."""


class Names:
    """The names of a store's keys. All keys of a partition have the same hash tag, so a Cluster
    stores them on one server."""

    def __init__(self, prefix: str, partitions: int) -> None:
        self.partitions = partitions
        self.bases = [f"{prefix}:{{{prefix}.{i}}}:".encode() for i in range(partitions)]

    def partition(self, session: str) -> int:
        """The number of a session's partition."""
        return zlib.crc32(encoded(session)) % self.partitions if self.partitions > 1 else 0

    @property
    def meta(self) -> bytes:
        """The hash with the shared facts: the secret, the schema, the number of partitions."""
        return self.bases[0] + b"meta"


def encoded(text: str) -> bytes:
    """An id or a key, as it is kept: any text is possible."""
    return text.encode("utf-8", "surrogatepass")


def decoded(id: bytes) -> str:
    return id.decode("utf-8", "surrogatepass")


class Place(NamedTuple):
    """Where a turn's end is: its id in the stream, its kind and the seq of its first message."""

    id: bytes
    kind: str
    seq: int | None


def pack(entry: Entry) -> bytes:
    """An entry as one value."""
    last, kind, turn, seq, at, body = entry
    return b"%d %s %s %s %s\n%s" % (last, kind.encode(), _text(turn), _text(seq), _text(at), body)


def _text(number: float | None) -> bytes:
    return b"-" if number is None else repr(number).encode()


def unpack(value: bytes) -> Entry:
    """The inverse of `pack`."""
    head, _, body = value.partition(b"\n")
    last, kind, turn, seq, at = head.split(b" ")
    return Entry(
        int(last),
        kind.decode(),
        None if turn == b"-" else int(turn),
        None if seq == b"-" else int(seq),
        None if at == b"-" else float(at),
        body,
    )


def pack_place(id: bytes, entry: Entry) -> bytes:
    """What is kept of a turn whose end is the entry with this id."""
    return b"@%s %s %s" % (id, entry.kind.encode(), _text(entry.seq))


def unpack_turn(value: bytes) -> Entry | Place:
    """An open turn's acceptance, what a reset has left of a turn, or where its end is."""
    if not value.startswith(b"@"):
        return unpack(value)
    id, kind, seq = value[1:].split(b" ")
    return Place(id, kind.decode(), None if seq == b"-" else int(seq))
