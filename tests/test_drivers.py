"""The same acts leave the same rows on every driver: headers and entries, not answers alone."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import pytest

from postgres_servers import PostgresServer
from redis_servers import RedisCluster, RedisServer
from turnwise.conversation import TRANSITIONS, Answer, Asked, Message, turns
from turnwise.errors import Invalid, TurnwiseError
from turnwise.stores import rules
from turnwise.stores.claim import UNENDED, WHOLE, Claim, Desk, Outcome
from turnwise.stores.header import Header
from turnwise.stores.memory import MemoryActs, MemoryStore
from turnwise.stores.open import open_store
from turnwise.stores.postgres import PostgresStore
from turnwise.stores.records import Submission
from turnwise.stores.redis import RedisStore
from turnwise.stores.redis.keys import unpack, unpack_turn
from turnwise.stores.remote import RemoteStore
from turnwise.stores.rows import Entry
from turnwise.stores.ruled import RuledStore
from turnwise.stores.rules import Op
from turnwise.stores.sqlite import SQLiteStore
from turnwise.testing.conformance.acting import delta, desk, started

START = 1_700_000_000.0
STEP = {"id": "s", "kind": "tool", "name": "look", "status": "completed"}
SESSIONS = ("a", "b\x00c")


class Kept:
    """A store, and a way to see all rows of a session in it."""

    def __init__(self, store: RuledStore) -> None:
        self.store = store

    async def rows(self, session: str) -> tuple[Any, ...]:
        """Its header, its entries, its keys, its state."""
        raise NotImplementedError

    async def close(self) -> None:
        await self.store.close()


class InMemory(Kept):
    async def rows(self, session: str) -> tuple[Any, ...]:
        assert isinstance(self.store, MemoryStore)
        kept = self.store._acts.sessions.get(session)
        if kept is None:
            return ()
        entries: list[Any] = [tuple(entry) for entry in kept.entries]
        entries.sort(key=lambda entry: (entry[0], entry[1] == "m"))
        return kept.header, entries, sorted(kept.keys.items()), sorted(kept.states.items())


class OnSQLite(Kept):
    async def rows(self, session: str) -> tuple[Any, ...]:
        assert isinstance(self.store, SQLiteStore)
        db = apsw.Connection(str(self.store.path))
        with contextlib.closing(db):
            found = db.execute("SELECT num, body FROM header WHERE id = ?", (session,)).fetchall()
            if not found:
                return ()
            num, header = found[0]
            entries = db.execute(
                "SELECT last, kind, turn, seq, at, body FROM entry WHERE num = ?"
                " ORDER BY last, kind = 'm', pos",
                (num,),
            ).fetchall()
            keys = db.execute("SELECT key, body FROM key WHERE num = ? ORDER BY key", (num,))
            states = db.execute("SELECT number, body FROM state WHERE num = ? ORDER BY 1", (num,))
            return header, entries, keys.fetchall(), states.fetchall()


class OnPostgres(Kept):
    def __init__(self, store: RuledStore, server: PostgresServer, schema: str) -> None:
        super().__init__(store)
        self._server = server
        self._schema = schema

    async def rows(self, session: str) -> tuple[Any, ...]:
        db = await asyncpg.connect(self._server.url)
        try:
            await db.execute(f"SET search_path = {self._schema}")
            found = await db.fetch("SELECT num, body FROM header WHERE id = $1", session.encode())
            if not found:
                return ()
            num, header = found[0]
            entries = await db.fetch(
                "SELECT last, kind, turn, seq, at, body FROM entry WHERE num = $1"
                " ORDER BY last, kind = 'm', pos",
                num,
            )
            keys = await db.fetch("SELECT key, body FROM key WHERE num = $1 ORDER BY key", num)
            states = await db.fetch(
                "SELECT number, body FROM state WHERE num = $1 ORDER BY number", num
            )
            return (
                header,
                [tuple(row) for row in entries],
                [(key.decode(), body) for key, body in keys],
                [tuple(row) for row in states],
            )
        finally:
            await db.close()


class OnRedis(Kept):
    """The entries of both streams, and what a reset has left of turns in the header's hash."""

    def __init__(self, store: RedisStore, server: RedisServer | RedisCluster) -> None:
        super().__init__(store)
        self._server = server

    async def rows(self, session: str) -> tuple[Any, ...]:
        assert isinstance(self.store, RedisStore)
        base = self.store.driver.names.bases[self.store.driver.names.partition(session)]
        id = session.encode()
        with self._server.client() as client:
            found = client.hgetall(base + b"h:" + id)
            states = client.hgetall(base + b"s:" + id)
            both = [
                (tuple(map(int, place.split(b"-"))), fields[b"b"])
                for stream in (b"e:", b"d:")
                for place, fields in client.xrange(base + stream + id)
            ]
            memory = [unpack(f[b"b"]) for _, f in client.xrange(base + b"m:" + id)]
        if not found:
            return ()
        entries = [unpack(value) for _, value in sorted(both)]
        turns = [unpack_turn(value) for field, value in found.items() if field[:1] == b"t"]
        left = [kept for kept in turns if isinstance(kept, Entry) and kept.kind in "TFCG"]
        left.sort(key=lambda entry: entry.turn or 0)
        entries = sorted(
            [*left, *entries, *memory], key=lambda entry: (entry.last, entry.kind == "m")
        )
        return (
            found[b"h"],
            [tuple(entry) for entry in entries],
            sorted((f[1:].decode(), body) for f, body in found.items() if f[:1] == b"k"),
            sorted((int(number), body) for number, body in states.items()),
        )


