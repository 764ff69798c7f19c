"""Waiting: the items that are not computed yet, in lanes, and which of them go next.

A lane holds items that may share a batch (the same model, the same language). Lanes take turns;
empty lanes are removed. In a lane the highest priority goes first, equal ones in order of arrival;
an item gains one priority for each `ageing` seconds it waits, so no item waits forever.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any


class Ticket:
    """One item and the callers that wait for its result."""

    __slots__ = ("cost", "deadline", "future", "item", "lane", "others", "priority", "since", "tap")

    def __init__(
        self,
        item: Any,
        future: asyncio.Future[Any],
        since: float,
        priority: float = 0.0,
        lane: Hashable = None,
    ) -> None:
        self.item = item
        self.future = future
        self.since = since
        self.priority = priority
        self.lane = lane
        self.cost = 0.0
        self.deadline: float | None = None
        self.others: list[Ticket] | None = None
        """Tickets of callers that submitted an equal item; none of them waits in the queue."""
        self.tap: Callable[[Any], None] | None = None
        """Where the pieces of a streamed result go."""

    @property
    def given_up(self) -> bool:
        """Whether no caller waits for it any longer."""
        if not self.future.done():
            return False
        return self.others is None or all(other.future.done() for other in self.others)

    def callers(self) -> list[Ticket]:
        """It and all that wait for the same result."""
        return [self, *(self.others or ())]


class Budget:
    """The limits of a batch: at most `size` items, with a total cost of at most `cost`.

    With `padded`, each item is padded to the longest in the batch: a batch costs the highest cost
    times the number of items.
    """

    def __init__(self, size: int, cost: float | None, padded: bool) -> None:
        self.size = size
        self.cost = cost
        self.padded = padded

    def fits(self, batch: list[Ticket], ticket: Ticket, so_far: float) -> bool:
        """Whether `ticket` may join; `so_far` is the batch's cost up to now, see `add`."""
        if self.cost is None or not batch:
            return True
        total = self.add(so_far, ticket)
        return (total * (len(batch) + 1) if self.padded else total) <= self.cost

    def add(self, so_far: float, ticket: Ticket) -> float:
        """The highest cost, or the sum of costs, with one more ticket."""
        return max(so_far, ticket.cost) if self.padded else so_far + ticket.cost


class Lane:
    """The items that may share a batch, by priority."""

    __slots__ = ("levels",)

    def __init__(self) -> None:
        self.levels: dict[float, deque[Ticket]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.levels.values()))

    def wanted(self) -> int:
        """The number of items for which a caller still waits."""
        return sum(not ticket.given_up for level in self.levels.values() for ticket in level)

    def oldest(self) -> float:
        """When the longest waiting item was submitted."""
        return min(level[0].since for level in self.levels.values())

    def clean(self) -> int:
        """Drop abandoned items from the fronts; returns how many."""
        dropped = 0
        for priority, level in list(self.levels.items()):
            while level and level[0].given_up:
                level.popleft()
                dropped += 1
            if not level:
                del self.levels[priority]
        return dropped

    def first(self, now: float, ageing: float) -> Ticket:
        """The item that goes next."""
        if len(self.levels) == 1:
            (level,) = self.levels.values()
            return level[0]
        heads = (level[0] for level in self.levels.values())
        return max(heads, key=lambda t: (t.priority + (now - t.since) / ageing, -t.since))

    def pop(self, ticket: Ticket) -> None:
        level = self.levels[ticket.priority]
        level.popleft()
        if not level:
            del self.levels[ticket.priority]


