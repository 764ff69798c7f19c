"""A clock that jumps of the machine's clock do not disturb.

Sessions are deleted for good when their life has ended, so a clock that jumps ahead for some
seconds must not end it. A jump is noticed by a second clock, which nobody sets; until it has lasted
for `ACCEPT` seconds, time goes on here as if it had not happened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger("turnwise.store")

JUMP = 60.0
"""Seconds by which a clock may be set without being called a jump."""
ACCEPT = 600.0
"""Seconds after which a jump is believed."""


def elapsed() -> float:
    """Seconds that have passed since some moment, also while the machine was suspended."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class SteadyClock:
    """`source` are seconds since 1970, and `elapsed` seconds that pass evenly."""

    def __init__(
        self, source: Callable[[], float] = time.time, elapsed: Callable[[], float] = elapsed
    ) -> None:
        self._source = source
        self._elapsed = elapsed
        self._believed = source()
        self._then = elapsed()
        self._since: float | None = None

    def __call__(self) -> float:
        """Seconds since 1970."""
        told, now = self._source(), self._elapsed()
        expected = self._believed + now - self._then
        if abs(told - expected) > JUMP:
            if self._since is None:
                self._since = now
                log.warning(
                    "the clock has jumped by %+.0f s: ignored unless it lasts %g minutes",
                    told - expected,
                    ACCEPT / 60,
                )
            if now - self._since < ACCEPT:
                return expected
        self._believed, self._then, self._since = told, now, None
        return told


class ServerClock:
    """A server's clock, from ours and how far they are apart; it never goes back.

    `shift()` is added to it, in seconds: for tests.
    """

    def __init__(self, shift: Callable[[], float] | None = None) -> None:
        self._shift = shift or (lambda: 0.0)
        self._offset = 0.0
        self._clock: SteadyClock | None = None
        self._latest = 0.0

    def set(self, there: float, asked: float) -> None:
        """The server has told its time, having been asked at `asked` of our clock."""
        self._offset = there - (asked + time.time()) / 2
        if self._clock is None:  # the distance from ours is not a jump
            self._clock = SteadyClock(lambda: time.time() + self._offset)

    def __call__(self) -> float:
        """Seconds since 1970, in whole milliseconds: short to write."""
        assert self._clock is not None
        self._latest = max(self._latest, round(self._clock() + self._shift(), 3))
        return self._latest
