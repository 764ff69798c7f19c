"""Measures: a batcher's statistics, and how long its function takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from turnwise import telemetry

Reason = Literal["full", "idle", "enough", "linger", "drain"]
"""Why a batch started: it was full, a worker was free, it held `min_size` items, its oldest item
had waited `max_wait` seconds, the batcher was closing."""


class Batch(NamedTuple):
    """A computed batch: items, seconds the first one waited, seconds it took, why it started."""

    size: int
    waited: float
    took: float
    reason: Reason


@dataclass(slots=True)
class Stats:
    """Numbers of one batcher since it was created.

    `dropped`: items whose callers gave up before they were computed; `expired`: items whose
    deadline passed; `refused`: items for which the queue had no room; `isolated`: bad items found
    by halving; `failed`: batches whose function raised.
    """

    items: int = 0
    batches: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)
    dropped: int = 0
    expired: int = 0
    refused: int = 0
    isolated: int = 0
    failed: int = 0

    def count(self, size: int, reason: Reason) -> None:
        """Count one batch."""
        self.items += size
        self.batches += 1
        self.reasons[reason] += 1

    @staticmethod
    def exported(name: str, also: Callable[[Batch], None] | None) -> Callable[[Batch], None]:
        """An observer that counts in Prometheus's metrics under the label `name`."""

        def observe(batch: Batch) -> None:
            telemetry.named_batch(name, *batch)
            if also is not None:
                also(batch)

        return observe


class ServiceTime:
    """Predicts a batch's seconds as a * n + b, fitted to earlier batches; newer ones count more."""

    FADING = 0.9

    def __init__(self) -> None:
        self._weight = self._n = self._nn = self._t = self._nt = 0.0

    def learn(self, n: int, took: float) -> None:
        """Record that a batch of `n` took `seconds`."""
        fading = self.FADING
        self._weight = self._weight * fading + 1
        self._n = self._n * fading + n
        self._nn = self._nn * fading + n * n
        self._t = self._t * fading + took
        self._nt = self._nt * fading + n * took

    def of(self, n: int) -> float:
        """Seconds that a batch of `n` is likely to take."""
        if not self._weight:
            return 1.0
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        spread = self._nn / self._weight - mean_n**2
        slope = (self._nt / self._weight - mean_n * mean_t) / spread if spread > 1e-9 else 0.0
        return max(0.0, mean_t + max(0.0, slope) * (n - mean_n))

    def until(self, waiting: int, size: int, concurrency: int) -> float:
        """Seconds until this number of items is likely to be done."""
        batches = -(-waiting // size)
        return max(0.001, self.of(size) * -(-batches // concurrency))
