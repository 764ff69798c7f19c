"""Every store against a small model of the promise, whatever hypothesis thinks of.

The model is a list of turns and who holds the running one. Workers forget their claims and come
back with stale ones, leases lapse, requests are repeated, the store is opened anew. After each
step the history, the state, each turn and the log are what the model says.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from postgres_servers import PostgresServer
from redis_servers import RedisCluster, RedisServer
from turnwise.conversation import Answer, Ask, Message
from turnwise.conversation.events import TERMINAL
from turnwise.errors import AskClosed, ClaimLost, Invalid, KeyReused
from turnwise.stores import remote
from turnwise.stores.base import Store
from turnwise.stores.claim import Claim, Outcome
from turnwise.stores.memory import MemoryStore
from turnwise.stores.postgres import PostgresStore
from turnwise.stores.records import Submission
from turnwise.stores.redis import RedisStore
from turnwise.stores.sqlite import SQLiteStore
from turnwise.testing.conformance.acting import delta, desk, question, started, texts
from turnwise.testing.virtual import VirtualLoop

T = TypeVar("T")
LEASE, ATTEMPTS = 30.0, 3


@dataclass
class Modelled:
    """A turn, as it should be."""

    n: int
    text: str
    status: str = "queued"
    attempt: int = 0
    stop: bool = False
    said: str = ""

    @property
    def remains(self) -> list[str]:
        """What its last attempt leaves if nobody ends it."""
        return [self.said] if self.said else []


@dataclass
class Model:
    """A session, as it should be."""

    now: float = 0.0
    turns: dict[int, Modelled] = field(default_factory=dict)
    last: int = 0
    keys: dict[str, tuple[str, int]] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)
    base_memory: int = 0
    asks: dict[str, int] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    holder: Claim | None = None
    until: float = 0.0
    orphaned: bool = False

    @property
    def running(self) -> Modelled | None:
        return next((turn for turn in self.turns.values() if turn.status == "running"), None)

    @property
    def queued(self) -> list[Modelled]:
        return [turn for turn in self.turns.values() if turn.status == "queued"]

    def end(self, turn: Modelled, status: str, *replies: str) -> None:
        turn.status = status
        self.history += [turn.text, *replies]
        self.holder = None

    def lapse(self) -> None:
        """What a claim finds first: a lease that has run out counts as an attempt."""
        turn = self.running
        if turn is None or (self.until > self.now and not self.orphaned):
            return
        self.holder = None
        if turn.stop:
            self.end(turn, "cancelled", *turn.remains)
        else:
            turn.status = "queued"

    def start(self) -> Modelled | None:
        """The turn that a claim takes; those whose attempts are used up fail on the way."""
        if self.running is not None:
            return None
        for turn in self.queued:
            if turn.attempt < ATTEMPTS:
                turn.status, turn.attempt, turn.said = "running", turn.attempt + 1, ""
                self.until, self.orphaned = self.now + LEASE, False
                return turn
            self.end(turn, "failed", *turn.remains)
        return None


class Machine(RuleBasedStateMachine):
    """One session on a real store. `opened` makes the store; `shift` lets its time pass.

    `sees_death`: a store of this kind need not wait for the lease of a process that has ended.
    """

    loop: asyncio.AbstractEventLoop
    opened: Callable[[], Store]
    shift: Callable[[float], None]
    sees_death = False

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.claims: list[Claim] = []  # all there ever were

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        self.store = self.opened()
        self.do(self.store.open())
        self.do(self.store.create("s", name=None, metadata=b"{}", ttl=1e6))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.do(self.store.close())

    @rule(
        text=st.sampled_from("abc"),
        key=st.none() | st.sampled_from(["k1", "k2"]),
        at=st.booleans(),
        ask=st.none() | st.integers(0, 3),
        value=st.sampled_from(["yes", "yes", "maybe"]),
    )
    def submit(self, text: str, key: str | None, at: bool, ask: int | None, value: str) -> None:
        model = self.model
        taken: list[Claim | None] = []
        known = [*model.asks, *model.closed[-2:]]
        answers = [Answer(known[ask % len(known)], value)] if known and ask is not None else []
        wish = Submission("s", question(text), key=key, fingerprint=text if key else "",
                          answers=answers)  # fmt: skip
        try:
            submitted = self.do(self.store.submit(wish, desk() if at else None, taken.append))
        except AskClosed:
            assert answers[0].ask not in model.asks
            return
        except Invalid as error:
            if not isinstance(error, KeyReused):
                assert (answers[0].ask in model.asks, value) == (True, "maybe")
                return
            assert key is not None
            assert model.keys[key][0] != text
            return
        if key in model.keys:
            assert (text, submitted.turn.n) == model.keys[key]
            assert not submitted.created
            return
        idle = model.running is None and not model.queued
        gone = [answers[0].ask] if answers else list(model.asks)
        model.closed += gone
        model.asks = {id: n for id, n in model.asks.items() if id not in gone}
        model.last += 1
        assert (submitted.turn.n, submitted.created) == (model.last, True)
        turn = model.turns[model.last] = Modelled(model.last, text)
        if key is not None:
            model.keys[key] = text, model.last
        claim = taken[0] if taken else None
        assert (claim is not None) == (at and idle)
        if claim is not None:
            assert model.start() is turn
            self.hold(claim, turn)

    @rule(worker=st.sampled_from(["w1", "w2"]))
    def claim(self, worker: str) -> None:
        model = self.model
        found = self.do(self.store.claim(desk(worker, lease=LEASE, max_attempts=ATTEMPTS), 5))
        model.lapse()
        turn = model.start()
        assert len(found) == (turn is not None)
        if turn is not None:
            self.hold(found[0], turn)

    def hold(self, claim: Claim, turn: Modelled) -> None:
        assert (claim.turn, claim.attempt) == (turn.n, turn.attempt)
        assert orjson.loads(claim.state) == self.model.state
        assert texts([claim.message]) == [turn.text]
        self.model.holder = claim
        self.claims.append(claim)

    def any_claim(self, pick: int) -> tuple[Claim | None, Modelled | None]:
        """A claim, mostly the last one, and the turn if it is held still."""
        if not self.claims:
            return None, None
        claim = self.claims[-1 - pick % min(3, len(self.claims))]
        held = self.model.holder is not None and self.model.holder.token == claim.token
        return claim, self.model.turns[claim.turn] if held else None

    @rule(pick=st.integers(0, 2))
    def append(self, pick: int) -> None:
        claim, turn = self.any_claim(pick)
        if claim is None:
            return
        drafts = [delta(claim.turn, claim.attempt, "x")]
        if turn is None or not turn.said:
            drafts.insert(0, started(claim.turn, claim.attempt))
        try:
            stop = self.do(self.store.append(claim, drafts))
            assert turn is not None, "a stale claim has written"
            assert stop == turn.stop
            turn.said += "x"
        except ClaimLost:
            assert turn is None, "a claim that is held was refused"

    @rule(
        pick=st.integers(0, 2),
        status=st.sampled_from(["completed", "completed", "failed", "cancelled"]),
        state=st.none() | st.integers(0, 9),
        asks=st.booleans(),
    )
    def finish(self, pick: int, status: Any, state: int | None, asks: bool) -> None:
        claim, turn = self.any_claim(pick)
        if claim is None:
            return
        replies = ["r"] if status == "completed" else []
        ask = Ask("r", choices=["yes", "no"])
        error = {"code": "x", "message": "x", "retryable": False} if status == "failed" else None
        outcome = Outcome(status, [Message(text).encode() for text in replies], error=error)
        if asks and replies and ask.ask is not None:
            outcome.replies, outcome.asks = [ask.encode()], [(0, ask.ask.id)]
        if status == "completed" and state is not None:
            outcome.state = orjson.dumps({"n": state})
        try:
            self.do(self.store.finish(claim, outcome))
            assert turn is not None, "a stale claim has finished"
        except ClaimLost:
            assert turn is None, "a claim that is held was refused"
            return
        self.model.end(turn, status, *replies)
        for _, id in outcome.asks:
            self.model.asks[id] = turn.n
        if outcome.state is not None:
            self.model.state = {"n": state}

    @rule(pick=st.integers(0, 2), count=st.integers(1, 3))
    def remember(self, pick: int, count: int) -> None:
        claim, turn = self.any_claim(pick)
        if claim is None:
            return
        model = self.model
        try:
            last = self.do(self.store.remember(claim, [b"%d" % claim.turn] * count, 1000))
            assert turn is not None, "a stale claim has remembered"
        except ClaimLost:
            assert turn is None, "a claim that is held was refused"
            return
        model.memory += [claim.turn] * count
        assert last == model.base_memory + len(model.memory)

    @rule(pick=st.integers(0, 2), before=st.integers(0, 9))
    def forget_memory(self, pick: int, before: int) -> None:
        claim, turn = self.any_claim(pick)
        if claim is None:
            return
        model = self.model
        try:
            self.do(self.store.forget_memory(claim, before))
            assert turn is not None, "a stale claim has forgotten"
        except ClaimLost:
            assert turn is None, "a claim that is held was refused"
            return
        gone = max(0, min(before - 1 - model.base_memory, len(model.memory)))
        model.base_memory, model.memory = model.base_memory + gone, model.memory[gone:]

    @rule(pick=st.integers(0, 2))
    def release(self, pick: int) -> None:
        claim, turn = self.any_claim(pick)
        if claim is None:
            return
        self.do(self.store.release(claim))
        if turn is not None and turn.stop:
            self.model.end(turn, "cancelled", *turn.remains)
        elif turn is not None:
            turn.status, turn.attempt, self.model.holder = "queued", turn.attempt - 1, None

    @rule(pick=st.integers(0, 2))
    def renew(self, pick: int) -> None:
        claim, turn = self.any_claim(pick)
        if claim is None:
            return
        renewal = self.do(self.store.renew([claim], LEASE))
        assert (claim.token in renewal.lost) == (turn is None)
        if turn is not None:
            self.model.until = self.model.now + LEASE
            assert (claim.token in renewal.cancelled) == turn.stop

    @rule(back=st.integers(0, 3))
    def cancel(self, back: int) -> None:
        turn = self.model.turns.get(self.model.last - back)
        if turn is None:
            return
        record = self.do(self.store.cancel("s", turn.n))
        if turn.status == "queued":
            turn.status = "cancelled"
        elif turn.status == "running":
            turn.stop = True
        assert record.status == turn.status

    @rule()
    def reset(self) -> None:
        self.do(self.store.reset("s"))
        model = self.model
        model.turns, model.history, model.state, model.holder = {}, [], {}, None
        model.closed, model.asks = [*model.closed, *model.asks], {}
        model.base_memory, model.memory = model.base_memory + len(model.memory), []

    @rule(seconds=st.sampled_from([1.0, 10.0, LEASE + 1]))
    def pass_time(self, seconds: float) -> None:
        self.shift(seconds)
        self.model.now += seconds

    @rule()
    def open_anew(self) -> None:
        """The process ends and another begins: what it held is stale or held, as before."""
        self.do(self.store.close())
        self.store = self.opened()
        self.do(self.store.open())
        self.model.orphaned = self.sees_death

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        if not hasattr(self, "store"):
            return
        model = self.model
        history = self.do(self.store.history("s", limit=500))
        assert texts(history.messages_json) == model.history
        assert [record.n for record in history.open] == [
            turn.n for turn in model.turns.values() if turn.status in ("queued", "running")
        ]
        assert orjson.loads(self.do(self.store.state("s"))) == model.state
        assert list(history.asks) == list(model.asks)
        memory = self.do(self.store.memory("s"))
        expected = list(enumerate(model.memory, model.base_memory + 1))
        assert [(one.n, one.turn) for one in memory] == expected
        for turn in model.turns.values():
            record = self.do(self.store.turn("s", turn.n))
            assert record is not None
            assert (record.status, record.attempt) == (turn.status, turn.attempt)
        log = self.do(self.store.log("s", 0, limit=2000))
        assert log is not None
        assert [event.id for event in log.events] == list(range(log.floor + 1, log.last + 1))
        ended = [event.turn for event in log.events if event.type in TERMINAL]
        assert len(ended) == len(set(ended)), "a turn ended twice"


def run(machine: type[Machine], examples: int) -> None:
    """The same examples every time; TIMES as many, which are others every time, if it is set."""
    times = int(os.environ.get("TIMES", "0"))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples * (times or 1),
            derandomize=not times,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_memory() -> None:
    """In dicts, which are the model of what the other stores keep."""
    loop = asyncio.new_event_loop()

    class InMemory(Machine):
        def __init__(self) -> None:
            super().__init__()
            clock = [1.7e9]
            store = MemoryStore(clock=lambda: clock[0])
            self.loop = loop
            self.opened = lambda: store

            def shift(seconds: float) -> None:
                clock[0] += seconds

            self.shift = shift

    run(InMemory, 100)
    loop.close()


def test_postgres(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server; each example has a schema of its own."""
    monkeypatch.setattr(remote, "PATIENCE", 60.0)  # a busy machine may hold the server up
    loop = asyncio.new_event_loop()

    class OnPostgres(Machine):
        def __init__(self) -> None:
            super().__init__()
            url, passed = f"{postgres_server.url}?schema=t{uuid.uuid4().hex}", [0.0]
            self.loop = loop
            self.opened = lambda: PostgresStore(url, shift=lambda: passed[0])

            def shift(seconds: float) -> None:
                passed[0] += seconds

            self.shift = shift

    run(OnPostgres, 15)
    loop.close()


