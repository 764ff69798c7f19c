"""A plan of load and trouble, which the simulation and the real processes both go through."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Trouble(NamedTuple):
    """What happens at a time: a worker is killed or started, all are replaced one by one, or an
    owner sends very many messages at once."""

    at: float
    what: str  # "kill", "start", "deploy" or "flood"
    number: int = 0


class Arrival(NamedTuple):
    """A message: when it comes, in which session, whose it is, and how long its answer takes."""

    at: float
    session: int
    owner: str
    seconds: float


class Answered(NamedTuple):
    """What became of it: when it came, and how many seconds later its reply."""

    at: float
    owner: str
    handler: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """Load and trouble, the same for the same seed. `rate` turns/s come at random; a handler takes
    `handler` seconds on average, exponentially."""

    rate: float = 150.0
    seconds: float = 60.0
    handler: float = 0.25
    sessions: int = 10_000
    owners: int = 100
    servers: int = 2
    workers: int = 4
    slots: int = 20
    """Turns that a worker answers at once."""
    lease: float = 3.0
    grace: float = 5.0
    deltas: int = 0
    """Events of a streamed reply, beside those of every turn."""
    troubles: tuple[Trouble, ...] = ()
    seed: int = 1

    def arrivals(self) -> Iterator[Arrival]:
        """All messages, in the order of time."""
        chance = random.Random(self.seed)
        floods = [trouble for trouble in self.troubles if trouble.what == "flood"]
        at = chance.expovariate(self.rate)
        while at < self.seconds or floods:
            if floods and floods[0].at <= at:
                flood = floods.pop(0)
                for i in range(flood.number):
                    yield Arrival(flood.at, self.sessions + i, "flood", self._length(chance))
                continue
            session = chance.randrange(self.sessions)
            owner = f"owner {session % self.owners}"
            yield Arrival(at, session, owner, self._length(chance))
            at += chance.expovariate(self.rate)

    def _length(self, chance: random.Random) -> float:
        return min(5.0, chance.expovariate(1 / self.handler)) if self.handler else 0.0


def share(times: list[float], part: float) -> float:
    """The time within which this part of them is."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")