@pytest.fixture
async def drivers(
    tmp_path: Path,
    postgres_server: PostgresServer,
    redis_server: RedisServer,
    redis_cluster: RedisCluster,
) -> AsyncIterator[tuple[list[Kept], list[float]]]:
    """One store of each kind, all on one clock."""
    now = [START]
    schema = f"t{uuid.uuid4().hex}"
    postgres = PostgresStore(f"{postgres_server.url}?schema={schema}")
    kept: list[Kept] = [
        InMemory(MemoryStore(clock=lambda: now[0])),
        OnSQLite(SQLiteStore(tmp_path / "rows.db", clock=lambda: now[0])),
        OnPostgres(postgres, postgres_server, schema),
    ]
    for server in (redis_server, redis_cluster):
        kept.append(OnRedis(RedisStore(f"{server.url}?prefix={schema}"), server))
    for one in kept:
        await one.store.open()
        if isinstance(one.store, RemoteStore):
            one.store.driver.now = lambda: round(now[0], 3)  # type: ignore[method-assign]
    yield kept, now
    for one in kept:
        await one.close()


class Player:
    """Plays the same random acts on a store; `answers` are what came of them."""

    def __init__(self, store: RuledStore, seed: int) -> None:
        self.store = store
        self.chance = random.Random(seed)
        self.claims: list[Claim] = []
        self.answers: list[str] = []
        self.count = 0

    async def play(self, now: list[float], acts: int) -> None:
        now[0] = START
        for _ in range(acts):
            now[0] += self.chance.choice((0.25, 1.0, 40.0))
            self.count += 1
            try:
                answer = await self.act(self.chance.choice(SESSIONS), f"op{self.count}")
            except TurnwiseError as error:
                answer = type(error).__name__
            self.answers.append(str(answer))

    async def do(self, session: str, op: str, make: Any) -> Any:
        return await self.store._begin(session, make, op)

    async def act(self, session: str, op: str) -> Any:
        chance, text = self.chance, Message("t", role="user", id="m", created_at=START).encode()
        at: Desk = desk(lease=30.0, max_attempts=2)
        kind = chance.choice(
            ("submit", "submit", "submit", "claim", "append", "finish", "finish", "release",
             "renew", "cancel", "reset", "hold", "save", "update", "lapse", "rotate", "forget",
             "remember", "remember", "forget_memory", "cut", "again", "wake", "given", "stop",
             "change", "judge", "schedule", "schedule", "unschedule", "own")
        )  # fmt: skip
        key = chance.choice((None, None, "k1", "k2"))
        claim = self.claims[-1] if self.claims else None
        chosen, state = chance.random(), chance.choice((None, b'{"n":1}', b"{}"))
        n = chance.randrange(1, 9)
        if kind == "submit":
            wish = Submission(
                session, text, key=key, fingerprint="f", create=True, ttl=1e5, limit=4,
                answers=[Answer(f"a{n}", "yes")] if chosen > 0.9 else (),
                when_busy=chance.choice((None, None, None, "merge", "interrupt", "reject")),
                settle=chance.choice((0.0, 0.0, 2.0)),
            )  # fmt: skip
            submitted, claimed = await self.do(
                session, op, partial(rules.submit, wish, at if chosen < 0.5 else None)
            )
            if claimed is not None:
                self.claims.append(claimed)
            return submitted.turn.n, submitted.turn.status, submitted.created
        if kind == "claim":
            claimed = await self.do(session, op, partial(rules.claim, session, at))
            if claimed is not None:
                self.claims.append(claimed)
            return claimed and (claimed.turn, claimed.attempt, claimed.state, len(claimed.history))
        if kind in ("cut", "again", "wake", "given"):
            given = Message("g", id="g", created_at=START, ask=Asked(f"a{op}")).encode()
            back: Any = (
                {"replaces": n, "again": kind == "again"} if kind in ("cut", "again") else {}
            )
            wish = Submission(
                session, text if kind == "cut" else b"", key=key, fingerprint="f", limit=6,
                reason="r" if kind == "wake" else None, given=[given] if kind == "given" else (),
                **back,
            )  # fmt: skip
            submitted, claimed = await self.do(
                session, op, partial(rules.submit, wish, at if chosen < 0.5 else None)
            )
            if claimed is not None:
                self.claims.append(claimed)
            return submitted.turn.n, submitted.turn.status, submitted.created
        if kind in ("stop", "change", "judge", "schedule", "unschedule", "own"):
            timer = Submission(session, b"", key=key, fingerprint="f", reason="t")
            make: Any = {
                "stop": partial(rules.stop, session, None),
                "change": partial(rules.change, session, n, "changed"),
                "judge": partial(rules.judge, session, chance.choice("mr"), {"value": "up"}),
                "schedule": partial(rules.schedule, timer, now_of(self.store) + 30.0 * n),
                "unschedule": partial(rules.unschedule, session, key or "k1"),
                "own": partial(rules.own, session, "ada"),
            }[kind]
            answer = await self.do(session, op, make)
            return kind if kind in ("judge", "own") else answer
        if kind in ("lapse", "hold", "reset", "cancel", "update", "rotate", "forget"):
            make = {
                "lapse": rules.lapse,
                "hold": partial(rules.hold, session, "me", 10.0),
                "reset": partial(rules.reset, session),
                "cancel": partial(rules.cancel, session, n),
                "update": partial(rules.update, session, {"name": f"n{n}"}),
                "rotate": partial(rules.rotate, session),
                "forget": partial(rules.forget, "w1"),
            }[kind]
            answer = await self.do(session, op, make)
            if kind == "hold" and answer is not None:
                self.claims.append(answer)
            return kind
        if claim is None:
            return None
        if kind == "append":
            drafts = [started(claim.turn, claim.attempt), delta(claim.turn, claim.attempt, "y")]
            make = partial(rules.append, claim, drafts, claim.written)
            answer = await self.do(claim.session, op, make)
            claim.written += 2
            return answer
        if kind == "finish":
            reply = Message("r", id="r", created_at=START).encode()
            outcome = Outcome(
                "completed", [reply], state=state, keep="w1" if chosen < 0.3 else None
            )
            if chosen > 0.7:
                outcome.told = WHOLE
            elif chosen > 0.5:
                outcome.told, outcome.steps = UNENDED, [STEP]
            elif chosen > 0.3:
                asking = Message("r", id="r", created_at=START, ask=Asked(f"a{claim.turn}"))
                outcome.replies, outcome.asks = [asking.encode()], [(0, f"a{claim.turn}")]
            outcome.next_desk = at if chosen < 0.5 else None
            following = await self.do(claim.session, op, partial(rules.finish, claim, outcome))
            if following is not None:
                self.claims.append(following)
            return following and following.turn
        make = {
            "release": partial(rules.release, claim),
            "renew": partial(rules.renew, claim, 30.0),
            "save": partial(rules.save, claim, state),
            "remember": partial(rules.remember, claim, [b"1", b"22"], 100, False),
            "forget_memory": partial(rules.forget_memory, claim, n),
        }[kind]
        return await self.do(claim.session, op, make)


