"""Driver: what a server is beneath the rules, and one try of an act over it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from turnwise.stores.claim import Desk
from turnwise.stores.header import Header
from turnwise.stores.rules import Ask, Changes, Rule


class Lost(Exception):
    """The server did not answer. `sent`: the request may have been done."""

    def __init__(self, words: str, *, sent: bool) -> None:
        super().__init__(words)
        self.sent = sent


class Driver(ABC):
    """What a server is beneath the rules. Each method raises Lost."""

    origin: int
    """The number of this process at the store."""
    counting: Counter[str]
    """Acts of this process, by the owner, that have counted the owner's turns and go on."""
    incarnation: int = 0
    """It changes whenever the server may hold less than before."""

    @abstractmethod
    def now(self) -> float:
        """The server's time, in seconds since 1970."""

    @abstractmethod
    async def read(
        self, session: str, asks: Sequence[Ask], *, header: bool
    ) -> tuple[bytes | None, Sequence[Any]]:
        """A session's header, if it is wanted, and the answers to some asks."""

    @abstractmethod
    async def commit(self, session: str, changes: Changes, body: bytes) -> bool:
        """Write what an act has changed, all or nothing; False if the header was another one.

        Only where a session takes the place of an expired one may the removal stand alone.
        """

    @abstractmethod
    async def forget_memory(self, session: str, upto: int) -> None:
        """Remove memory entries that a committed act has forgotten; a later call makes up for one
        that was lost."""

    async def confirm(self, session: str) -> None:  # noqa: B027 most servers confirm what they do
        """Return when what was committed is as durable as an answered commit."""

    @abstractmethod
    async def at_one_moment(self, session: str, make: Callable[[], Rule]) -> Any:
        """The answer of a reading that sees one moment of the store, however often it asks."""

    @abstractmethod
    async def take(self, desk: Desk, limit: int) -> list[str]:
        """Sessions that are ready, each handed to one worker only for a while, in the order in
        which owners are served; see PLACED in stores/header.py."""

    @abstractmethod
    async def give_back(self, sessions: Sequence[str]) -> None:
        """Sessions that were handed out and not claimed: another worker may have them."""

    @abstractmethod
    async def lapsed(self) -> list[str]:
        """Sessions whose claims may have lapsed."""


class Attempt:
    """One try of an act on a session. `kept` is a header to begin with instead of reading it."""

    def __init__(self, driver: Driver, session: str, kept: bytes | None) -> None:
        self._driver = driver
        self._session = session
        self._kept = kept
        self._version: str | None = None
        self.events = 0
        self.origin: int | None = None
        self._at_once = True
        self.body = b""
        self._counted: list[str] = []

    async def run(self, rule: Rule) -> Changes | None:
        """Run a rule to its changes, or to its answer or error if it changes nothing.

        None if that says nothing, because what it read was not one moment of the session: the
        header was kept from before, or has changed before the rest was read.
        """
        try:
            sent = await self._first(next(rule))
            while True:
                asks = rule.send(sent)
                if asks and asks[0][0] == "tally":
                    sent = (await self._count(asks[0]),)
                    continue
                _, answers = await self._driver.read(self._session, asks, header=False)
                self._at_once = False
                sent = tuple(answers)
        except StopIteration as end:
            changes: Changes = end.value
        except Lost:
            raise
        except Exception:
            if await self._one_moment():
                raise
            return None
        # If it is to be committed, the commit finds out.
        return changes if changes.header is not None or await self._one_moment() else None

    async def _one_moment(self) -> bool:
        return self._kept is None and (self._at_once or await self._same())

    async def _first(self, asks: tuple[Ask, ...]) -> tuple[Any, ...]:
        """The header, the time, and the answers to what the rule asks at once."""
        found = self._kept
        answers: Sequence[Any] = ()
        if found is None or asks:
            read, answers = await self._driver.read(self._session, asks, header=found is None)
            found = read if found is None else found
            self._at_once = all(kind == "key" for kind, *_ in asks)
        header = None if found is None else Header.decode(found)
        if header is not None:
            self.events, self._version = header.events, header.version
            self.origin = header.origin
        return (header, self._driver.now(), *answers)

    async def _count(self, ask: Ask) -> tuple[int, int]:
        """How many turns of an owner are open and running, with those that other acts of this
        process are about to add: so that acts side by side do not all see the same room."""
        owner = ask[1]
        others = self._driver.counting[owner]
        self._driver.counting[owner] += 1
        self._counted.append(owner)
        _, ((waiting, running),) = await self._driver.read(self._session, (ask,), header=False)
        return waiting + others, running + others

    def over(self) -> None:
        """The try has ended."""
        for owner in self._counted:
            self._driver.counting[owner] -= 1
            if not self._driver.counting[owner]:
                del self._driver.counting[owner]
        self._counted.clear()

    async def commit(self, changes: Changes) -> bool:
        """Commit the changes, if the header is still the one that they were computed from."""
        assert changes.header is not None
        self.body = changes.header.encode()
        return await self._driver.commit(self._session, changes, self.body)

    async def _same(self) -> bool:
        """Whether the header is still the one that was read first."""
        found, _ = await self._driver.read(self._session, (), header=True)
        return (None if found is None else Header.decode(found).version) == self._version
