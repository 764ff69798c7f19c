"""The Redis store: many machines, one Redis or a Cluster.

Each method is one script in lua/, sent to the session's partition. The effects of an act are
delivered in this process at once, and to other processes by the scripts, through Redis's channels.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from turnwise.batching import Batch
from turnwise.conversation import Session, Status, TurnRecord
from turnwise.conversation.events import TERMINAL, Draft, Event, one_line
from turnwise.errors import StoreUnavailable
from turnwise.identity import operation
from turnwise.stores.base import (
    AFFINITY,
    RESERVATION,
    Claim,
    Desk,
    History,
    Log,
    Outcome,
    Renewal,
    Store,
    Submission,
    Submitted,
)
from turnwise.stores.notices import Ended, Listener
from turnwise.stores.redis.answers import MICRO, claim_of, message_of, session_of, turn_of
from turnwise.stores.redis.partitions import PAGE, Partitions, those_that_answer
from turnwise.stores.redis.requests import (
    EXHAUSTED_JSON,
    SubmissionUnderWay,
    finish_args,
    flat,
    micro,
    submit_args,
)
from turnwise.stores.redis.subscriber import events_of

log = logging.getLogger("turnwise.store")


class RedisStore(Store):
    """Sessions in the Redis, or Cluster, at `url`: redis://, rediss:// or unix://.

    In addition to redis-py's parameters the URL may contain `?prefix=` (of all keys; default
    "turnwise"), `?partitions=` (default 1 on a single Redis, 16 on a Cluster; fixed on first use)
    and `?replicas=` (how many must confirm before data is acknowledged; default 0). `observe` is
    called for each pipeline. `shift()` is added to Redis's clock, in seconds: for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        observe: Callable[[Batch], None] | None = None,
        shift: Callable[[], float] | None = None,
    ) -> None:
        self._redis = Partitions(url, observe=observe, shift=shift)

    # Life

    async def open(self) -> None:
        found = await self._redis.open()
        self.durability = found.durability
        if replicas := self._redis.replicas:
            self.durability += f" {replicas} replicas have it before it is acknowledged."
        log.info("%s. %s", found.version, self.durability)
        for warning in found.warnings:
            log.warning("%s", warning)

    async def close(self) -> None:
        await self._redis.close()

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._redis.listeners.add(listener)

    def follow(self, session: str) -> None:
        self._redis.follow(session)

    def unfollow(self, session: str) -> None:
        self._redis.unfollow(session)

    # Sessions

    async def secret(self) -> bytes:
        return self._redis.secret

    async def ping(self) -> None:
        await asyncio.gather(*self._redis.each("prove"))

    async def waiting(self) -> int:
        return sum(map(int, await those_that_answer(self._redis.each("backlog"))))

    async def facts(self) -> dict[str, str]:
        found = await self._redis.look()
        more = {"partitions": str(self._redis.count), "keys": f"{self._redis.prefix}:*"}
        return {**found.facts, **more, "durability": self.durability}

    async def sweep(self, *, retention: float, limit: int = 200) -> int:
        asked = self._redis.each("sweep", micro(retention), limit)
        return sum(await those_that_answer(asked))

    async def create(
        self, session: str, *, name: str | None, metadata: bytes, ttl: float
    ) -> Session:
        args = (b"0" if name is None else b"1", name or "", metadata, micro(ttl))
        made: Session = await self._redis.about("create", session, *args, shape=session_of)
        return made

    async def session(self, session: str) -> Session | None:
        found: Session | None = await self._redis.about(
            "session", session, shape=lambda found: session_of(found) if found else None
        )
        return found

    async def sessions(self, *, after: str = "", limit: int = 100) -> list[Session]:
        pages = await asyncio.gather(
            *(self._listed(number, after, limit) for number in range(self._redis.count))
        )
        return list(heapq.merge(*pages, key=lambda session: session.id.encode()))[:limit]

    async def _listed(self, number: int, after: str, limit: int) -> list[Session]:
        """The first `limit` sessions of a partition after an id."""
        sessions: list[Session] = []
        last = after.encode()
        while len(sessions) < limit:
            found, last = await self._redis.ask(number, "sessions", b"", (last, PAGE))
            sessions += map(session_of, found)
            if not last:
                break
        return sessions[:limit]

    async def update(self, session: str, changes: Mapping[str, Any]) -> Session:
        args: list[Any] = []
        for field, value in changes.items():
            if field == "ttl":
                args += ("ttl", micro(value))
            elif value is None:
                args += ("no_name", "")
            else:
                args += (field, value)
        changed: Session = await self._redis.about("update", session, *args, shape=session_of)
        return changed

    async def rotate(self, session: str) -> int:
        return int(await self._redis.about("rotate", session))

    async def reset(self, session: str) -> Session:
        emptied: Session = await self._redis.about("reset", session, operation(), shape=session_of)
        return emptied

    async def delete(self, session: str) -> bool:
        return bool(await self._redis.about("delete", session, operation()))

    # Turns

    async def submit(
        self,
        submission: Submission,
        desk: Desk | None = None,
        take: Callable[[Claim | None], None] | None = None,
    ) -> Submitted:
        number, ident = self._redis.of(submission.session)
        message = one_line(submission.message)
        token = "" if desk is None else f"{desk.worker}.{secrets.token_hex(8)}"
        doubt = partial(self._redis.doubt, number, token)
        under_way = SubmissionUnderWay(submission, message, take, doubt, self._claim_of)
        try:
            args = submit_args(submission, message, token, desk)
            future = self._redis.ask(number, "submit", ident, args, under_way.shape)
        except BaseException:  # another event loop, or closed: nothing was started
            under_way.never_began()
            raise
        future.add_done_callback(under_way.done)
        if desk is None:  # another process will answer the turn
            self._redis.hurry(submission.session)
        submitted: Submitted = await asyncio.shield(future)  # it completes in any case
        return submitted

    async def claim(self, desk: Desk, limit: int) -> list[Claim]:
        # A caller that gives up must not leave claims that no worker runs.
        return await asyncio.shield(asyncio.ensure_future(self._claim(desk, limit)))

    async def _claim(self, desk: Desk, limit: int) -> list[Claim]:
        """Ask the partitions in which turns were announced, and from time to time all."""
        asked = self._redis.hinted()
        if len(asked) == 1:
            return await self._claim_in(asked.pop(), desk, limit)
        # The longest waiting session comes first, in whichever partition it is.
        order = sorted(asked)
        waiting = await those_that_answer(
            self._redis.ask(n, "waiting", b"", (limit,), partial(_since, n)) for n in order
        )
        every = [pair for some in waiting for pair in some]
        shares = Counter(n for _, n in heapq.nsmallest(limit, every))
        found = await those_that_answer(self._claim_in(n, desk, shares[n]) for n in shares)
        if len(every) > limit:
            self._redis.hint(n for _, n in every)
        claims = [claim for some in found for claim in some]
        return sorted(claims, key=lambda claim: claim.queued_at)

    def _claim_of(self, found: Sequence[Any], question: bytes | None = None) -> Claim:
        return claim_of(self._redis.incarnation, found, question)

    async def _claim_in(self, number: int, desk: Desk, limit: int) -> list[Claim]:
        token = f"{desk.worker}.{secrets.token_hex(8)}"
        lease = (desk.worker, micro(desk.lease), desk.max_attempts, EXHAUSTED_JSON, micro(AFFINITY))
        try:
            found = await self._redis.ask(number, "claim", b"", (token, limit, *lease))
        except StoreUnavailable:
            self._redis.doubt(number, token)
            raise
        return [self._claim_of(one) for one in found]

    async def append(self, claim: Claim, drafts: Sequence[Draft]) -> bool:
        args = [claim.token, claim.turn, claim.written, *flat(drafts)]
        stop = await self._redis.about("append", claim.session, *args)
        claim.written += len(drafts)
        return bool(stop)

    async def finish(self, claim: Claim, outcome: Outcome) -> Claim | None:
        number, ident = self._redis.of(claim.session)
        # A retry of the same outcome requests the same claim.
        desk = outcome.next_desk
        token = "" if desk is None else f"{desk.worker}.{outcome.operation}"
        args = finish_args(claim, outcome, token)

        def shape(found: Any) -> Claim | None:
            finished, seq, following, repeated = found
            record = outcome.record(claim, seq, int(finished) / MICRO)
            self._redis.listeners.tell([Ended(claim.session, record=record)])
            if repeated:
                self._redis.repeated(number, ident)
            return self._claim_of(following) if following else None

        following: Claim | None = await self._redis.ask(number, "finish", ident, args, shape)
        return following

    async def release(self, claim: Claim) -> None:
        await self._redis.about("release", claim.session, claim.token)

    async def renew(self, claims: Sequence[Claim], lease: float) -> Renewal:
        args: dict[int, list[Any]] = {}
        tokens: dict[int, list[str]] = {}
        for claim in claims:
            number, ident = self._redis.of(claim.session)
            args.setdefault(number, [micro(lease)]).extend((ident, claim.token))
            tokens.setdefault(number, []).append(claim.token)
        found = await those_that_answer(
            self._redis.ask(n, "renew", b"", args[n], partial(_answers, tokens[n])) for n in args
        )
        answers = {token: answer for some in found for token, answer in some.items()}
        every = [claim.token for claim in claims]
        return Renewal(
            lost=frozenset(token for token in every if answers.get(token) == 2),
            cancelled=frozenset(token for token in every if answers.get(token) == 1),
            unknown=frozenset(token for token in every if token not in answers),
        )

    async def hold(self, session: str, owner: str, lease: float) -> Claim | None:
        token = f"{owner}.{secrets.token_hex(8)}"
        try:
            found = await self._redis.about(
                "hold", session, token, micro(lease), micro(RESERVATION)
            )
        except StoreUnavailable:
            self._redis.doubt(self._redis.of(session)[0], token)
            raise
        return self._claim_of(found) if found else None

    async def save(self, claim: Claim, state: bytes | None) -> None:
        await self._redis.about("save", claim.session, operation(), claim.token, state or b"")

    async def forget(self, worker: str, sessions: Sequence[str]) -> None:
        args: dict[int, list[Any]] = {}
        for session in sessions:
            number, ident = self._redis.of(session)
            args.setdefault(number, [worker]).append(ident)
        await asyncio.gather(*(self._redis.ask(n, "forget", b"", args[n]) for n in args))

    async def cancel(self, session: str, turn: int) -> TurnRecord:
        record: TurnRecord = await self._redis.about(
            "cancel", session, turn, shape=partial(turn_of, session)
        )
        return record

    # Reading

    async def turn(self, session: str, n: int) -> TurnRecord | None:
        found = await self._redis.about("turn", session, n, "")
        return turn_of(session, found) if found else None

    async def turn_by_key(self, session: str, key: str) -> TurnRecord | None:
        found = await self._redis.about("turn", session, "", key)
        return turn_of(session, found) if found else None

    async def turns(
        self,
        session: str,
        *,
        status: Status | None,
        before: int | None,
        after: int | None,
        limit: int,
    ) -> tuple[list[TurnRecord], bool]:
        down = after is None
        first, last = (after or 0) + 1, "" if before is None else before - 1
        found: list[TurnRecord] = []
        more = 1
        while more and len(found) <= limit:
            args = (first, last, int(down), status or "", limit + 1 - len(found))
            some, more = await self._redis.about("turns", session, *args)
            found += [turn_of(session, one) for one in some]
            first, last = (first, more) if down else (more, last)
        has_more, found = len(found) > limit, found[:limit]
        return found[::-1] if down else found, has_more

    async def history(
        self, session: str, *, before: int | None = None, after: int | None = None, limit: int = 50
    ) -> History:
        args = ("" if before is None else before, "" if after is None else after, limit)
        first, stored, more, opened, cursor = await self._redis.about("history", session, *args)
        messages = [message_of(body, first + i) for i, body in enumerate(stored)]
        records = [turn_of(session, one) for one in opened]
        return History(messages, bool(more), records, cursor)

    async def state(self, session: str) -> bytes:
        state: bytes = await self._redis.about("state", session)
        return state

    async def log(
        self,
        session: str,
        after: int,
        *,
        limit: int = 500,
        turn: int | None = None,
        tag: str = "",
    ) -> Log | None:
        events: list[Event] = []
        cursor = after
        while True:
            args = (cursor, limit, "" if turn is None else turn)
            found = await self._redis.about("log", session, *args)
            if not found:
                return None
            floor, last, texts, cursor = found
            for event in chain.from_iterable(map(events_of, texts)):
                if event.id > after and turn in (None, event.turn):
                    events.append(event)
            ended = turn is not None and events and events[-1].type in TERMINAL
            if ended or len(texts) < limit or len(events) >= limit:
                return Log(events[:limit], floor, last)


def _since(number: int, found: Sequence[bytes]) -> list[tuple[float, int]]:
    return [(float(at), number) for at in found]


def _answers(tokens: Sequence[str], found: Sequence[int]) -> dict[str, int]:
    return dict(zip(tokens, found, strict=True))