def now_of(store: RuledStore) -> float:
    """The store's time, which is the same for all."""
    return START


async def start(store: RuledStore) -> Claim:
    text = Message("t", role="user").encode()
    await store.submit(Submission("s", text, create=True, ttl=1e5))
    (claim,) = await store.claim(desk(lease=10.0), 5)
    return claim


async def made_to(store: RuledStore, now: list[float], status: str, act: str) -> None:
    """Do something that takes this arrow of the table."""
    text = Message("t", role="user").encode()
    if status == "queued":
        await store.submit(Submission("s", text, create=True, ttl=1e5))
        match act:
            case "claim":
                await store.claim(desk(), 5)
            case "cancel":
                await store.cancel("s", 1)
            case "reset":
                await store.reset("s")
            case "cut":
                (claim,) = await store.claim(desk(), 5)
                await store.submit(Submission("s", text))
                await store.finish(claim, Outcome("completed"))
                await store.submit(Submission("s", text, replaces=1))
            case "merge":
                await store.submit(Submission("s", text, when_busy="merge"))
                await store.claim(desk(), 5)
        return
    claim = await start(store)
    match act:
        case "cut":
            await store.submit(Submission("s", text, replaces=1))
        case "complete" | "fail" | "stop":
            ends: Any = {"complete": "completed", "fail": "failed", "stop": "cancelled"}
            await store.finish(claim, Outcome(ends[act]))
        case "reset":
            await store.reset("s")
        case "release":
            await store.release(claim)
        case "lapse":
            now[0] += 60.0
            await store.claim(desk("w2"), 5)


