"""A world of several processes on one store, in one event loop, on a clock that jumps.

Each `Host` is a process: its own SQLite store object on the shared file, a worker, a hub and a
gateway, all of them the real ones. What is between them and the store is `Unreliable`: acts are
delayed, hosts die before or after an act, stall until their leases have lapsed, lose wake-ups,
and the store is away for a moment. One seed decides all of it.

Every commit is seen by the world itself, from inside the store, so it knows the whole log of each
session, whatever the processes have forgotten or never heard.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson

from turnwise import Answer, Ask, Bot, Message, Turn
from turnwise.conversation.events import Event
from turnwise.errors import (
    AskClosed,
    NotFound,
    NotQueued,
    QueueFull,
    StoreUnavailable,
    Superseded,
)
from turnwise.gateway.gateway import Gateway, Limits
from turnwise.gateway.hub import Hub
from turnwise.stores.base import Store
from turnwise.stores.notices import Appended, Listener, Notice, Ready
from turnwise.stores.sqlite import SQLiteStore, engine
from turnwise.stores.sqlite.readings import SQLiteReadings
from turnwise.testing import virtual
from turnwise.tokens import Signer
from turnwise.worker.worker import Worker

EPOCH = 1_700_000_000.0
LEASE = 10.0
SESSIONS = ("a", "b", "c")
MESSAGES = 6


class Unreliable:
    """The store of one host. It has every method of Store and stands between them."""

    def __init__(self, world: World, host: Host, inner: SQLiteStore) -> None:
        self._world = world
        self._host = host
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        return partial(self._act, name) if inspect.iscoroutinefunction(method) else method

    async def submit(self, wish: Any, desk: Any = None, take: Any = None) -> Any:
        """A claim that reaches a host which has died is taken by nobody."""

        def reach(claim: Any) -> None:
            if not self._host.dead:
                take(claim)

        return await self._act("submit", wish, desk, None if take is None else reach)

    def listen(self, listener: Listener) -> Callable[[], None]:
        def hear(notice: Notice) -> None:
            lost = isinstance(notice, Ready) and self._world.strikes("wake-up lost", 0.5)
            if not (lost or self._host.dead):
                listener(notice)

        return self._inner.listen(hear)

    async def _act(self, name: str, /, *args: Any, **more: Any) -> Any:
        await self._pass_time()
        if self._world.strikes("store away", 0.01):
            raise StoreUnavailable
        result = await getattr(self._inner, name)(*args, **more)
        await self._pass_time()
        return result

    async def _pass_time(self) -> None:
        """A while in which much may happen: to others, or to this host."""
        world, host = self._world, self._host
        if world.chance.random() < 0.3:
            await asyncio.sleep(world.chance.expovariate(1 / 0.02))
        while host.stalled_until > world.now() and not world.over:
            await asyncio.sleep(min(1.0, host.stalled_until - world.now()))
        if host.dead and not world.over:
            await world.end.wait()
        if host.dead:
            raise asyncio.CancelledError


class Host:
    """One process."""

    def __init__(self, world: World) -> None:
        self.dead = False
        self.died = asyncio.get_running_loop().create_future()
        self.stalled_until = 0.0
        self._world = world
        self._inner = SQLiteStore(world.path, clock=lambda: time.time())
        self.store: Store = Unreliable(world, self, self._inner)  # type: ignore[assignment]

    async def start(self) -> None:
        await self._inner.open()
        self._inner.listen(self._world.see)
        self.hub = Hub(self.store)
        bot = self._world.bot
        self.worker = Worker(self.store, bot.answer, bot.options, concurrency=4, lease=LEASE)
        self.gateway = Gateway(
            self.store,
            self.hub,
            Signer(b"x" * 32, 3600.0),
            limits=Limits(),
            session_ttl=86400.0,
            offer=self.worker.offer,
            take=self.worker.take,
        )
        self.worker.start()

    def kill(self) -> None:
        """It does nothing more: what it began in the store happened, or never will."""
        self.dead = True
        self.died.set_result(None)
        file = self._inner._engine
        if file._next_check is not None:
            file._next_check.cancel()
        file._queue.close()
        file._locks.close()  # the kernel would do that

    async def ask(self, work: Any) -> Any:
        """The result of `work` on this host; raises Died when the host dies meanwhile."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task, self.died}, return_when=asyncio.FIRST_COMPLETED, timeout=30.0)
        if task.done():
            return task.result()
        task.cancel()
        raise Died


