"""Local: runs acts on data that is at hand, one after another, so none ever conflicts.

The memory store and the SQLite store are this, over their own ways to read and write.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from turnwise.errors import TurnwiseError
from turnwise.stores import rules
from turnwise.stores.claim import Claim, Desk
from turnwise.stores.header import Header
from turnwise.stores.notices import Appended, Ended, Notice
from turnwise.stores.rules import Ask, Changes, Op, Rule
from turnwise.stores.skipping import skip


class Readings(ABC):
    """Runs readings. `clock` is the store's: seconds since 1970."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def now(self) -> float:
        """The store's time, in whole milliseconds: short to write."""
        return round(self._clock(), 3)

    @abstractmethod
    def header(self, session: str) -> Header | None:
        """A session's header, for one run: a rule changes the header it is given."""

    @abstractmethod
    def answer(self, session: str, ask: Ask) -> Any:
        """The answer to one ask about a session; see stores/rules/."""

    def run(self, session: str, rule: Rule) -> Changes:
        """Run a rule to its changes, which nobody has committed yet."""
        asks = next(rule)
        header = self.header(session)
        sent: tuple[Any, ...] = (header, self.now(), *self._answers(session, asks))
        while True:
            try:
                asks = rule.send(sent)
            except StopIteration as end:
                changes: Changes = end.value
                return changes
            sent = tuple(self._answers(session, asks))

    def _answers(self, session: str, asks: Iterable[Ask]) -> Iterable[Any]:
        return [self.answer(session, ask) for ask in asks]


class Acts(Readings):
    """Runs acts, and collects what listeners are to hear of them in `notices`.

    `incarnation` changes when the store holds less than before.
    """

    def begin(self, origin: int) -> None:
        """`origin` is the number of this process among those that share the store."""
        self.origin = origin
        self.notices: list[Notice] = []
        self.incarnation = 0

    @abstractmethod
    def write(self, session: str, changes: Changes) -> None:
        """Write what an act has changed."""

    def act(self, session: str, rule: Rule) -> Any:
        """Run an act, and write its changes. Returns its answer."""
        changes = self.run(session, rule)
        if changes.header is not None:
            self.write(session, changes)
            if changes.ended is not None:
                self.notices.append(Ended(session, changes.ended))
            if changes.entries:
                self.notices.append(Appended(session, changes.entries))
            self.notices += changes.notices
        return changes.answer

    def claim(
        self,
        ops: Callable[[], Op],
        desk: Desk,
        ready: Callable[[], Sequence[str]],
        lapsed: Sequence[str],
        orphans: Sequence[tuple[str, int]] = (),
    ) -> list[Claim]:
        """Claim the sessions that are `ready` for `desk`, after those whose claims have ended.

        Each claim is an operation of its own, because its token is made of it. A session that
        cannot be read does not hold up the others.
        """
        for session in lapsed:
            self._try(session, rules.lapse(ops()))
        for session, process in orphans:
            self._try(session, rules.lapse(ops(), process))
        names = ready()
        claims = [self._try(session, rules.claim(session, desk, ops())) for session in names]
        if None in claims:  # those that were due are in the line now
            again = ready()[: claims.count(None)]
            claims += [self._try(session, rules.claim(session, desk, ops())) for session in again]
        return [claim for claim in claims if claim is not None]

    def _try(self, session: str, rule: Rule) -> Any:
        try:
            return self.act(session, rule)
        except TurnwiseError as error:  # raised before anything of the session was written
            skip(session, error)
            return None
