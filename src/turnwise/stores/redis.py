"""The Redis store: many machines, one Redis or a Cluster.

Each method is one script in lua/, sent through the link of the session's partition. What an act
causes is told here at once, and to other processes by the scripts, through Redis's channels.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import secrets
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.exceptions import RedisError

from turnwise.batching import Batch
from turnwise.conversation import Session, Status, TurnRecord, placed
from turnwise.errors import ConfigurationError, StoreUnavailable
from turnwise.events import TERMINAL, Draft, Event, dumps, one_line
from turnwise.stores import redis_facts
from turnwise.stores.base import (
    AFFINITY,
    EXHAUSTED,
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
    operation,
)
from turnwise.stores.notices import Ended, Listener, Listeners, Moved, Notice, Ready, Signal
from turnwise.stores.redis_ear import Ear, events_of
from turnwise.stores.redis_link import Call, Link, Routes, Script
from turnwise.stores.redis_shapes import (
    MICRO,
    Names,
    claim_of,
    message_of,
    notices,
    refusal,
    session_of,
    turn_of,
)

T = TypeVar("T")
log = logging.getLogger("turnwise.store")

ACTS = (
    "append", "cancel", "claim", "create", "delete", "disown", "finish", "forget", "hold",
    "release", "renew", "reset", "rotate", "save", "submit", "sweep", "update",
)  # fmt: skip
READINGS = (
    "history", "log", "session", "sessions", "state", "tails", "turn", "turns", "waiting",
)  # fmt: skip
SCRIPTS = {
    **{name: Script(name) for name in ACTS},
    **{name: Script(name, reads=True) for name in READINGS},
}
SCHEMA = 1
CLUSTER_PARTITIONS = 16
"""Partitions on a Cluster that was not told how many."""
LINES = 2
"""Links to a partition: while Redis works on one pipeline, the next is written."""
FULL_LOOK = 0.4
"""Seconds after which a worker looks for work in all partitions, announced or not."""
TAIL_CHECK = 5.0
"""Seconds between two comparisons of what was heard with the ends of the logs."""
PAGE = 500
"""Sessions asked for at once."""
DOUBT = 5.0
"""Seconds for which a claim that we may have, and never heard of, is given back."""
_EXHAUSTED = dumps(EXHAUSTED)


class RedisStore(Store):
    """Sessions in the Redis, or Cluster, at `url`: redis://, rediss:// or unix://.

    Besides what redis-py reads from it the URL may say `?prefix=` (of all keys; "turnwise"),
    `?partitions=` (1 on a single Redis, 16 on a Cluster; fixed when the store is first used) and
    `?replicas=` (how many must have what is acknowledged; 0). `observe` is told of each
    pipeline. `shift()` is added to Redis's clock, in seconds: for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        observe: Callable[[Batch], None] | None = None,
        shift: Callable[[], float] | None = None,
    ) -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self._prefix = query.pop("prefix", "turnwise")
        if not self._prefix or set("{}:") & set(self._prefix):
            raise ConfigurationError("prefix= is a text without braces and colons.")
        self._wanted = _number(query, "partitions", 1, 1024)
        self._replicas = _number(query, "replicas", 0, 16) or 0
        self._routes = Routes(urlunsplit(parts._replace(query=urlencode(query))))
        self._observe = observe
        self._shift = shift
        self._listeners = Listeners()
        self._origin = secrets.token_hex(6).encode()
        self._links: list[list[Link]] = []
        self._ears: list[Ear] = []
        self._hinted: set[int] = set()
        self._full_look = 0.0
        self._doubtful: dict[str, tuple[int, float]] = {}
        self._chores: list[asyncio.Task[None]] = []
        self._secret = b""

    # Life

    async def open(self) -> None:
        try:
            async with asyncio.timeout(5.0):
                found = await redis_facts.look(self._routes)
                self._routes.cluster = found.cluster
                self._names = Names(self._prefix, await self._agree(found.cluster))
        except (RedisError, OSError, TimeoutError) as error:
            reason = str(error) or "it does not answer"
            raise StoreUnavailable(f"Cannot reach Redis: {reason}") from error
        self.durability = found.durability
        if self._replicas:
            self.durability += f" {self._replicas} replicas have it before it is acknowledged."
        publish = b"SPUBLISH" if found.sharded else b"PUBLISH"
        for number, base in enumerate(self._names.bases):
            links = [
                Link(
                    self._routes,
                    base,
                    self._origin,
                    publish,
                    repeated=partial(self._repeated, number),
                    replicas=self._replicas,
                    observe=self._observe,
                    shift=self._shift,
                )
                for _ in range(LINES)
            ]
            tell = partial(self._tell, number)
            ear = Ear(self._routes, base, self._origin, tell, sharded=found.sharded)
            self._links.append(links)
            self._ears.append(ear)
            ear.start()
        loop = asyncio.get_running_loop()
        self._chores = [
            loop.create_task(self._check_tails()),
            loop.create_task(self._disown_forever()),
        ]
        log.info("%s. %s", found.version, self.durability)
        for warning in found.warnings:
            log.warning("%s", warning)

    async def _agree(self, cluster: bool) -> int:
        """Read, or write first, what all processes share; returns the number of partitions."""
        default = CLUSTER_PARTITIONS if cluster else 1
        fresh = {
            "schema": SCHEMA,
            "partitions": self._wanted or default,
            "secret": secrets.token_bytes(32),
        }
        first = Names(self._prefix, 1)
        connection = await self._routes.connect(first.bases[0])
        try:
            for name, value in fresh.items():
                await connection.send_command("HSETNX", first.meta, name, value)
                await connection.read_response()
            await connection.send_command("HMGET", first.meta, *fresh)
            found: list[bytes] = await connection.read_response()
            schema, partitions, self._secret = found
        finally:
            await connection.disconnect()
        if int(schema) > SCHEMA:
            raise ConfigurationError(
                f"This Redis was written to by a newer Turnwise (schema {int(schema)})."
            )
        if self._wanted not in (None, int(partitions)):
            raise ConfigurationError(
                f"The sessions in this Redis are in {int(partitions)} partitions and not "
                f"{self._wanted}; that is decided when a store is first used."
            )
        return int(partitions)

    async def close(self) -> None:
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for ear in self._ears:
            await ear.stop()
        for link in chain.from_iterable(self._links):
            await link.close()
        self._ears.clear()
        self._links.clear()

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._listeners.add(listener)

    def follow(self, session: str) -> None:
        if self._ears:
            self._ears[self._names.partition(session)[0]].follow(session)

    def unfollow(self, session: str) -> None:
        if self._ears:
            self._ears[self._names.partition(session)[0]].unfollow(session)

    async def _check_tails(self) -> None:
        """Now and then, compare what was heard with the ends of the logs."""
        while True:
            await asyncio.sleep(TAIL_CHECK)
            for number, ear in enumerate(self._ears):
                followed = ear.followed
                for start in range(0, len(followed), PAGE):
                    try:
                        await self._compare(number, followed[start : start + PAGE])
                    except StoreUnavailable:
                        pass
                    except Exception:
                        log.exception("cannot compare the ends of logs")

    async def _compare(self, number: int, sessions: list[str]) -> None:
        found = await self._ask(number, "tails", b"", [one.encode() for one in sessions])
        self._listeners.tell(
            Signal("gone", session) if last < 0 else Moved(session, last)
            for session, last in zip(sessions, found, strict=True)
        )

    def _doubt(self, number: int, token: str) -> None:
        """A claim with this token was asked for, and no answer came: Redis may do it yet."""
        self._doubtful[token] = number, time.monotonic() + DOUBT

    async def _disown_forever(self) -> None:
        """Give back what we may have claimed without hearing of it: else it waits for its lease."""
        while True:
            await asyncio.sleep(0.5)
            for token, (number, until) in list(self._doubtful.items()):
                try:
                    await self._ask(number, "disown", b"", (token,))
                except StoreUnavailable:
                    self._doubt(number, token)  # it can be done when Redis is back, not before
                except Exception:
                    log.exception("cannot give a claim back")
                else:
                    if time.monotonic() > until:
                        self._doubtful.pop(token, None)

    # Asking

    def _ask(
        self,
        number: int,
        name: str,
        ident: bytes,
        args: Sequence[Any] = (),
        shape: Callable[[Any], Any] | None = None,
    ) -> asyncio.Future[Any]:
        """The result of a script in a partition, as `shape` makes it."""
        settle = partial(self._settle, number, shape)
        return self._link(number, ident).submit(Call(SCRIPTS[name], ident, args, settle))

    def _claim_of(self, found: Sequence[Any], question: bytes | None = None) -> Claim:
        return claim_of(self._routes.doubts, found, question)

    def _link(self, number: int, ident: bytes) -> Link:
        """A session's calls keep to one link, so that they are done in the order they came."""
        return self._links[number][zlib.crc32(ident) // self._names.partitions % LINES]

    def _about(
        self, name: str, session: str, *args: Any, shape: Callable[[Any], Any] | None = None
    ) -> asyncio.Future[Any]:
        """The result of a script about one session."""
        number, ident = self._names.partition(session)
        return self._ask(number, name, ident, args, shape)

    def _settle(self, number: int, shape: Callable[[Any], Any] | None, found: Any) -> Any:
        """What a script's answer means. What it caused is told, whoever still waits for it."""
        if isinstance(found, Exception):
            return found
        code, result, caused = found
        if code != b"ok":
            return refusal(code)
        made = result if shape is None else shape(result)
        if caused:
            self._tell(number, notices(caused))
        return made

    def _repeated(self, number: int, ident: bytes) -> None:
        """A call about this session was made again; what it did at first was told to nobody."""
        told: list[Notice] = [Ready()]
        if ident:
            told.append(Moved(ident.decode("utf-8", "surrogatepass")))
        self._tell(number, told)

    def _tell(self, number: int, found: Iterable[Notice]) -> None:
        told = list(found)
        if any(isinstance(notice, Ready) for notice in told):
            self._hinted.add(number)
        self._listeners.tell(told)

    # Sessions

    async def secret(self) -> bytes:
        return self._secret

    async def ping(self) -> None:
        await asyncio.gather(*(self._ask(n, "tails", b"") for n in range(self._names.partitions)))

    async def facts(self) -> dict[str, str]:
        try:
            async with asyncio.timeout(5.0):
                found = await redis_facts.look(self._routes)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Cannot reach Redis: {error}") from error
        more = {"partitions": str(self._names.partitions), "keys": f"{self._prefix}:*"}
        return {**found.facts, **more, "durability": self.durability}

    async def sweep(self, *, retention: float, limit: int = 200) -> int:
        args = (_micro(retention), limit)
        numbers = range(self._names.partitions)
        return sum(await _those_that_answer(self._ask(n, "sweep", b"", args) for n in numbers))

    async def create(
        self, session: str, *, name: str | None, metadata: bytes, ttl: float
    ) -> Session:
        args = (b"0" if name is None else b"1", name or "", metadata, _micro(ttl))
        made: Session = await self._about("create", session, *args, shape=session_of)
        return made

    async def session(self, session: str) -> Session | None:
        found: Session | None = await self._about(
            "session", session, shape=lambda found: session_of(found) if found else None
        )
        return found

    async def sessions(self, *, after: str = "", limit: int = 100) -> list[Session]:
        pages = await asyncio.gather(
            *(self._listed(number, after, limit) for number in range(self._names.partitions))
        )
        return list(heapq.merge(*pages, key=lambda session: session.id.encode()))[:limit]

    async def _listed(self, number: int, after: str, limit: int) -> list[Session]:
        """The first `limit` sessions of a partition behind an id."""
        sessions: list[Session] = []
        last = after.encode()
        while len(sessions) < limit:
            found, last = await self._ask(number, "sessions", b"", (last, PAGE))
            sessions += map(session_of, found)
            if not last:
                break
        return sessions[:limit]

    async def update(self, session: str, changes: Mapping[str, Any]) -> Session:
        args: list[Any] = []
        for field, value in changes.items():
            if field == "ttl":
                args += ("ttl", _micro(value))
            elif value is None:
                args += ("no_name", "")
            else:
                args += (field, value)
        changed: Session = await self._about("update", session, *args, shape=session_of)
        return changed

    async def rotate(self, session: str) -> int:
        return int(await self._about("rotate", session))

    async def reset(self, session: str) -> Session:
        emptied: Session = await self._about("reset", session, operation(), shape=session_of)
        return emptied

    async def delete(self, session: str) -> bool:
        return bool(await self._about("delete", session, operation()))

    # Turns

    async def submit(
        self,
        submission: Submission,
        desk: Desk | None = None,
        take: Callable[[Claim | None], None] | None = None,
    ) -> Submitted:
        number, ident = self._names.partition(submission.session)
        message = one_line(submission.message)
        token = "" if desk is None else f"{desk.worker}.{secrets.token_hex(8)}"
        doubt = partial(self._doubt, number, token)
        under_way = _Submission(submission, message, take, doubt, self._claim_of)
        args = _submit_args(submission, message, token, desk)
        settle = partial(self._settle, number, under_way.shape)
        call = Call(SCRIPTS["submit"], ident, args, settle)
        future: asyncio.Future[Submitted] = self._link(number, ident).submit(call)
        future.add_done_callback(under_way.done)
        if desk is None:  # the answer will come from elsewhere
            self._ears[number].hurry(submission.session)
        return await asyncio.shield(future)  # begun or not, it comes to its end

    async def claim(self, desk: Desk, limit: int) -> list[Claim]:
        # A caller that gives up must not leave claims that nobody runs.
        return await asyncio.shield(asyncio.ensure_future(self._claim(desk, limit)))

    async def _claim(self, desk: Desk, limit: int) -> list[Claim]:
        """Ask the partitions where turns were announced, and now and then all of them."""
        now, asked = time.monotonic(), self._hinted
        if not asked or now - self._full_look > FULL_LOOK:
            self._full_look, asked = now, set(range(self._names.partitions))
        self._hinted = set()
        if len(asked) == 1:
            return await self._claim_in(asked.pop(), desk, limit)
        # Who has waited longest comes first, wherever it is.
        order = sorted(asked)
        waiting = await _those_that_answer(
            self._ask(n, "waiting", b"", (limit,), partial(_since, n)) for n in order
        )
        every = [pair for some in waiting for pair in some]
        shares = Counter(n for _, n in heapq.nsmallest(limit, every))
        found = await _those_that_answer(self._claim_in(n, desk, shares[n]) for n in shares)
        if len(every) > limit:
            self._hinted |= {n for _, n in every}
        claims = [claim for some in found for claim in some]
        return sorted(claims, key=lambda claim: claim.queued_at)

    async def _claim_in(self, number: int, desk: Desk, limit: int) -> list[Claim]:
        token = f"{desk.worker}.{secrets.token_hex(8)}"
        lease = (desk.worker, _micro(desk.lease), desk.max_attempts, _EXHAUSTED, _micro(AFFINITY))
        try:
            found = await self._ask(number, "claim", b"", (token, limit, *lease))
        except StoreUnavailable:
            self._doubt(number, token)
            raise
        return [self._claim_of(one) for one in found]

    async def append(self, claim: Claim, drafts: Sequence[Draft]) -> bool:
        args = [claim.token, claim.turn, claim.written, *_flat(drafts)]
        stop = await self._about("append", claim.session, *args)
        claim.written += len(drafts)
        return bool(stop)

    async def finish(self, claim: Claim, outcome: Outcome) -> Claim | None:
        number, ident = self._names.partition(claim.session)
        # The same outcome asks for the same claim, however often it is tried.
        desk = outcome.next_desk
        token = "" if desk is None else f"{desk.worker}.{outcome.operation}"
        args = _finish_args(claim, outcome, token)

        def shape(found: Any) -> Claim | None:
            finished, seq, following, repeated = found
            record = outcome.record(claim, seq, int(finished) / MICRO)
            self._listeners.tell([Ended(record)])
            if repeated:
                self._repeated(number, ident)
            return self._claim_of(following) if following else None

        following: Claim | None = await self._ask(number, "finish", ident, args, shape)
        return following

    async def release(self, claim: Claim) -> None:
        await self._about("release", claim.session, claim.token)

    async def renew(self, claims: Sequence[Claim], lease: float) -> Renewal:
        args: dict[int, list[Any]] = {}
        tokens: dict[int, list[str]] = {}
        for claim in claims:
            number, ident = self._names.partition(claim.session)
            args.setdefault(number, [_micro(lease)]).extend((ident, claim.token))
            tokens.setdefault(number, []).append(claim.token)
        found = await _those_that_answer(
            self._ask(n, "renew", b"", args[n], partial(_answers, tokens[n])) for n in args
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
            found = await self._about("hold", session, token, _micro(lease), _micro(RESERVATION))
        except StoreUnavailable:
            self._doubt(self._names.partition(session)[0], token)
            raise
        return self._claim_of(found) if found else None

    async def save(self, claim: Claim, state: bytes | None) -> None:
        await self._about("save", claim.session, operation(), claim.token, state or b"")

    async def forget(self, worker: str, sessions: Sequence[str]) -> None:
        args: dict[int, list[Any]] = {}
        for session in sessions:
            number, ident = self._names.partition(session)
            args.setdefault(number, [worker]).append(ident)
        await asyncio.gather(*(self._ask(n, "forget", b"", args[n]) for n in args))

    async def cancel(self, session: str, turn: int) -> TurnRecord:
        record: TurnRecord = await self._about(
            "cancel", session, turn, shape=partial(turn_of, session)
        )
        return record

    # Reading

    async def turn(self, session: str, n: int) -> TurnRecord | None:
        found = await self._about("turn", session, n)
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
            some, more = await self._about("turns", session, *args)
            found += [turn_of(session, one) for one in some]
            first, last = (first, more) if down else (more, last)
        has_more, found = len(found) > limit, found[:limit]
        return found[::-1] if down else found, has_more

    async def history(
        self, session: str, *, before: int | None = None, after: int | None = None, limit: int = 50
    ) -> History:
        args = ("" if before is None else before, "" if after is None else after, limit)
        first, stored, more, opened, cursor = await self._about("history", session, *args)
        messages = [message_of(body, first + i) for i, body in enumerate(stored)]
        records = [turn_of(session, one) for one in opened]
        return History(messages, bool(more), records, cursor)

    async def state(self, session: str) -> bytes:
        state: bytes = await self._about("state", session)
        return state

    async def log(
        self, session: str, after: int, *, limit: int = 500, turn: int | None = None
    ) -> Log | None:
        events: list[Event] = []
        cursor = after
        while True:
            args = (cursor, limit, "" if turn is None else turn)
            found = await self._about("log", session, *args)
            if not found:
                return None
            floor, last, texts, cursor = found
            for event in chain.from_iterable(map(events_of, texts)):
                if event.id > after and turn in (None, event.turn):
                    events.append(event)
            ended = turn is not None and events and events[-1].type in TERMINAL
            if ended or len(texts) < limit or len(events) >= limit:
                return Log(events[:limit], floor, last)


async def _those_that_answer(asked: Iterable[Awaitable[T]]) -> list[T]:
    """The results of partitions that answer; raises StoreUnavailable only if none does."""
    found = await asyncio.gather(*asked, return_exceptions=True)
    good: list[T] = []
    for result in found:
        if not isinstance(result, BaseException):
            good.append(result)
        elif not isinstance(result, StoreUnavailable) or len(found) == 1:
            raise result
    if found and not good:
        raise StoreUnavailable()
    return good


def _since(number: int, found: Sequence[bytes]) -> list[tuple[float, int]]:
    return [(float(at), number) for at in found]


def _answers(tokens: Sequence[str], found: Sequence[int]) -> dict[str, int]:
    return dict(zip(tokens, found, strict=True))


class _Submission:
    """A submission under way. Its claim goes to the worker even if the submitter has gone."""

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
        """What the script answers: a turn that it made, or the one that was there."""
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
            message=placed(self._message, n, None),
            queued_at=now / MICRO,
            started_at=now / MICRO if started else None,
            first_event=first_event,
        )

    def done(self, future: asyncio.Future[Submitted]) -> None:
        """The act is done or has failed: tell the worker."""
        if self._take is not None:
            if isinstance(future.exception(), StoreUnavailable):
                self._doubt()
            self._take(self._claim)


def _submit_args(
    wish: Submission, message: bytes, token: str, desk: Desk | None
) -> tuple[Any, ...]:
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
        _micro(wish.ttl),
        "" if desk is None else desk.worker,
        0 if desk is None else _micro(desk.lease),
        0 if desk is None else desk.history,
        known,
        int(created),
        base_seq,
    )


