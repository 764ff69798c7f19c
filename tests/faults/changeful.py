"""People who change their minds: they edit, branch, write in pieces, set timers, own their list."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from people import Acknowledged, Person

KEY = "of-a-trusted-backend"
SETTINGS = {
    "TURNWISE_API_KEYS": KEY,
    "TURNWISE_OWNER_RUNNING": "2",
    "TURNWISE_OWNER_WAITING": "12",
}
"""What the servers of a scene with such people are given."""


@dataclass
class Branch:
    """A session that was made of another: its path, and the texts that it must begin with."""

    path: str
    texts: list[str]


@dataclass
class Changeful(Person):
    """One who now and then does one of `deeds` instead of only saying something.

    Whoever shares an `owner` with others shares their places and their list. In the end the list
    must hold all that one has made, and nothing else if one shares it with nobody.
    """

    deeds: tuple[str, ...] = ()
    owner: str = ""
    timed: list[str] = field(default_factory=list)
    """The keys of timers that a server has promised to keep."""
    changed: dict[int, str] = field(default_factory=dict)
    """What was said instead of a message that waited."""
    branches: list[Branch] = field(default_factory=list)

    async def _make(self, client: httpx.AsyncClient) -> None:
        self.auth = {"Authorization": f"Bearer {KEY}", "X-Turnwise-Owner": self.owner or self.name}
        headers = {"Idempotency-Key": self.name}  # a lost answer leaves no second session
        made = await self._insist(client, "POST", "/sessions", json={}, headers=headers)
        self.path = f"/sessions/{made['id']}"

    async def _say(self, client: httpx.AsyncClient, text: str) -> None:
        await super()._say(client, text)
        if self.deeds and self.chance.random() < 0.5:
            deed = getattr(self, f"_{self.chance.choice(self.deeds)}")
            await deed(client, f"{text}.more", self.acknowledged[-1].n)

    # Deeds

    async def _send(
        self, client: httpx.AsyncClient, key: str, path: str = "/turns", **body: Any
    ) -> dict[str, Any] | None:
        """The turn that it became, which is acknowledged, or None if it was refused."""
        headers = {"Idempotency-Key": key}
        where = self.path + path
        turn: dict[str, Any] | None = await self._insist(
            client, "POST", where, refused=409, json=body or None, headers=headers
        )
        if turn is not None:
            self.acknowledged.append(Acknowledged(key, turn["n"], time.monotonic()))
        return turn

    async def _edit(self, client: httpx.AsyncClient, key: str, n: int) -> None:
        """Say the last message or the one before in other words, be it answered or not."""
        await self._send(client, key, text=key, replaces=max(1, n - self.chance.randrange(2)))

    async def _again(self, client: httpx.AsyncClient, key: str, n: int) -> None:
        await self._send(client, key, f"/turns/{n}/again")

    async def _interrupt(self, client: httpx.AsyncClient, key: str, n: int) -> None:
        await self._send(client, key, text=key, when_busy="interrupt")

    async def _change(self, client: httpx.AsyncClient, key: str, n: int) -> None:
        """Change a message that waits behind another."""
        turn = await self._send(client, key, text=key)
        assert turn is not None
        path = f"{self.path}/turns/{turn['n']}"
        body = {"text": f"{key}.new"}
        changed = await self._insist(client, "PATCH", path, refused=409, json=body)
        if changed is not None:
            self.changed[turn["n"]] = body["text"]

    async def _pieces(self, client: httpx.AsyncClient, key: str, n: int) -> None:
        """Three messages that mean one."""
        for i in range(3):
            text = f"{key}{i}"
            await self._send(client, text, text=text, when_busy="merge", settle=0.2)

    async def _timer(self, client: httpx.AsyncClient, key: str, n: int) -> None:
        """Be woken a moment later."""
        at = time.time() + self.chance.uniform(0.2, 2.0)
        headers, body = {"Idempotency-Key": key}, {"reason": key, "at": at}
        path = f"{self.path}/wake"
        await self._insist(client, "POST", path, json=body, headers=headers)
        self.timed.append(key)

    async def _branch(self, client: httpx.AsyncClient, key: str, n: int) -> None:
        """Go on elsewhere from the last turn that has ended."""
        texts = [(message["turn"], message["text"]) for message in await self.history(client)]
        if not texts:
            return
        at = texts[-1][0]
        headers, body = {"Idempotency-Key": key}, {"at": at}
        path = f"{self.path}/fork"
        made = await self._insist(client, "POST", path, json=body, headers=headers)
        branch = Branch(f"/sessions/{made['id']}", [text for _, text in texts])
        self.branches.append(branch)
        headers = {"Idempotency-Key": f"{key}.there"}
        said = {"text": f"{key}.there"}
        await self._insist(client, "POST", f"{branch.path}/turns", json=said, headers=headers)

    # The end

    async def _hear_the_end(self, client: httpx.AsyncClient) -> None:
        try:
            async with asyncio.timeout(60):
                while (await self._insist(client, "GET", self.path)).get("timers"):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            self.broken.append("a timer has not fired")
        await super()._hear_the_end(client)
        for branch in self.branches:
            await self._look_at(client, branch)
        await self._look_at_list(client)

    async def _look_at(self, client: httpx.AsyncClient, branch: Branch) -> None:
        """A branch begins with what was said before, and its message was answered."""
        path = f"{branch.path}/messages?limit=500"
        async with asyncio.timeout(60):
            while (page := await self._insist(client, "GET", path))["open"]:
                await asyncio.sleep(0.1)
        texts = [message["text"] for message in page["messages"]]
        if texts[: len(branch.texts)] != branch.texts or len(texts) < len(branch.texts) + 2:
            return self.broken.append(f"a branch has {texts}, and not {branch.texts}")
        said, answer = texts[len(branch.texts) :][:2]
        if not (said.endswith(".there") and answer.endswith(said)):
            self.broken.append(f"a branch was not answered: {texts}")

    async def _look_at_list(self, client: httpx.AsyncClient) -> None:
        paths: set[str] = set()
        path = "/sessions?limit=100"
        while path:
            page = await self._insist(client, "GET", path)
            paths |= {f"/sessions/{one['id']}" for one in page["sessions"]}
            path = page["has_more"] and f"/sessions?limit=100&before={page['next']}"
        mine = {self.path, *(branch.path for branch in self.branches)}
        if not (mine <= paths if self.owner else mine == paths):
            self.broken.append(f"the list is {paths}, and not {mine}")