class Waiting:
    """All lanes."""

    def __init__(self, budget: Budget, ageing: float) -> None:
        self.budget = budget
        self.dropped = 0
        self._ageing = ageing
        self._lanes: OrderedDict[Hashable, Lane] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Ticket]:
        for lane in self._lanes.values():
            for level in lane.levels.values():
                yield from level

    def add(self, ticket: Ticket) -> bool:
        """Let it wait. Returns whether it is the first of its lane."""
        lane = self._lanes.get(ticket.lane)
        first = lane is None
        if lane is None:
            lane = self._lanes[ticket.lane] = Lane()
        level = lane.levels.get(ticket.priority)
        if level is None:
            level = lane.levels[ticket.priority] = deque()
        level.append(ticket)
        self._count += 1
        return first

    def lift(self, ticket: Ticket, priority: float) -> None:
        """Raise the priority of an item that waits; one that is being computed keeps its own."""
        lane = self._lanes.get(ticket.lane)
        level = None if lane is None else lane.levels.get(ticket.priority)
        if lane is None or level is None or priority <= ticket.priority or ticket not in level:
            return
        level.remove(ticket)
        if not level:
            del lane.levels[ticket.priority]
        self._count -= 1
        ticket.priority = priority
        self.add(ticket)

    def forget_all(self) -> None:
        """Drop every item without a result, because its caller is in another process."""
        self._lanes.clear()
        self._count = 0

    def drop_given_up(self) -> None:
        """Remove all abandoned items, wherever they are in the queue."""
        kept = [ticket for ticket in self if not ticket.given_up]
        self.dropped += self._count - len(kept)
        self._lanes.clear()
        self._count = 0
        for ticket in kept:
            self.add(ticket)

    def lanes(self) -> Iterator[tuple[Hashable, Lane]]:
        """The lanes that are not empty, the one whose turn it is first."""
        for name, lane in list(self._lanes.items()):
            dropped = lane.clean()
            self.dropped += dropped
            self._count -= dropped
            if lane.levels:
                yield name, lane
            else:
                del self._lanes[name]

    def take_all_in_one(self, now: float) -> list[Ticket]:
        """A batch, if there is only one lane; empty if no caller waits."""
        lane = self._lanes.get(None)
        batch: list[Ticket] = []
        while lane is not None and lane.levels and not batch:
            batch = self._take_in_order(lane) if len(lane.levels) == 1 else self._ranked(lane, now)
        return batch

    def take(self, name: Hashable, lane: Lane, now: float) -> list[Ticket]:
        """A batch from this lane, which then waits for its next turn."""
        if self.budget.cost is None and len(lane.levels) == 1:
            batch = self._take_in_order(lane)
        else:
            batch = self._ranked(lane, now)
        if lane.levels:
            self._lanes.move_to_end(name)
        else:
            del self._lanes[name]
        return batch

    def _take_in_order(self, lane: Lane) -> list[Ticket]:
        """Fast path for the usual case: no costs and no priorities."""
        ((priority, level),) = lane.levels.items()
        batch: list[Ticket] = []
        size = self.budget.size
        while level and len(batch) < size:
            ticket = level.popleft()
            self._count -= 1
            if ticket.future.done() and ticket.given_up:  # done() is much cheaper, for every item
                self.dropped += 1
            else:
                batch.append(ticket)
        if not level:
            del lane.levels[priority]
        return batch

    def _ranked(self, lane: Lane, now: float) -> list[Ticket]:
        batch: list[Ticket] = []
        so_far = 0.0
        while lane.levels and len(batch) < self.budget.size:
            ticket = lane.first(now, self._ageing)
            if ticket.given_up:
                self.dropped += 1
            elif self.budget.fits(batch, ticket, so_far):
                batch.append(ticket)
                so_far = self.budget.add(so_far, ticket)
            else:
                break  # it stays first
            lane.pop(ticket)
            self._count -= 1
        return batch

    def is_full(self, lane: Lane) -> bool:
        """Whether the lane holds a full batch."""
        if len(lane) >= self.budget.size:
            return True
        if self.budget.cost is None:
            return False
        costs = [ticket.cost for level in lane.levels.values() for ticket in level]
        total = max(costs) * len(costs) if self.budget.padded else sum(costs)
        return total >= self.budget.cost