class Died(Exception):
    """The other side of a connection went away, or did not answer in time."""


@dataclass
class Reader:
    """Someone who follows a session, on one host after another."""

    session: str
    seen: list[Event] = field(default_factory=list)


async def _done(work: Any) -> bool:
    """True, once it is done."""
    await work
    return True


class World:
    """All of it; `run` plays it and returns what there is to check."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.path = folder / f"{seed}.db"
        self.bot = Bot(self._reply, timeout=60.0, max_attempts=10)
        self.faulty = True
        self.over = False
        self.faults: Counter[str] = Counter()
        self.hosts: list[Host] = []
        self.logs: dict[str, dict[int, Event]] = {name: {} for name in SESSIONS}
        self.acked: dict[str, dict[str, tuple[int, str]]] = {name: {} for name in SESSIONS}
        """What was acknowledged: by its key, the turn and its message."""
        self.timed: dict[str, set[str]] = {name: set() for name in SESSIONS}
        """The reasons of timers that were acknowledged."""
        self.copies: dict[str, tuple[list[Any], Any, list[Any]]] = {}
        """History, state and memory of a fork that was made at the end."""
        self.owned: dict[str, tuple[list[str], tuple[int, int]]] = {}
        """Whose sessions there are at the end, and the owner's open and running turns."""
        self.histories: dict[str, list[Any]] = {}
        self.states: dict[str, Any] = {}
        self.open: dict[str, int] = {}
        self.remembered: dict[str, list[tuple[int, str]]] = {name: [] for name in SESSIONS}
        """The memory entries that were acknowledged: their numbers and bodies."""
        self.memories: dict[str, list[tuple[int, str]]] = {}
        self.asks: dict[str, list[str]] = {}
        self.forgetful: list[tuple[str, int]] = []
        """Sessions and turns in which an attempt missed what an earlier one had remembered."""
        self.readers: list[Reader] = []

    # The world's own laws

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def strikes(self, fault: str, likelihood: float) -> bool:
        """Whether this fault happens now."""
        if not self.faulty or self.chance.random() >= likelihood:
            return False
        self.faults[fault] += 1
        return True

    def see(self, notice: Notice) -> None:
        """Something was committed. The same event is always the same."""
        if isinstance(notice, Appended) and notice.session in self.logs:
            log = self.logs[notice.session]
            for event in notice.events:
                known = log.setdefault(event.id, event)
                assert (known.type, known.turn, known.tail) == (event.type, event.turn, event.tail)

    async def _reply(self, turn: Turn) -> AsyncIterator[str | Message]:
        turn.state["n"] = turn.state.get("n", 0) + 1
        async with turn.step("look") as step:
            step.output = await self._remember(turn)
        for word in range(self.chance.randrange(4)):
            yield f"{turn.n}.{turn.attempt}.{word} "
            await asyncio.sleep(self.chance.expovariate(1.0))
        if turn.text.endswith("fail"):
            raise ValueError
        if self.chance.random() < 0.3:
            yield Ask("really?", choices=["yes", "no"])
        yield f"answer to {turn.text}"

    async def _remember(self, turn: Turn) -> int:
        """What an earlier attempt of this turn has remembered is there; more is added to it."""
        mine = self.remembered[turn.session.id]

        def _place(body: str) -> int:
            """The attempt of this turn that has remembered it, or 0."""
            n, attempt, _ = map(int, body.split("."))
            return attempt if n == turn.n else 0

        earlier = {body for _, body in mine if _place(body) in range(1, turn.attempt)}
        known = {entry.body for entry in await turn.memory.read()}
        if not earlier <= known:
            self.forgetful.append((turn.session.id, turn.n))
        bodies = [f"{turn.n}.{turn.attempt}.{i}" for i in range(self.chance.randrange(1, 3))]
        last = await turn.memory.add(*bodies)
        mine += enumerate(bodies, last - len(bodies) + 1)
        return last

    def host(self) -> Host | None:
        """One that lives."""
        living = [host for host in self.hosts if not host.dead]
        return self.chance.choice(living) if living else None

    # What happens in it

    def play(self) -> None:
        """Run the whole story, on virtual time."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            with (
                patch.object(time, "monotonic", loop.time),
                patch.object(time, "time", lambda: EPOCH + loop.time()),
                patch.object(engine, "TAIL_PERIOD", 0.2),  # or most of the world is looking
            ):
                await self._story()

        virtual.run(main())

    async def _story(self) -> None:
        self.end = asyncio.Event()
        for _ in range(2):
            await self._boot()
        for name in SESSIONS[:2]:
            create = partial(Gateway.create, session_id=name, owner=f"owner of {name}")
            while await self._do(create) is None:
                await asyncio.sleep(0.1)
        clients = [self._client(name, part) for name in SESSIONS for part in range(2)]
        working = [asyncio.ensure_future(client) for client in clients]
        following = [asyncio.ensure_future(self._follow(name)) for name in SESSIONS]
        nemesis = asyncio.ensure_future(self._nemesis())
        await asyncio.gather(*working)
        nemesis.cancel()
        self.faulty = False  # from here on the world heals
        for host in self.hosts:
            host.stalled_until = 0.0
        while len([host for host in self.hosts if not host.dead]) < 2:
            await self._boot()
        await self._until_quiet()
        for name in SESSIONS:
            await self._look(name)
        await self._look_at_owners()
        await asyncio.sleep(5.0)  # who follows has time to hear of it
        for task in following:
            task.cancel()
        self.over = True
        self.end.set()
        for host in self.hosts:
            if not host.dead:
                await host.worker.drain(1.0)
                await host._inner.close()

    async def _boot(self) -> None:
        host = Host(self)
        await host.start()
        self.hosts.append(host)

    async def _nemesis(self) -> None:
        """Kills, restarts and stalls, now and then."""
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / 4.0))
            host = self.host()
            if host is not None and self.strikes("killed", 0.5):
                host.kill()
            elif host is not None and self.strikes("stalled", 0.3):
                host.stalled_until = self.now() + self.chance.uniform(0.1, 2.5 * LEASE)
            if len([host for host in self.hosts if not host.dead]) < 3:
                await self._boot()

    async def _client(self, session: str, part: int) -> None:
        """Says some things, each until it is acknowledged, and does some mischief."""
        for i in range(MESSAGES):
            await asyncio.sleep(self.chance.expovariate(1 / 2.0))
            text = f"{part}.{i}" + (" fail" if self.chance.random() < 0.1 else "")
            n = await self._say(session, text)
            if self.strikes("sent twice", 0.2):
                assert await self._say(session, text) == n, "one key, two turns"
            if self.chance.random() < 0.4:
                await self._answer(session, f"{text} answer")
            if self.strikes("cancelled", 0.1):
                await self._do(partial(Gateway.cancel, session_id=session, n=n))
            if self.chance.random() < 0.3:
                await self._take_back(session, text, n)
            if self.chance.random() < 0.2:
                await self._speak_first(session, text)
            if self.strikes("reset", 0.03):
                await self._do(partial(Gateway.reset, session_id=session))

    async def _answer(self, session: str, text: str) -> None:
        """Answer something that waits for it, unless somebody is faster."""
        history = await self._do(partial(Gateway.history, session_id=session))
        if history is not None and history.asks:
            ask = self.chance.choice(history.asks)
            with suppress(AskClosed):
                await self._say(session, text, answers=[Answer(ask, "yes")])

    async def _take_back(self, session: str, text: str, n: int) -> None:
        """Edit a message, have its answer again, change it while it waits, or stop everything."""
        with suppress(Superseded, NotQueued):
            match self.chance.randrange(4):
                case 0:
                    await self._say(session, f"{text} edited", replaces=n)
                case 1:
                    again = partial(Gateway.again, session_id=session, n=n, key=f"{text} again")
                    await self._insist(session, f"{text} again", text, again)
                case 2:
                    change = partial(Gateway.change, session_id=session, n=n, text=f"{text} new")
                    await self._do(change)
                case 3:
                    await self._do(partial(Gateway.stop, session_id=session))

    async def _speak_first(self, session: str, text: str) -> None:
        """Something is to be said later, or now."""
        if self.chance.random() < 0.3:
            key = f"{text} given"
            given = partial(Gateway.say, session_id=session, messages=[Message(key)], key=key)
            await self._insist(session, key, None, given)
            return
        reason, at = f"{text} reason", time.time() + self.chance.uniform(0.0, 20.0)
        timed = partial(Gateway.wake, session_id=session, reason=reason, at=at, key=reason)
        if await self._do(lambda gateway: _done(timed(gateway))):
            self.timed[session].add(reason)

    async def _say(self, session: str, text: str, **more: Any) -> int:
        """The number of the turn that `text` became, however often it takes."""
        if self.chance.random() < 0.3:
            part = self.chance.choice(({"when_busy": "merge"}, {"group": "an album"}))
            more |= {**part, "settle": self.chance.choice((0.0, 1.0))}
        saying = partial(
            Gateway.submit, session_id=session, text=text, key=text, create=True, **more
        )
        return await self._insist(session, text, text, saying)

    async def _insist(
        self, session: str, key: str, text: str | None, asking: Callable[[Gateway], Any]
    ) -> int:
        """The number of the turn that came of it, however often it takes."""
        while True:
            found = await self._do(asking)
            if found is not None:
                record = getattr(found, "turn", found)
                n: int = record.n
                said = text
                if said is not None and record.message is not None and key.endswith("again"):
                    own = record.message.parts[:1] or [{"text": record.message.text}]
                    said = own[0]["text"]  # others may have been merged into it by now
                self.acked[session][key] = n, said or ""
                return n
            await asyncio.sleep(self.chance.uniform(0.05, 0.5))

    async def _do(self, work: Callable[[Gateway], Any]) -> Any:
        """What comes of `work` on some host; None if nobody knows."""
        host = self.host()
        if host is None:
            return None
        try:
            return await host.ask(work(host.gateway))
        except (Died, StoreUnavailable, QueueFull, NotFound):
            return None

    async def _follow(self, session: str) -> None:
        """Follows from where it was, on one host after another."""
        reader = Reader(session)
        self.readers.append(reader)
        while True:
            host = self.host()
            if host is not None:
                cursor = reader.seen[-1].id if reader.seen else 0
                try:
                    with host.hub.join(session, cursor) as following:
                        while not (following.closed or self.strikes("reader moved", 0.1)):
                            reader.seen += await host.ask(following.read(3.0))
                except (Died, StoreUnavailable):
                    pass
            await asyncio.sleep(0.2)

    async def _until_quiet(self) -> None:
        """Return when every turn has ended; in a healed world that cannot take long."""
        until = self.now() + 300.0
        while True:
            self.open = {}
            for name in SESSIONS:
                session = await self._do(partial(Gateway.session, session_id=name))
                history = await self._do(partial(Gateway.history, session_id=name))
                self.open[name] = 1 if history is None else len(history.open)
                self.open[name] += 0 if session is None else len(session.timers)
            if not any(self.open.values()):
                return
            assert self.now() < until, f"turns are still open: {self.open}"
            await asyncio.sleep(1.0)

    async def _look(self, session: str) -> None:
        host = self.host()
        assert host is not None
        history = await host.gateway.history(session, limit=500)
        self.histories[session] = history.messages_json
        self.states[session] = await host.store.state(session)
        found = await host.store.memory(session)
        self.memories[session] = [(one.n, orjson.loads(one.body)) for one in found]
        self.asks[session] = list(history.asks)
        copy = (await host.gateway.fork(session)).id
        copied = await host.gateway.history(copy, limit=500)
        memory = [(one.n, orjson.loads(one.body)) for one in await host.store.memory(copy)]
        self.copies[session] = copied.messages_json, await host.store.state(copy), memory
        await host.gateway.delete(copy)

    async def _look_at_owners(self) -> None:
        host = self.host()
        assert host is not None
        for name in SESSIONS[:2]:
            owner = f"owner of {name}"
            page = await host.gateway.sessions(owner)
            count = partial(SQLiteReadings.answer, session="", ask=("tally", owner))
            tally = host._inner._engine.read(count)
            self.owned[name] = [session.id for session in page.sessions], tally
