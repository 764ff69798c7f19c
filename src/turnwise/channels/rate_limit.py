"""Rate: a limit for each of many keys, counted in this process."""

from __future__ import annotations

import time
from collections.abc import Callable

from turnwise.errors import RateLimited

MINUTE = 60.0
FEW = 1_000
"""Number of keys above which old keys are removed."""


class Counted:
    """One action of `key` (None: not counted), around which this is a context manager.

    It counts unless it raises or `counts` is set to False.
    """

    __slots__ = ("_key", "_rate", "counts")

    def __init__(self, rate: Rate, key: str | None) -> None:
        self._rate = rate
        self._key = key
        self.counts = True

    def __enter__(self) -> Counted:
        if self._key is not None:
            self._rate.take(self._key)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._key is not None and (kind is not None or not self.counts):
            self._rate.give_back(self._key)


class Rate:
    """Allows `per_minute` actions for each key, at once or spread out; 0: no limit.

    The generic cell rate algorithm (ATM Forum, 1996): one number for each key, the time at which
    its whole allowance is available again.
    """

    def __init__(
        self, per_minute: int, what: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._gap = MINUTE / per_minute if per_minute else 0.0
        self._what = what
        self._clock = clock
        self._rested: dict[str, float] = {}
        self._forget_at = FEW

    def counting(self, key: str | None) -> Counted:
        """A context in which one action of `key` happens. Entering it raises RateLimited."""
        return Counted(self, key)

    def give_back(self, key: str) -> None:
        """Undo one count."""
        if self._gap and key in self._rested:
            self._rested[key] -= self._gap

    def take(self, key: str) -> None:
        """Count one. Raises RateLimited with the seconds to wait."""
        if not self._gap:
            return
        now = self._clock()
        rested = max(self._rested.get(key, now), now) + self._gap
        if rested - now > MINUTE + 1e-6:
            raise RateLimited(self._what, rested - now - MINUTE)
        self._rested[key] = rested
        if len(self._rested) > self._forget_at:
            self._rested = {key: at for key, at in self._rested.items() if at > now}
            self._forget_at = max(FEW, 2 * len(self._rested))


class Rates:
    """What is counted of one process's strangers, at all of its doors together."""

    def __init__(self, sessions: int, messages: int) -> None:
        self.sessions = Rate(sessions, "Too many new sessions from here.")
        self.messages = Rate(messages, "Too many messages in this session.")