def test_sqlite() -> None:
    """On a file; its process may end between any two acts."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        loop = VirtualLoop()

        class OnSQLite(Machine):
            sees_death = sys.platform == "linux"

            def __init__(self) -> None:
                super().__init__()
                path, clock = Path(folder) / f"{uuid.uuid4().hex}.db", [1.7e9]
                self.loop = loop
                self.opened = lambda: SQLiteStore(path, clock=lambda: clock[0])

                def shift(seconds: float) -> None:
                    clock[0] += seconds

                self.shift = shift

        run(OnSQLite, 100)
        loop.close()


@pytest.mark.parametrize("kind", ["redis_server", "redis_cluster"])
def test_redis(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server, and on a Cluster."""
    # A busy machine may hold the servers up for longer than a person would wait.
    monkeypatch.setattr(remote, "PATIENCE", 60.0)
    server: RedisServer | RedisCluster = request.getfixturevalue(kind)
    loop = asyncio.new_event_loop()

    class OnRedis(Machine):
        def __init__(self) -> None:
            super().__init__()
            url, passed = f"{server.url}?prefix={uuid.uuid4().hex}", [0.0]
            self.loop = loop
            self.opened = lambda: RedisStore(url, shift=lambda: passed[0])

            def shift(seconds: float) -> None:
                passed[0] += seconds

            self.shift = shift

    run(OnRedis, 30 if kind == "redis_server" else 15)
    loop.close()
