"""Overview: what an operator sees of all sessions and all processes at one moment.

Turns come from the store's own rows, so they are right whoever runs them; figures of the processes
come by roll call. It is made when somebody looks, once a second for all who do.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from turnwise.conversation import TurnRecord, iso
from turnwise.errors import TurnwiseError
from turnwise.roll_call import Report, RollCall
from turnwise.stores.base import Store
from turnwise.stores.records import Busy
from turnwise.telemetry import BOUNDS

FRESH = 0.9
"""Seconds that an overview is shown again."""
LISTED = 200
"""Open turns that are listed, of those that run and of those that wait."""
SLOWLY = {"failures": 3.0, "store": 60.0}
"""Seconds that these parts are shown again."""
SESSIONS, TURNS = 20, 3
"""Sessions of which failures are shown, and how many of each."""
WINDOW = 10.0
"""Seconds over which rates and times are taken."""
POINTS = 600
"""Points that are kept for the pictures."""
TIMES = ("wait", "first", "took")

Figures = dict[str, Any]


class Overview:
    """The overview of one store, which its lookers share."""

    def __init__(self, store: Store, calls: RollCall) -> None:
        self._store = store
        self._calls = calls
        self._looking = asyncio.Lock()
        self._seen: dict[str, Any] = {}
        self._seen_at = float("-inf")
        self._kept: dict[str, tuple[float, Any]] = {}
        self._flow = Flow()
        self._points: deque[dict[str, Any]] = deque(maxlen=POINTS)

    async def look(self) -> dict[str, Any]:
        """Everything, as JSON. Raises StoreUnavailable."""
        async with self._looking:
            if time.monotonic() - self._seen_at >= FRESH:
                self._seen = await self._make()
                self._seen_at = time.monotonic()
            return self._seen

    async def _make(self) -> dict[str, Any]:
        processes = await self._calls.ask()
        busy = await self._store.busy(LISTED)
        waiting = await self._store.waiting()
        running = sum(report["running"] for report in processes.values())
        now = time.monotonic()
        self._flow.add(processes, now)
        point = {"at": time.time(), "running": running, "waiting": waiting}
        self._points.append({**point, **self._flow.figures(now)})
        return {
            "at": iso(time.time()),
            "running": running,
            "waiting": waiting,
            "turns": [_open(one) for one in busy],
            "limit": LISTED,
            "processes": [
                {"name": name, **{k: v for k, v in report.items() if k not in HIDDEN}}
                for name, report in processes.items()
            ],
            "failures": await self._slowly("failures", self._failures),
            "store": await self._slowly("store", self._store.facts),
            "points": list(self._points),
        }

    async def _slowly(self, name: str, make: Any) -> Any:
        """A part that is made anew only now and then."""
        at, found = self._kept.get(name, (float("-inf"), None))
        if time.monotonic() - at >= SLOWLY[name]:
            found = await make()
            self._kept[name] = time.monotonic(), found
        return found

    async def _failures(self) -> list[dict[str, Any]]:
        """The turns that failed last, over all sessions, with their reasons."""
        found: list[TurnRecord] = []
        for session in await self._store.failing(SESSIONS):
            asked = {"status": "failed", "before": None, "after": None, "limit": TURNS}
            try:
                found += (await self._store.turns(session, **asked))[0]  # type: ignore[arg-type]
            except TurnwiseError:  # it is gone, or cannot be read: the others can
                continue
        found.sort(key=lambda turn: turn.finished_at or 0.0, reverse=True)
        return [_failure(turn) for turn in found]


HIDDEN = ("call", "figures")
"""Parts of a report that are not shown as they are."""


def _open(one: Busy) -> dict[str, Any]:
    times = {"queued_at": iso(one.queued_at), "started_at": one.started_at and iso(one.started_at)}
    return {**one._asdict(), **times}


def _failure(turn: TurnRecord) -> dict[str, Any]:
    return {
        "session": turn.session,
        "n": turn.n,
        "attempt": turn.attempt,
        "at": turn.finished_at and iso(turn.finished_at),
        "error": orjson.loads(turn.error_json) if turn.error_json else None,
    }


class Flow:
    """What has happened in the last seconds, from what the processes have counted in all."""

    def __init__(self) -> None:
        self._last: dict[str, Figures] = {}
        self._steps: deque[tuple[float, Figures]] = deque()
        self._began = float("inf")

    def add(self, processes: Mapping[str, Report], now: float) -> None:
        """`processes` have reported their figures; `now` is monotonic, in seconds."""
        self._began = min(self._began, now)
        for name, report in processes.items():
            figures = report["figures"]
            # What a process has counted before anybody looked is no news.
            if name in self._last and self._last[name] != figures:
                self._steps.append((now, _difference(figures, self._last[name])))
            self._last[name] = figures
        self._last = {name: self._last[name] for name in processes}
        while self._steps and self._steps[0][0] < now - WINDOW:
            self._steps.popleft()

    def figures(self, now: float) -> dict[str, Any]:
        """Turns and failures a second, and of each kind of time the median and the 95th of a
        hundred, in seconds (None if nothing was timed)."""
        span = min(WINDOW, max(1.0, now - self._began))
        outcomes: Counter[str] = Counter()
        for _, step in self._steps:
            outcomes.update(step["turns"])
        found: dict[str, Any] = {
            "rate": sum(outcomes.values()) / span,
            "failed": outcomes["failed"] / span,
        }
        for name in TIMES:
            rows = [step[name] for _, step in self._steps]
            counts = [sum(column) for column in zip(*rows, strict=True)]
            found[name] = [quantile(counts, 0.5), quantile(counts, 0.95)]
        return found


def _difference(figures: Figures, before: Figures) -> Figures:
    turns = {name: n - before["turns"].get(name, 0) for name, n in figures["turns"].items()}
    times = {
        name: [n - m for n, m in zip(figures[name], before[name], strict=True)] for name in TIMES
    }
    return {"turns": turns, **times}


def quantile(counts: Sequence[int], part: float) -> float | None:
    """The time that `part` of the observations did not exceed, in seconds; `counts` are how many
    were in each bucket. Within a bucket they are taken to be spread evenly."""
    wanted = part * sum(counts)
    seen, low = 0.0, 0.0
    for count, high in zip(counts, (*BOUNDS, BOUNDS[-1]), strict=False):
        if count and seen + count >= wanted:
            return low + (high - low) * (wanted - seen) / count
        seen, low = seen + count, high
    return None
