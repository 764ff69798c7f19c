"""Encodes the arguments of the scripts in lua/, in the order in which they read them.

answers.py decodes their answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from turnwise.conversation import TurnRecord, placed
from turnwise.conversation.events import Draft, dumps, one_line
from turnwise.errors import StoreUnavailable
from turnwise.identity import operation
from turnwise.stores.base import EXHAUSTED, Claim, Desk, Outcome, Submission, Submitted
from turnwise.stores.redis.answers import MICRO, turn_of

EXHAUSTED_JSON = dumps(EXHAUSTED)


def submit_args(wish: Submission, message: bytes, token: str, desk: Desk | None) -> tuple[Any, ...]:
    (created, base_seq), known = ((0.0, 0), 0) if desk is None else desk.known(wish.session)
    key = b"" if wish.key is None else b',"key":' + dumps(wish.key)
    return (
        operation(),
        token,
        message,
        wish.key or "",
        key,
        wish.fingerprint,
        wish.limit,
        "" if wish.generation is None else wish.generation,
        int(wish.create),
        micro(wish.ttl),
        "" if desk is None else desk.worker,
        0 if desk is None else micro(desk.lease),
        0 if desk is None else desk.history,
        known,
        int(created),
        base_seq,
    )


def finish_args(claim: Claim, outcome: Outcome, next_token: str) -> list[Any]:
    desk = outcome.next_desk
    known = desk.known(claim.session) if desk is not None else None
    return [
        outcome.operation,
        claim.token,
        claim.turn,
        claim.written,
        outcome.status,
        outcome.state or b"",
        outcome.error_json or b"",
        outcome.usage or b"",
        outcome.keep or "",
        next_token,
        "" if desk is None else desk.worker,
        0 if desk is None else micro(desk.lease),
        0 if desk is None else desk.max_attempts,
        EXHAUSTED_JSON,
        0 if desk is None else desk.history,
        known[1] if known is not None and known[0] == claim.epoch else -1,
        len(outcome.replies),
        *map(one_line, outcome.replies),
        *flat(outcome.drafts),
    ]


def flat(drafts: Sequence[Draft]) -> list[Any]:
    return [
        field for type, turn, tail in drafts for field in (type, "" if turn is None else turn, tail)
    ]


def micro(seconds: float) -> int:
    """Seconds in the unit of the scripts."""
    return int(seconds * MICRO)


class SubmissionUnderWay:
    """A pending submission. Its claim goes to the worker even if the caller was cancelled."""

    def __init__(
        self,
        wish: Submission,
        message: bytes,
        take: Callable[[Claim | None], None] | None,
        doubt: Callable[[], None],
        claim_of: Callable[[Sequence[Any], bytes], Claim],
    ) -> None:
        self._wish = wish
        self._message = message
        self._take = take
        self._doubt = doubt
        self._claim_of = claim_of
        self._claim: Claim | None = None

    def shape(self, found: Sequence[Any]) -> Submitted:
        """Decode the script's answer: a new turn, or the existing one."""
        fresh, *rest, claim, made = found
        if claim:
            self._claim = self._claim_of(claim, self._message)
        record = self._fresh(*map(int, rest)) if fresh else turn_of(self._wish.session, rest[0])
        return Submitted(record, bool(made))

    def _fresh(self, n: int, first_event: int, ahead: int, now: int) -> TurnRecord:
        started = self._claim is not None
        return TurnRecord(
            session=self._wish.session,
            n=n,
            status="running" if started else "queued",
            attempt=1 if started else 0,
            position=None if started else ahead,
            message_json=placed(self._message, n, None),
            queued_at=now / MICRO,
            started_at=now / MICRO if started else None,
            first_event=first_event,
        )

    def never_began(self) -> None:
        """Notify the worker that its request got no claim."""
        take, self._take = self._take, None
        if take is not None:
            take(None)

    def done(self, future: asyncio.Future[Submitted]) -> None:
        """The act is done or has failed: notify the worker."""
        if self._take is not None:
            if isinstance(future.exception(), StoreUnavailable):
                self._doubt()
            self._take(self._claim)
