"""The memory store: dicts of encoded rows. For tests, and the model of every other store."""

from __future__ import annotations

import asyncio
import secrets
import time
from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from turnwise.conversation import Session
from turnwise.identity import operation
from turnwise.stores import rules
from turnwise.stores.claim import Claim, Desk
from turnwise.stores.header import PLACED, Header, Index, needed_from
from turnwise.stores.local import Acts
from turnwise.stores.notices import Listener, Listeners
from turnwise.stores.records import Busy, Place, is_many
from turnwise.stores.rows import ACCEPTED, ENDED, Entry, blanked, messages_of
from turnwise.stores.ruled import Make, RuledStore, Settled
from turnwise.stores.rules import STATES, Ask, Changes, Op, Rule


class MemoryStore(RuledStore):
    """Sessions in this process, until it ends. `clock` returns seconds since 1970."""

    durability = "Memory: everything is lost when the process ends."

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._acts = MemoryActs(clock)
        self._listeners = Listeners()
        self._secret = secrets.token_bytes(32)
        self._published: dict[str, bytes] = {}

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._listeners.add(listener)

    def _begin(
        self,
        session: str,
        make: Make,
        operation: str | None = None,
        settled: Settled | None = None,
    ) -> asyncio.Future[Any]:
        return self._run(lambda op: self._acts.act(session, make(op)), operation, settled)

    def _run(
        self,
        work: Callable[[Op], Any],
        name: str | None = None,
        settled: Settled | None = None,
    ) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        answer = None
        try:
            answer = work(Op(name or operation(), self._acts.origin))
            future.set_result(answer)
        except Exception as error:
            future.set_exception(error)
        notices, self._acts.notices = self._acts.notices, []
        if settled is not None:
            settled(answer)
        self._listeners.tell(notices)
        return future

    def _op(self) -> Op:
        return Op(operation(), self._acts.origin)

    async def _read(self, session: str, make: Callable[[], Rule]) -> Any:
        return self._acts.run(session, make()).answer

    async def secret(self) -> bytes:
        return self._secret

    async def adopt(self, secret: bytes) -> None:
        self._secret = secret

    async def publish(self, name: str, value: bytes | None) -> None:
        self._published.pop(name, None)
        if value is not None:
            self._published[name] = value

    async def published(self, names: str) -> dict[str, bytes]:
        many = is_many(names)
        return {
            name: value
            for name, value in self._published.items()
            if (name.startswith(names) if many else name == names)
        }

    async def ping(self) -> None:
        pass

    async def waiting(self) -> int:
        return sum(kept.place is not None for kept in self._acts.sessions.values())

    async def busy(self, limit: int) -> list[Busy]:
        every = (rules.busy(name, kept.header) for name, kept in self._acts.sessions.items())
        found = [one for one in every if one is not None]
        running = [one for one in found if one.status == "running"]
        return [*running[:limit], *[one for one in found if one not in running][:limit]]

    async def outbox(self, channel: str, limit: int) -> list[str]:
        every = self._acts.sessions.items()
        return [name for name, kept in every if kept.index.outbox == channel][:limit]

    async def failing(self, limit: int) -> list[str]:
        failed = [
            (kept.failed, name)
            for name, kept in self._acts.sessions.items()
            if kept.failed is not None
        ]
        return [name for _, name in sorted(failed, reverse=True)[:limit]]

    async def facts(self) -> dict[str, str]:
        return {"store": "memory", "sessions": str(len(self._acts.sessions))}

    async def sessions(self, *, after: str = "", limit: int = 100) -> list[Session]:
        acts, now = self._acts, self._acts.now()
        names = (
            name
            for name, kept in acts.sessions.items()
            if name > after and rules.listed(kept.header, now)
        )
        found = [await self.session(name) for name in sorted(names)[:limit]]
        return [session for session in found if session is not None]

    async def ids(self, *, after: str = "", limit: int = 100) -> list[str]:
        acts, now = self._acts, self._acts.now()
        found = (n for n, one in acts.sessions.items() if n > after and rules.kept(one.header, now))
        return sorted(found)[:limit]

    async def owned(self, owner: str, *, before: Place | None, limit: int) -> list[Session]:
        acts, now = self._acts, self._acts.now()
        places = sorted(
            (
                (kept.index.owned.used, name)
                for name, kept in acts.sessions.items()
                if kept.index.owned is not None
                and kept.index.owned.owner == owner
                and kept.index.owned.used is not None
                and (before is None or (kept.index.owned.used, name) < before)
                and rules.listed(kept.header, now)
            ),
            reverse=True,
        )
        found = [await self.session(name) for _, name in places[:limit]]
        return [session for session in found if session is not None]

    async def claim(self, desk: Desk, limit: int) -> list[Claim]:
        def work(_: Op) -> list[Claim]:
            acts, now = self._acts, self._acts.now()
            ready = partial(acts.ready, desk, now, limit)
            return acts.claim(self._op, desk, ready, acts.lapsed(now))

        claims: list[Claim] = await self._run(work)
        return claims

    async def sweep(self, *, retention: float, limit: int = 200) -> int:
        acts, now = self._acts, self._acts.now()

        async def due() -> list[str]:
            return [name for name, kept in acts.sessions.items() if kept.index.expires <= now]

        deleted = await self._expire(due)
        for kept in acts.sessions.values():
            kept.trim(now - retention)
        return deleted


