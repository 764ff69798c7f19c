"""A bot on messengers whose servers fail, while its own processes and store do.

`make faults` plays every fault on every store, STRIKES times; `make test` plays one.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from chats import BLOCKED, Chat, Messengers, Writer
from scene import Cast, Scene
from verdict import Verdict

from conftest import needs, serving
from redis_servers import binary

STRIKES = int(os.environ.get("STRIKES", "0"))
ALL = ("redis", "sqlite", "redis-cluster", "postgres")
SAYING = 1.0
"""Seconds that a messenger may still take for what it was sent before the strike."""
NOTED = 1.5
"""Seconds within which a process has noted what a messenger has told it, unless it is struck."""
Fails = Callable[[Scene, Messengers, random.Random], Awaitable[None]]


async def a_process_is_killed(scene: Scene, _: Messengers, chance: random.Random) -> None:
    before = scene.restarts
    chance.choice(scene.servers).kill()
    await scene.until(lambda: scene.restarts > before)


async def a_process_is_stopped_past_its_lease(
    scene: Scene, _: Messengers, chance: random.Random
) -> None:
    process = chance.choice(scene.servers)
    process.signal(signal.SIGSTOP)
    await asyncio.sleep(3.0)
    process.signal(signal.SIGCONT)


async def the_store_is_killed(scene: Scene, _: Messengers, chance: random.Random) -> None:
    server = scene.redis if scene.kind == "redis" else scene.postgres
    server.kill()
    await asyncio.sleep(chance.uniform(0.1, 1.5))
    await asyncio.to_thread(server.start)


async def the_messengers_are_away(scene: Scene, api: Messengers, _: random.Random) -> None:
    api.away = True
    await asyncio.sleep(2.5)
    api.away = False


FAULTS: list[tuple[Fails, tuple[str, ...]]] = [
    (a_process_is_killed, ALL),
    (a_process_is_stopped_past_its_lease, ALL),
    (the_store_is_killed, ("redis", "postgres")),
    (the_messengers_are_away, ALL),
]
PLAYED = [(fails, store) for fails, stores in FAULTS for store in stores]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fails", "store"),
    PLAYED if STRIKES else PLAYED[:1],
    ids=[f"{f.__name__}, {s}" for f, s in (PLAYED if STRIKES else PLAYED[:1])],
)
async def test_messenger_fault(fails: Fails, store: str, tmp_path: Path, row: Any) -> None:
    """What was acknowledged is answered in its chat once and in order, whatever fails; a chat that
    has blocked the bot holds nobody up."""
    needs(store in ("sqlite", "postgres") or binary() is not None, "redis-server")
    times, chance = STRIKES or 3, random.Random(5)
    api, struck = Messengers(7), list[tuple[float, float]]()
    async with serving(api.app) as url:
        cast = Cast(bot="speaking:app", environment={"API": url})
        async with Scene.opened(tmp_path, store, cast) as scene:
            urls = [process.url for process in scene.servers]
            writers = [
                Writer(platform, f"{i}{end}", urls, random.Random(f"{platform} {i}"))
                for platform in ("telegram", "slack", "whatsapp")
                for i, end in ((1, "1"), (2, "2"), (3, BLOCKED))
            ]
            enough = asyncio.Event()
            writing = [asyncio.create_task(writer.write(enough)) for writer in writers]
            await scene.until(lambda: all(len(writer.accepted) > 2 for writer in writers))
            for _ in range(times):
                begun = time.monotonic()
                await fails(scene, api, chance)
                struck.append((begun, time.monotonic()))
                await asyncio.sleep(1.0)
            enough.set()
            await asyncio.gather(*writing)
            verdict = Verdict()
            try:
                await scene.until(lambda: all(_whole(writer, api) for writer in writers), 120)
            except TimeoutError:
                pass  # the verdict says what is missing
            for writer in writers:
                judge(verdict, writer, api.chats.setdefault(writer.where, Chat()), struck)
    row(f"messengers: {fails.__name__.replace('_', ' ')}", store, verdict, times)
    assert verdict.acknowledged > 20
    assert verdict.clean, verdict


def _wanted(writer: Writer) -> list[str]:
    if writer.chat.endswith(BLOCKED):
        return []
    return [
        f"{n} {part} {text}"
        for n, text in enumerate(writer.accepted, 1)
        for part in ("first", "second")
    ]


def _whole(writer: Writer, api: Messengers) -> bool:
    chat = api.chats.get(writer.where)
    return chat is not None and {m.text for m in chat.shown.values()} >= set(_wanted(writer))


def judge(verdict: Verdict, writer: Writer, chat: Chat, struck: list[tuple[float, float]]) -> None:
    """Everything is there, in order; and once, but for messages of which the bot was not told, and
    the one that each strike may have kept from being noted."""
    wanted, shown = _wanted(writer), list(chat.shown.values())
    texts = [message.text for message in shown]
    verdict.acknowledged += len(writer.accepted)

    def note(kind: str, what: object) -> None:
        setattr(verdict, kind, getattr(verdict, kind) + 1)
        verdict.broken.append(f"{writer.where}: {kind}: {what}")

    for text in set(wanted) - set(texts):
        note("lost", text)
    firsts = [text for text in dict.fromkeys(texts) if text in wanted]
    if firsts != [text for text in wanted if text in firsts]:
        note("reordered", firsts)
    excuses = list(struck)
    for i, message in enumerate(shown):
        if message.told and (message.text not in wanted or message.text in texts[i + 1 :]):
            near = [(a, b) for a, b in excuses if a - NOTED <= message.at <= b + SAYING]
            if near:
                excuses.remove(near[0])
            else:
                note("doubled", message)
