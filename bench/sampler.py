"""Where a server's CPU goes: its stack, sampled each millisecond of CPU that the process uses.

The operating system's timer interrupts the server's thread between two steps of Python, so time in
C (SQLite, sockets) counts for the line that called it. The CPU of the thread that commits is
measured by its own clock.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from types import FrameType
from typing import Any

STEP = 0.001
ROOMS = (
    ("turnwise/stores/rules", "the rules of a turn"),
    ("turnwise/stores", "the store: rows, SQLite's statements"),
    ("turnwise/batching", "gathering acts into groups"),
    ("turnwise/worker", "the worker: attempts and output"),
    ("turnwise/gateway", "the gateway and the hub"),
    ("turnwise/channels", "HTTP: requests and answers"),
    ("turnwise/", "messages, bot, handler, the rest of Turnwise"),
    ("prometheus_client", "metrics"),
    ("starlette", "Starlette and FastAPI"),
    ("fastapi", "Starlette and FastAPI"),
    ("uvicorn", "uvicorn: parsing, sockets, the loop"),
    ("asyncio/runners", "uvicorn: parsing, sockets, the loop"),
)
OTHER = "Python's own library"


class Sampler:
    """The samples of this process since `start`."""

    def __init__(self) -> None:
        self._samples: Counter[str] = Counter()
        self._before: dict[int, float] = {}
        self._began = 0.0

    def start(self) -> None:
        self._samples.clear()
        self._began, self._before = time.process_time(), _others()
        signal.signal(signal.SIGPROF, self._take)
        signal.setitimer(signal.ITIMER_PROF, STEP, STEP)

    def stop(self) -> dict[str, float]:
        """Seconds of CPU by part."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        used = time.process_time() - self._began
        aside = sum(after - self._before.get(id, 0.0) for id, after in _others().items())
        count = sum(self._samples.values()) or 1
        parts = {part: n / count * (used - aside) for part, n in self._samples.items()}
        return {**parts, "the thread that commits": aside}

    def _take(self, _signal: int, frame: FrameType | None) -> None:
        self._samples[_part(frame)] += 1


def _part(frame: FrameType | None) -> str:
    if frame is None:
        return OTHER
    for room, name in ROOMS:
        if room in frame.f_code.co_filename:
            return name
    if "dataclass" in frame.f_code.co_filename or frame.f_code.co_filename == "<string>":
        return _part(frame.f_back)  # a dataclass's constructor
    return OTHER


def _others() -> dict[int, float]:
    """Seconds of CPU of the other threads."""
    me = threading.get_ident()
    idents = [thread.ident for thread in threading.enumerate() if thread.ident not in (me, None)]
    found: dict[int, float] = {}
    for ident in idents:
        clock: Any = time.pthread_getcpuclockid(ident or 0)
        found[ident or 0] = time.clock_gettime(clock)
    return found