class _Kept:
    """All of one session."""

    def __init__(self) -> None:
        self.header = b""
        self.index = Index(None, None, None, None, 0.0)
        self.place: int | None = None
        """Where it stands in the line of those that are ready."""
        self.entries: list[Entry] = []
        self.keys: dict[str, bytes] = {}
        self.states: dict[int, bytes] = {}
        self.parts: dict[str, bytes] = {}
        self.horizon = 0
        self.failed: float | None = None

    def erase(self, last: int) -> None:
        """Remove what a reset leaves nothing of."""
        old = [blanked(entry) for entry in self.entries if entry.last <= last]
        new = [entry for entry in self.entries if entry.last > last]
        self.entries = [entry for entry in old if entry is not None] + new

    def trim(self, cutoff: float) -> None:
        """Remove what attempts wrote before `cutoff`, but nothing of a running one."""
        upto = needed_from(self.header)
        kept = []
        for entry in self.entries:
            if entry.at is not None and entry.at < cutoff and entry.last < upto:
                self.horizon = max(self.horizon, entry.last)
            else:
                kept.append(entry)
        self.entries = kept


class MemoryActs(Acts):
    """Acts on dicts."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.begin(0)
        self.sessions: dict[str, _Kept] = {}

    def header(self, session: str) -> Header | None:
        kept = self.sessions.get(session)
        return None if kept is None or kept.header is None else Header.decode(kept.header)

    def answer(self, session: str, ask: Ask) -> Any:
        kept = self.sessions.get(session) or _Kept()
        match ask:
            case ("key", key):
                return kept.keys.get(key)
            case ("state", number):
                return kept.states.get(number)
            case ("part", name):
                return kept.parts.get(name)
            case ("horizon",):
                return kept.horizon
            case ("keys",):
                return sorted(kept.keys.items())
            case ("parts",):
                return sorted(kept.parts.items())
            case ("tally", owner):
                return self._tally(owner)
            case ("turn", n):
                return [e for e in kept.entries if e.turn == n]
            case ("open", first, limit):
                ended = {e.turn for e in kept.entries if e.kind in ENDED}
                waiting = {
                    e.turn: e
                    for e in kept.entries
                    if e.kind in ACCEPTED and e.turn not in ended and (e.turn or 0) >= first
                }
                return list(waiting.values())[:limit]
            case ("ended", after, before, kinds, limit, latest):
                found = [
                    e for e in kept.entries if e.kind in kinds and after < (e.turn or 0) < before
                ]
                return _page(sorted(found, key=lambda e: e.turn or 0), limit, latest)
            case ("messages", after, before, limit, latest):
                found = [
                    e
                    for e in kept.entries
                    if (e.turn or 0) > 0
                    and e.seq is not None
                    and e.seq < before
                    and e.seq + len(messages_of(e)) - 1 > after
                ]
                return _page(found, limit, latest)
            case ("log", first, limit):
                start = bisect_left(kept.entries, first, key=lambda e: e.last)
                told = (e for e in islice(kept.entries, start, None) if e.kind != "m")
                return list(islice(told, limit))
            case ("memory", after, before, limit, latest):
                found = [e for e in kept.entries if e.kind == "m" and after < (e.seq or 0) < before]
                return _page(found, limit, latest)
        raise ValueError(ask)

    def write(self, session: str, changes: Changes) -> None:
        assert changes.header is not None
        if changes.delete:
            del self.sessions[session]
            return
        if changes.fresh or session not in self.sessions:
            self.sessions[session] = _Kept()
        kept = self.sessions[session]
        kept.header, kept.index = changes.header.encode(), rules.index(changes.header)
        if kept.index.ready is None or kept.index.ready > self.now() + PLACED:
            kept.place = None
        elif kept.place is None:
            kept.place = self._place(kept.index)
        kept.entries += changes.entries
        kept.failed = rules.failed_at(changes.entries) or kept.failed
        kept.parts |= changes.parts
        kept.keys |= changes.keys
        for number, state in changes.states.items():
            kept.states[number] = state
            kept.states.pop(number - STATES, None)
        if changes.unlearned is not None:
            first, last = changes.unlearned
            gone = range(first, last + 1)
            kept.entries = [e for e in kept.entries if e.kind != "m" or e.seq not in gone]
        if changes.forgotten is not None:
            gone = range(changes.forgotten + 1)
            kept.entries = [e for e in kept.entries if e.kind != "m" or e.seq not in gone]
        if changes.erase:
            kept.states.clear()
            kept.erase(changes.header.base_event)

    def _place(self, index: Index) -> int:
        """The place in the line of a session that gets in there now; see PLACED."""
        line = [
            (kept.place, kept.index.owned.owner if kept.index.owned else None)
            for kept in self.sessions.values()
            if kept.place is not None
        ]
        place = min((place for place, _ in line), default=1)
        if index.owned is not None:
            place = max([place, *(p + 1 for p, owner in line if owner == index.owned.owner)])
        return place

    def _tally(self, owner: str) -> tuple[int, int]:
        every = (kept.index.owned for kept in self.sessions.values())
        owned = [one for one in every if one is not None and one.owner == owner]
        return sum(one.open for one in owned), sum(one.running for one in owned)

    def ready(self, desk: Desk, now: float, limit: int) -> list[str]:
        """Sessions that `desk` may take: those that are due, then in order of the line."""
        found = []
        for session, kept in self.sessions.items():
            ready, keeper, owned = kept.index.ready, kept.index.keeper, kept.index.owned
            open_ = owned is None or self._may_run(owned.owner, desk)
            if open_ and ready is not None and (ready <= now or keeper == desk.worker):
                found.append((kept.place or 0, ready, session))
        return [session for *_, session in sorted(found)[:limit]]

    def _may_run(self, owner: str, desk: Desk) -> bool:
        return desk.owner_limit is None or self._tally(owner)[1] < desk.owner_limit

    def lapsed(self, now: float) -> list[str]:
        """Sessions whose claims have lapsed."""
        leases = ((session, kept.index.lease) for session, kept in self.sessions.items())
        return [session for session, lease in leases if lease is not None and lease <= now]


def _page(entries: list[Entry], limit: int, latest: bool) -> list[Entry]:
    return entries[-limit:] if latest else entries[:limit]
