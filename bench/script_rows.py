"""The rows of the bench that are about scripts: the toy dialog, beside Chatsky's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import count, cycle

from client import Connection, rate
from measure import CONNECTIONS, SECONDS, Row, pairs, server

PATH = [
    ("Hi", "Hi, how are you?"),
    ("i'm fine, how are you?", "Good. What do you want to talk about?"),
    ("Let's talk about music.", "Sorry, I can not talk about music now."),
    ("Ok, goodbye.", "bye"),
]
_people = count(1)


class Person:
    """Somebody who goes one path of a dialog, round and round."""

    def __init__(self, connection: Connection, path: list[tuple[str, str]]) -> None:
        self._connection = connection
        self._path = f"/chat?user_id=p{next(_people)}"
        self._lines = cycle(path)

    async def say(self) -> None:
        text, reply = next(self._lines)
        body = json.dumps({"text": text}).encode()
        answer = await self._connection.request("POST", self._path, body)
        if json.loads(answer)["response"]["text"] != reply:
            raise RuntimeError(f"{text!r} was answered {answer!r}")


async def people(port: int, path: list[tuple[str, str]]) -> list[Person]:
    return [Person(await Connection(port).open(), path) for _ in range(CONNECTIONS)]


async def toy_rate(crowd: list[Person]) -> float:
    """Turns per second of a crowd."""

    async def job(person: Person) -> AsyncIterator[None]:
        while True:
            await person.say()
            yield

    return await rate([job(person) for person in crowd], SECONDS)


async def beside(
    ours: int, theirs: int, path: list[tuple[str, str]] = PATH
) -> tuple[float, float, float]:
    """Turns per second of the servers at two ports, and their ratio."""
    crowds = await people(ours, path), await people(theirs, path)
    return await pairs(lambda: toy_rate(crowds[0]), lambda: toy_rate(crowds[1]))


async def bench_scripts() -> AsyncIterator[Row]:
    with server("thousand_nodes", factory=True) as wide, server("one_node", factory=True) as one:
        found = await beside(wide, one, [("hello", "on")])
        yield Row("turns/s of a script of 1,000 nodes, beside one of 1", *found, "≥ 0.80")
    for store, aim in (("memory", "≥ 4"), (None, "≥ 25")):
        with (
            server("toy", factory=True) as ours,
            server("app", module="chatsky_app", store=store, loop="asyncio") as theirs,
        ):
            found = await beside(ours, theirs)
            kept = "in memory" if store else "on SQLite"
            yield Row(f"toy dialog turns/s (durable), beside Chatsky 0.10 {kept}", *found, aim)