def _finish_args(claim: Claim, outcome: Outcome, next_token: str) -> list[Any]:
    desk = outcome.next_desk
    known = desk.known(claim.session) if desk is not None else None
    return [
        outcome.operation,
        claim.token,
        claim.turn,
        claim.written,
        outcome.status,
        outcome.state or b"",
        b"" if outcome.error is None else dumps(outcome.error),
        outcome.usage or b"",
        outcome.keep or "",
        next_token,
        "" if desk is None else desk.worker,
        0 if desk is None else _micro(desk.lease),
        0 if desk is None else desk.max_attempts,
        _EXHAUSTED,
        0 if desk is None else desk.history,
        known[1] if known is not None and known[0] == claim.epoch else -1,
        len(outcome.replies),
        *map(one_line, outcome.replies),
        *_flat(outcome.drafts),
    ]


def _flat(drafts: Sequence[Draft]) -> list[Any]:
    return [
        field for type, turn, tail in drafts for field in (type, "" if turn is None else turn, tail)
    ]


def _micro(seconds: float) -> int:
    return int(seconds * MICRO)


def _number(query: dict[str, str], name: str, least: int, most: int) -> int | None:
    """A whole number that the URL may name."""
    text = query.pop(name, None)
    if text is None:
        return None
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ConfigurationError(f"{name}= is a number from {least} to {most}, not {text!r}.")
    return int(text)
