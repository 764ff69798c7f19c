"""Claim: a worker's right to run a turn, how it is asked for, and how the turn ends under it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from turnwise.conversation.events import Draft, dumps
from turnwise.identity import operation

AFFINITY = 0.4
"""Seconds that a turn waits for the worker that caches its session; then any may take it."""
RESERVATION = 3.0
"""Seconds that a session starts no new turn after a failed request for exclusive access."""
EXHAUSTED = {
    "code": "attempts_exhausted",
    "message": "The bot stopped working each time it tried to answer this message.",
    "retryable": False,
}

Told = Literal[0, 1, 2, 3]
BEFORE: Told = 0
"""Drafts contain all events of the replies' messages before they are committed."""
DELTA_ONLY: Told = 1
"""A reply in one piece as earlier versions stored it: only its delta is derived."""
WHOLE: Told = 3
"""No draft belongs to the only reply, which was returned in one piece: its events are derived."""
UNENDED: Told = 2
"""Drafts contain all but the end of the last message, which is derived."""
Epoch = tuple[float, int, int]
"""A session's period since its creation, its last reset, or the last time that something was taken
back; data cached in another is invalid."""
NO_EPOCH: Epoch = (0.0, 0, 0)


class Desk(NamedTuple):
    """A worker's request for turns: the worker, the lease, and what it has cached.

    `lease` is in seconds. `history` is how many messages a handler sees; `known(session)` returns
    the `seq` up to which the worker has cached that session's messages, and their epoch.
    `owner_limit`: how many turns of one owner may run at once.
    """

    worker: str
    lease: float
    max_attempts: int
    history: int
    known: Callable[[str], tuple[Epoch, int]]
    owner_limit: int | None = None


@dataclass(slots=True)
class Claim:
    """The exclusive right to run one turn (or, with `turn` 0, to change the state).

    `history` are the session's last messages whose `seq` is above `history_from`, placed and
    encoded, up to `seq`; it is not `whole` if there are more that the worker did not request or may
    have cached. `message` is empty where there is a `reason` instead. `asks` are the ids of those
    that wait for an answer. `memory` is the number of the last memory entry, `base_memory` of the
    last one that was forgotten. `written` counts the events written under the claim. `incarnation`
    changes when the store was unreachable: it may have lost the latest data that was read from it.
    """

    session: str
    token: str
    turn: int = 0
    attempt: int = 0
    name: str | None = None
    owner: str | None = None
    metadata: bytes = b"{}"
    private: bytes = b"{}"
    message: bytes = b""
    note: bytes | None = None
    reason: str | None = None
    asks: Sequence[str] = ()
    state: bytes = b"{}"
    memory: int = 0
    base_memory: int = 0
    seq: int = 0
    history: Sequence[bytes] = ()
    history_from: int = 0
    whole: bool = True
    epoch: Epoch = NO_EPOCH
    incarnation: int = 0
    queued_at: float = 0.0
    started_at: float = 0.0
    first_event: int = 0
    written: int = 0


@dataclass(slots=True)
class Outcome:
    """How a turn ended. `replies` are encoded messages; `drafts` events to append before them.

    `told` says which events of the replies are derived, because no draft contains them. `asks`: the
    places of the replies that ask, with the ids of their asks. `steps` and `data` (JSON) are kept
    with the turn.
    `state` is the new state, or None where it did not change; `name` the session's new name, which
    does not take the place of one that a person has given. `next_desk` asks to claim the
    session's next turn in the same act; `keep`: this worker holds the session's `local`.
    An outcome is one operation, however often it is retried; `said` are the turn's messages in the
    history, placed, once it is committed.
    """

    status: Literal["completed", "failed", "cancelled"]
    replies: Sequence[bytes] = ()
    drafts: Sequence[Draft] = ()
    told: Told = BEFORE
    asks: Sequence[tuple[int, str]] = ()
    steps: Sequence[Any] = ()
    data: Sequence[Any] = ()
    state: bytes | None = None
    name: str | None = None
    error: Mapping[str, Any] | None = None
    usage: bytes | None = None
    next_desk: Desk | None = None
    keep: str | None = None
    operation: str = field(default_factory=operation)
    said: Sequence[bytes] = ()

    @property
    def error_json(self) -> bytes | None:
        """The error, encoded."""
        return dumps(self.error) if self.error is not None else None


class Renewal(NamedTuple):
    """The result of a renewal: the lost tokens, the turns that should stop, and the tokens whose
    state is unknown to the store."""

    lost: frozenset[str]
    cancelled: frozenset[str]
    unknown: frozenset[str] = frozenset()
