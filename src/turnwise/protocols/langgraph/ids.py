"""Ids: a run's is a UUID that holds the turn's number, so that no table is needed."""

from __future__ import annotations

from hashlib import blake2b
from uuid import UUID

from turnwise.errors import NotFound

_N = 48
"""Bits of a UUID that hold the number."""


def run_id(session_id: str, n: int) -> str:
    """The id of the run that is turn `n`."""
    return _uuid(b"run", session_id, n)


def checkpoint_id(session_id: str, n: int) -> str:
    """The id of the checkpoint behind turn `n`; 0 is the one before all."""
    return _uuid(b"checkpoint", session_id, n)


def turn_of(id: str, session_id: str) -> int:
    """The turn of a run of this session, or of a checkpoint. Raises NotFound."""
    try:
        n = UUID(id).int & ((1 << _N) - 1)
    except ValueError:
        raise NotFound("This run does not exist.") from None
    if str(UUID(id)) not in (run_id(session_id, n), checkpoint_id(session_id, n)):
        raise NotFound("This run does not exist.")
    return n


def _uuid(kind: bytes, session_id: str, n: int) -> str:
    digest = blake2b(session_id.encode(), digest_size=16, person=kind).digest()
    whole = int.from_bytes(digest) >> _N << _N | n
    whole = whole & ~(0xF << 76) | 8 << 76  # RFC 9562, version 8: made by a rule of one's own
    whole = whole & ~(0x3 << 62) | 2 << 62
    return str(UUID(int=whole))