ARROWS = [(status, act) for status, acts in TRANSITIONS.items() for act in acts]


@pytest.mark.parametrize(("status", "act"), ARROWS)
async def test_the_table_of_states_drives_every_store(
    drivers: tuple[list[Kept], list[float]],
    status: str,
    act: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With an arrow removed from the table, no store goes that way, and nothing has changed; with
    it, all do."""
    kept, now = drivers
    for one in kept:
        await made_to(one.store, now, status, act)
        await one.store.delete("s")
    fewer: Any = {s: {a: to for a, to in acts.items() if (s, a) != (status, act)}
                  for s, acts in TRANSITIONS.items()}  # fmt: skip
    monkeypatch.setattr(turns, "TRANSITIONS", fewer)
    for one in kept:
        if act in (
            "claim",
            "lapse",
            "merge",
        ):  # a session that cannot be claimed does not hold up others
            await made_to(one.store, now, status, act)
        else:
            with pytest.raises(Invalid):
                await made_to(one.store, now, status, act)
        record = await one.store.turn("s", 2 if (status, act) == ("queued", "cut") else 1)
        assert record is not None
        assert record.status == status


def comparable(rows: tuple[Any, ...]) -> Any:
    """Rows without the number of the process, which is random."""
    if not rows:
        return rows
    header = Header.decode(rows[0])
    header.origin = None if header.origin is None else 1
    return header.encode(), *rows[1:]


@pytest.mark.parametrize("seed", range(14))
async def test_the_same_acts_leave_the_same_rows(
    drivers: tuple[list[Kept], list[float]], seed: int
) -> None:
    """After 150 random acts on two sessions the answers, headers, entries, keys and states of all
    drivers are equal."""
    kept, now = drivers
    players = [Player(one.store, seed) for one in kept]
    for player in players:
        await player.play(now, 150)
    for player in players[1:]:
        assert player.answers == players[0].answers
    for one in kept:
        await one.store.sweep(retention=1e9)  # what is removed in slices is removed now
    for session in SESSIONS:
        first, *others = [comparable(await one.rows(session)) for one in kept]
        assert first, "nothing happened"
        for other in others:
            assert other == first


def test_a_repetition_knows_its_own_turn() -> None:
    """A submission whose answer was lost, and with which a timer had rung, is answered by its own
    turn."""
    acts = MemoryActs(lambda: now[0])
    now = [START]
    text = Message("t", role="user").encode()
    acts.act("s", rules.submit(Submission("s", text, create=True, ttl=1e5), None, Op("a", 0)))
    acts.act("s", rules.cancel("s", 1, Op("b", 0)))
    timer = Submission("s", b"", reason="tea", key="tea")
    acts.act("s", rules.schedule(timer, START + 5.0, Op("c", 0)))
    now[0] += 10.0
    wish = Submission("s", text)
    first, _ = acts.act("s", rules.submit(wish, None, Op("d", 0)))
    again, _ = acts.act("s", rules.submit(wish, None, Op("d", 0, since=0)))
    assert (first.turn.n, again.turn.n) == (3, 3)


async def test_two_processes_never_overwrite_each_other(store_url: str) -> None:
    """Both write to one session at once: each act sees what the other has done before it."""
    stores = [open_store(store_url) for _ in range(2)]
    for store in stores:
        await store.open()
    text = Message("t", role="user").encode()
    await stores[0].submit(Submission("s", text, create=True, ttl=1e5))
    wishes = [store.submit(Submission("s", text)) for _ in range(30) for store in stores]
    numbers = [submitted.turn.n for submitted in await asyncio.gather(*wishes)]
    assert sorted(numbers) == list(range(2, 62))
    (claim,) = await stores[0].claim(desk(), 1)
    names = [stores[1].update("s", {"name": str(i)}) for i in range(30)]
    await asyncio.gather(stores[0].append(claim, [delta(1, 1, "x")]), *names)
    log = await stores[1].log("s", 0)
    session = await stores[0].session("s")
    assert log is not None
    assert session is not None
    assert [event.id for event in log.events] == list(range(1, 94))
    assert session.last_event == 93
    for store in stores:
        await store.close()


@pytest.mark.parametrize("seed", range(4))
async def test_what_changes_while_an_act_reads_never_breaks_it(
    postgres_server: PostgresServer, redis_server: RedisServer, seed: int
) -> None:
    """An act that asks more than once may see two moments of a session, because others act between
    its questions. It is tried again, whether it came to changes, an answer or an error."""
    name = f"t{uuid.uuid4().hex}"
    for url in (f"{postgres_server.url}?schema={name}", f"{redis_server.url}?prefix={name}"):
        stores: list[RemoteStore] = []
        now, between = [START], 0
        for _ in range(2):
            store = open_store(url)
            assert isinstance(store, RemoteStore)
            stores.append(store)
            await store.open()
            store.driver.now = lambda: now[0]  # type: ignore[method-assign] # noqa: B023
        mine, other = Player(stores[0], seed), Player(stores[1], seed + 100)
        other.claims, other.count = mine.claims, 10_000
        read = stores[0].driver.read

        async def slowly(session: str, asks: Any, *, header: bool) -> Any:
            """Before the second question of an act somebody else acts."""
            nonlocal between
            if not header and mine.chance.random() < 0.5:  # noqa: B023
                between += 1
                await other.play(now, 2)  # noqa: B023
            return await read(session, asks, header=header)  # noqa: B023

        stores[0].driver.read = slowly  # type: ignore[method-assign]
        await mine.play(now, 600)
        assert between > 50
        stores[0].driver.read = read  # type: ignore[method-assign]
        for session in SESSIONS:
            log = await stores[0].log(session, 0, limit=10_000)
            assert log is not None
            ids = [event.id for event in log.events]
            assert ids == list(range(log.floor + 1, log.last + 1))
        for store in stores:
            await store.close()
