"""The promise of every store.

Each method of `Store` that changes data is one atomic act: it happens completely or not at all, and
once it has returned, its result is as durable as the store can make it. An act that raises has
changed nothing. All processes see the acts on one session in the same order; acts on different
sessions never wait for each other's turns.

A *claim* is the exclusive right to run a session's next turn: a lease, and a token that is
compared for equality inside every act that uses it. An act with a token that is no longer valid
for the session raises ClaimLost and changes nothing.

A *listener* receives notices of commits: of this process at once, of other processes soon (SQLite:
within about 20 ms) and their events only for sessions that are followed in this process. A notice
is true but may arrive twice or, from other processes, out of order: events have numbers, and the
log is authoritative.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from turnwise.conversation import Policy, Session, Status, TurnRecord
from turnwise.conversation.events import Draft
from turnwise.stores.claim import Claim, Desk, Outcome, Renewal
from turnwise.stores.notices import Listener
from turnwise.stores.outboxes import Outboxes
from turnwise.stores.records import (
    Busy,
    FileRecord,
    History,
    Log,
    Place,
    Submission,
    Submitted,
    Timer,
)
from turnwise.stores.rows import Remembered
from turnwise.stores.whole import Whole


class Store(Outboxes):
    """Stores sessions, mailboxes and event logs. All times are seconds of the store's clock."""

    durability: str = ""
    """How durable acknowledged data is in this store, in a sentence."""

    # Life

    @abstractmethod
    async def open(self) -> None:
        """Connect, and bring the schema up to this version. Raises StoreUnavailable."""

    async def earlier(self) -> tuple[bytes, AsyncIterator[Whole]] | None:
        """What an older version has left here, if this one can only read it, so that `open` refuses
        it: the secret, and every session. Raises StoreUnavailable."""
        return None

    @abstractmethod
    async def close(self) -> None:
        """Finish the pending acts and disconnect."""

    @abstractmethod
    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for every notice until the returned function is called."""

    def follow(self, session: str) -> None:
        """Start to deliver the events that other processes append to `session`."""

    def unfollow(self, session: str) -> None:
        """One follower of `session` less."""

    @abstractmethod
    async def secret(self) -> bytes:
        """The 32 bytes that sign tokens: created on first use, the same for all processes."""

    @abstractmethod
    async def adopt(self, secret: bytes) -> None:
        """Sign tokens with another store's secret; processes that run already do not."""

    @abstractmethod
    async def publish(self, name: str, value: bytes | None) -> None:
        """Keep a fact for all processes, by its name; None removes it."""

    @abstractmethod
    async def published(self, names: str) -> dict[str, bytes]:
        """The fact with this name; if it ends with a colon, or is empty, all that begin so."""

    @abstractmethod
    async def sweep(self, *, retention: float, limit: int = 200) -> int:
        """Delete sessions that expired and events older than `retention` seconds.

        Events of an unfinished turn stay. Returns how many sessions were deleted. It removes all
        that is overdue, about `limit` at a time, and other callers go between.
        """

    @abstractmethod
    async def ping(self) -> None:
        """Return when the store can write. Raises StoreUnavailable."""

    @abstractmethod
    async def waiting(self) -> int:
        """The number of sessions with a turn that is ready and waits for a worker."""

    @abstractmethod
    async def busy(self, limit: int) -> list[Busy]:
        """Sessions with open turns, at most `limit` of those that run and of those that wait."""

    @abstractmethod
    async def failing(self, limit: int) -> list[str]:
        """Sessions of which a turn has failed, the last one first."""

    @abstractmethod
    async def facts(self) -> dict[str, str]:
        """What `turnwise check` prints: versions, sizes, settings."""

    # Sessions

    @abstractmethod
    async def create(
        self,
        session: str,
        *,
        ttl: float,
        name: str | None = None,
        metadata: bytes = b"{}",
        owner: str | None = None,
        private: bytes = b"{}",
        messages: Sequence[bytes] = (),
        unlisted: bool = False,
        policy: Policy | None = None,
    ) -> Session:
        """Create a session, or return the existing one; see Creation. Raises NotFound if that is
        another owner's."""

    @abstractmethod
    async def session(self, session: str) -> Session | None:
        """The session, or None when there is none or it has expired."""

    @abstractmethod
    async def sessions(self, *, after: str = "", limit: int = 100) -> list[Session]:
        """Sessions in order of their ids."""

    @abstractmethod
    async def ids(self, *, after: str = "", limit: int = 100) -> list[str]:
        """Ids of all sessions that exist, in order: also of those that are in no list or cannot be
        read."""

    @abstractmethod
    async def owned(self, owner: str, *, before: Place | None, limit: int) -> list[Session]:
        """Sessions of an owner, the last used first, from behind a place on."""

    @abstractmethod
    async def own(self, session: str, owner: str) -> Session:
        """Give a session without an owner to `owner`. Raises NotFound, OwnerSet."""

    @abstractmethod
    async def update(self, session: str, changes: Mapping[str, Any]) -> Session:
        """Change `name`, `metadata`, `private` (encoded), `ttl` or `policy`. Raises NotFound."""

    @abstractmethod
    async def fork(self, session: str, at: int | None, fresh: str, name: str | None) -> Session:
        """Make a session `fresh` that is this one up to turn `at` (None: its last one).

        Raises NotFound, Superseded, TooFarBack.
        """

    @abstractmethod
    async def rotate(self, session: str) -> int:
        """Begin a new generation of tokens and return it. Raises NotFound."""

    @abstractmethod
    async def reset(self, session: str) -> Session:
        """Delete messages, state, mailbox and log; cancel open turns; numbers continue."""

    @abstractmethod
    async def delete(self, session: str) -> bool:
        """Delete the session and all its data. Returns whether it existed."""

    @abstractmethod
    async def whole(self, session: str) -> Whole | None:
        """All that is kept of a session, or None: no such session."""

    @abstractmethod
    async def put(self, moved: Whole) -> bool:
        """Put a session of another store here. Returns False if there is one with its id."""

    # Turns

    @abstractmethod
    async def submit(
        self,
        submission: Submission,
        desk: Desk | None = None,
        take: Callable[[Claim | None], None] | None = None,
    ) -> Submitted:
        """Put a message into the mailbox; claim it for `desk` if the session is idle.

        If `desk` is given, `take` is called exactly once: with the claim after the commit, even if
        the caller was cancelled, or with None. Raises NotFound, Unauthorized (the generation is
        not the session's), KeyReused, QueueFull.
        """

    @abstractmethod
    async def schedule(self, submission: Submission, at: float) -> Timer | None:
        """Submit at a time (seconds since 1970); None if this key has been submitted already.

        Raises NotFound, KeyReused, QueueFull.
        """

    @abstractmethod
    async def unschedule(self, session: str, key: str) -> bool:
        """Forget what was to be submitted with this key. Returns whether there was such a timer."""

    @abstractmethod
    async def timers(self, session: str) -> list[Timer]:
        """What is to be submitted, in order of the times. Raises NotFound."""

    @abstractmethod
    async def claim(self, desk: Desk, limit: int) -> list[Claim]:
        """Claim up to `limit` sessions, longest waiting first; expired leases count as waiting."""

    @abstractmethod
    async def append(self, claim: Claim, drafts: Sequence[Draft]) -> bool:
        """Append events of the running turn; returns whether the turn should stop."""

    @abstractmethod
    async def finish(self, claim: Claim, outcome: Outcome) -> Claim | None:
        """End the turn: question, replies, state and final event in one act.

        Returns the claim on the session's next turn if `outcome.next_desk` asked for one.
        """

    @abstractmethod
    async def release(self, claim: Claim) -> None:
        """Return the turn to the mailbox; the attempt does not count. Not an error if lost."""

    @abstractmethod
    async def renew(self, claims: Sequence[Claim], lease: float) -> Renewal:
        """Extend the leases of `claims` to `lease` seconds from now."""

    @abstractmethod
    async def hold(self, session: str, owner: str, lease: float) -> Claim | None:
        """Claim the session itself, between turns; None while a turn runs.

        After a result of None no new turn starts for some seconds, so that a retry succeeds.
        Raises NotFound.
        """

    @abstractmethod
    async def save(self, claim: Claim, state: bytes | None) -> None:
        """Release a held session; write `state` unless it is None."""

    @abstractmethod
    async def remember(
        self,
        claim: Claim,
        entries: Sequence[bytes],
        limit: int,
        *,
        operation: str | None = None,
        again: bool = False,
    ) -> int:
        """Add entries (JSON) to the session's memory; returns the number of the last one.

        They stay however the turn ends. `again`: an earlier call with this `operation` was given
        up, and may have added them. Raises MemoryFull beyond `limit` bytes.
        """

    @abstractmethod
    async def forget_memory(self, claim: Claim, before: int) -> int:
        """Forget the memory entries below the number `before`; returns the last that is gone."""

    @abstractmethod
    async def memory(
        self, session: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[Remembered]:
        """The last `limit` memory entries above the number `after`, oldest first.

        Raises NotFound.
        """

    @abstractmethod
    async def forget(self, worker: str, sessions: Sequence[str]) -> None:
        """`worker` no longer caches these sessions: any worker may take their next turn at once."""

    @abstractmethod
    async def cancel(self, session: str, turn: int) -> TurnRecord:
        """Withdraw a queued turn or ask a running one to stop; a finished turn does not change.

        Raises NotFound.
        """

    @abstractmethod
    async def stop(self, session: str, key: str | None = None) -> list[TurnRecord]:
        """Ask the running turn to stop and withdraw all that wait; returns those turns.

        The same key stops once. Raises NotFound, KeyReused.
        """

    @abstractmethod
    async def change(self, session: str, turn: int, text: str) -> TurnRecord:
        """Change the text of a queued turn. Raises NotFound, NotQueued."""

    @abstractmethod
    async def judge(self, session: str, message: str, feedback: Mapping[str, Any]) -> None:
        """Keep a person's feedback on a message. Raises NotFound."""

    # Files

    @abstractmethod
    async def attach(self, session: str, file: FileRecord, limit: int) -> None:
        """Add a file to a session, whose files have at most `limit` bytes. Raises NotFound,
        TooLarge."""

    @abstractmethod
    async def files(self, session: str) -> Mapping[str, FileRecord] | None:
        """The session's files by their ids, or None: no such session."""

    @abstractmethod
    async def forget_files(self, session: str, before: float) -> list[str]:
        """Forget files that no message names and that came before a time; returns their ids."""

    # Reading

    @abstractmethod
    async def turn(self, session: str, n: int) -> TurnRecord | None:
        """One turn, or None."""

    @abstractmethod
    async def turn_by_key(self, session: str, key: str) -> TurnRecord | None:
        """The turn that a submission with this key created, or None."""

    @abstractmethod
    async def turns(
        self,
        session: str,
        *,
        status: Status | None,
        before: int | None,
        after: int | None,
        limit: int,
        superseded: bool = False,
    ) -> tuple[list[TurnRecord], bool]:
        """Turns in order, and whether there are more (the latest ones unless `after` is given).

        Those that were taken back are left out unless `superseded`.
        """

    @abstractmethod
    async def history(
        self,
        session: str,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 50,
        superseded: bool = False,
    ) -> History:
        """The latest messages (or those around a `seq`) and the open turns, as one snapshot."""

    @abstractmethod
    async def state(self, session: str) -> bytes:
        """The session's state as JSON."""

    @abstractmethod
    async def log(
        self,
        session: str,
        after: int,
        *,
        limit: int = 500,
        turn: int | None = None,
        tag: str = "",
    ) -> Log | None:
        """The events after number `after` (of one `turn` if given), or None: no such session.

        With `tag` the event at `after` must be the one that has it; see Cursor.
        """
