"""Messages that find a session busy, fairness between owners, and a bot that speaks first."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conftest import Opener, Talker
from turnwise import Bot, Message, Runtime, Turn
from turnwise.errors import Busy, ConfigurationError, Invalid, KeyReused, QueueFull
from turnwise.settings import Settings

KEY = {"Authorization": "Bearer the-key"}


class Gated:
    """A bot whose answer to "wait" waits; `seen` are the messages that it has answered."""

    def __init__(self, **given: Any) -> None:
        self.open = asyncio.Event()
        self.began = asyncio.Event()
        self.seen: list[str] = []
        self.bot = Bot(self.reply, **given)

    async def reply(self, turn: Turn) -> Any:
        self.seen.append(turn.text)
        yield "I "
        self.began.set()
        if turn.text == "wait":
            await self.open.wait()
        yield f"heard: {turn.text}"


async def test_three_short_messages_are_one(open_door: Opener) -> None:
    """What came while the bot was busy is answered as one message; each of the three gets it."""
    gated = Gated()
    async with open_door(gated.bot) as door:
        talker = await door.session()
        await talker.say("wait", wait=None)
        await gated.began.wait()
        sent = [
            asyncio.ensure_future(
                talker.call(
                    "POST", "/turns", json={"text": text, "when_busy": "merge"},
                    headers={"Prefer": "wait=20"},
                )
            )
            for text in ("one", "two", "three")
        ]  # fmt: skip
        while len((await talker.call("GET", "/messages")).json()["open"]) < 4:
            await asyncio.sleep(0.01)
        gated.open.set()
        turns = [response.json() for response in await asyncio.gather(*sent)]
        texts = {turn["reply"]["text"] for turn in turns}
        assert len(texts) == 1
        assert sorted(turn["status"] for turn in turns) == ["completed", "merged", "merged"]
        merged = next(turn for turn in turns if turn["status"] == "merged")
        first = next(turn for turn in turns if turn["status"] == "completed")
        assert merged["merged_into"] == first["n"]
        assert [part["text"] for part in first["message"]["parts"]] == first["message"][
            "text"
        ].split("\n\n")
        assert gated.seen[1:] == [first["message"]["text"]]
        assert len(await talker.history()) == 4
        ended = [e for e in await talker.events() if e["type"] == "turn.merged"]
        assert [event["merged_into"] for event in ended] == [first["n"]] * 2


async def test_a_person_who_types_on(sqlite_url: str) -> None:
    """With `settle` the bot waits for the rest of the thought, also if the session is idle."""
    gated = Gated(when_busy="merge", settle=0.4)
    async with Runtime(gated.bot, sqlite_url) as runtime:
        began = time.monotonic()
        replies = await asyncio.gather(
            *(runtime.ask("s", text, timeout=20) for text in ("I", "have", "a question"))
        )
        assert {reply.text for reply in replies} == {"I heard: I\n\nhave\n\na question"}
        assert time.monotonic() - began >= 0.35


async def test_the_stream_of_a_merged_message(sqlite_url: str) -> None:
    """It goes on with the turn that answers it."""
    gated = Gated(when_busy="merge")
    async with Runtime(gated.bot, sqlite_url) as runtime:
        first = asyncio.ensure_future(runtime.ask("s", "wait", timeout=20))
        await gated.began.wait()

        async def text(said: str) -> str:
            return "".join([piece async for piece in runtime.stream_text("s", said)])

        both = [asyncio.ensure_future(text(said)) for said in ("one", "two")]
        while len((await runtime.gateway.history("s")).open) < 3:
            await asyncio.sleep(0.01)
        gated.open.set()
        await first
        assert await asyncio.gather(*both) == ["I heard: one\n\ntwo"] * 2


async def test_interrupt_and_reject(open_door: Opener) -> None:
    """One stops what runs and keeps its words; the other is refused while anything is open."""
    gated = Gated()
    async with open_door(gated.bot) as door:
        talker = await door.session()
        await talker.say("wait", wait=None)
        await gated.began.wait()
        refused = await talker.call("POST", "/turns", json={"text": "no", "when_busy": "reject"})
        assert (refused.status_code, refused.json()["code"]) == (409, "busy")
        await talker.say("later", wait=None)
        body = {"text": "now", "when_busy": "interrupt"}
        done = await talker.call("POST", "/turns", json=body, headers={"Prefer": "wait=20"})
        assert done.json()["reply"]["text"] == "I heard: now"
        turns = (await talker.call("GET", "/turns")).json()["turns"]
        assert [turn["status"] for turn in turns] == ["cancelled", "cancelled", "completed"]
        assert turns[0]["reply"]["text"] == "I "
        idle = await talker.call(
            "POST", "/turns", json={"text": "ok", "when_busy": "reject"},
            headers={"Prefer": "wait=20"},
        )  # fmt: skip
        assert idle.status_code == 200


async def test_who_says_what_happens(store_url: str) -> None:
    """The message, then the session, then the setting, then the bot, wherever it runs."""
    gated = Gated(when_busy="reject", queue_limit=2)
    async with (
        Runtime(gated.bot, store_url) as worker,
        Runtime(store=store_url, worker=False) as gateway,
    ):
        first = asyncio.ensure_future(worker.ask("s", "wait", timeout=30))
        await gated.began.wait()
        with pytest.raises(Busy):  # the bot runs in another process
            await gateway.ask("s", "no", timeout=20)
        queued = asyncio.ensure_future(gateway.ask("s", "two", when_busy="queue", timeout=20))
        while not (await gateway.gateway.history("s")).open[1:]:
            await asyncio.sleep(0.01)
        with pytest.raises(QueueFull):
            await gateway.ask("s", "three", when_busy="queue", timeout=20)
        gated.open.set()
        await asyncio.gather(first, queued)
        calm = await gateway.create("calm", when_busy="queue")
        gated.open.clear()
        gated.began.clear()
        running = asyncio.ensure_future(worker.ask(calm.id, "wait", timeout=20))
        await gated.began.wait()
        waiting = asyncio.ensure_future(gateway.ask(calm.id, "two", timeout=20))
        while not (await gateway.gateway.history(calm.id)).open[1:]:
            await asyncio.sleep(0.01)
        gated.open.set()
        await asyncio.gather(running, waiting)
    settings = Settings(_env_file=None, when_busy="queue")
    async with Runtime(
        Bot(lambda turn: "", when_busy="reject"), settings=settings, store="memory:"
    ) as r:
        assert r.gateway.limits.policy == ("queue", 0.0)


def test_policies_that_are_none() -> None:
    """A bot that names what there is not is an error where it is written."""
    wrong: list[Any] = [
        {"when_busy": "never"}, {"settle": 1.0}, {"when_busy": "merge", "settle": 9.0},
    ]  # fmt: skip
    for given in wrong:
        with pytest.raises(ConfigurationError):
            Bot(lambda turn: "", **given)


async def test_a_flood_delays_nobody(sqlite_url: str) -> None:
    """One owner's sessions wait for each other; another owner's turn is next."""
    order: list[str] = []

    async def reply(turn: Turn) -> str:
        order.append(turn.session.owner or "")
        await asyncio.sleep(0.02)
        return "ok"

    settings = Settings(_env_file=None, concurrency=2)
    async with Runtime(Bot(reply), sqlite_url, settings=settings) as runtime:
        flood = [runtime.ask(f"f{i}", "hi", owner="flood", timeout=60) for i in range(60)]
        others = [runtime.ask("x", "hi", owner=f"o{i}", timeout=60) for i in range(6)]
        await asyncio.gather(*flood, *others)
    last = max(order.index(f"o{i}") for i in range(6))
    assert last < 24


async def test_owners_have_limits(open_door: Opener) -> None:
    """Running and unfinished turns of one owner, over all sessions, with the time to wait."""
    running = 0
    most = 0

    async def reply(turn: Turn) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        return "ok"

    given = {"owner_running": 2, "owner_waiting": 6, "api_keys": "the-key"}
    async with open_door(Bot(reply), **given) as door:
        ada = {**KEY, "X-Turnwise-Owner": "ada"}
        made = [(await door.client.post("/sessions", headers=ada)).json() for _ in range(9)]
        sent = await asyncio.gather(
            *(
                door.client.post(f"/sessions/{m['id']}/turns", json={"text": "hi"}, headers=ada)
                for m in made
            )
        )
        statuses = [response.status_code for response in sent]
        assert statuses.count(429) >= 1
        refused = next(response for response in sent if response.status_code == 429)
        assert refused.json()["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        for one, response in zip(made, sent, strict=True):
            if response.status_code == 202:
                done = await door.client.get(
                    f"/sessions/{one['id']}/turns/1", headers={**ada, "Prefer": "wait=20"}
                )
                assert done.json()["status"] == "completed"
        assert 1 <= most <= 2


# The bot speaks first


async def test_the_bot_is_woken(open_door: Opener) -> None:
    """By a key, with a reason; the history gets the answer alone, and the next question follows."""
    seen: list[Any] = []
    bot = Bot()

    @bot.reply
    async def reply(turn: Turn) -> str:
        seen.append(([m.text for m in turn.messages], turn.reason))
        return f"You said {turn.text}"

    @bot.wake
    async def wake(turn: Turn) -> str:
        seen.append((turn.message.role, turn.text, turn.reason))
        return f"By the way: {turn.reason}"

    async with open_door(bot, api_keys="the-key") as door:
        made = (await door.client.post("/sessions", headers=KEY)).json()
        talker = Talker(door.client, made)
        await talker.say("hi")
        headers = {**KEY, "Idempotency-Key": "k"}
        path = f"{talker.path}/wake"
        for _ in range(2):
            woken = await door.client.post(path, json={"reason": "tea is ready"}, headers=headers)
            assert (woken.status_code, woken.json()["n"]) in ((202, 2), (200, 2))
        other = await door.client.post(path, json={"reason": "coffee"}, headers=headers)
        assert other.json()["code"] == "key_reused"
        turn = (await talker.call("GET", "/turns/2", headers={"Prefer": "wait=20"})).json()
        assert (turn["message"], turn["reason"]) == (None, "tea is ready")
        assert turn["reply"]["text"] == "By the way: tea is ready"
        assert seen[1] == ("system", "", "tea is ready")
        await talker.say("thanks")
        assert seen[2] == (["hi", "You said hi", "By the way: tea is ready", "thanks"], None)
        assert await talker.history() == [
            "hi", "You said hi", "By the way: tea is ready", "thanks", "You said thanks",
        ]  # fmt: skip
        refused = await talker.call("POST", "/wake", json={"reason": "x"})
        assert refused.status_code == 403
        again = await talker.call("POST", "/turns/2/again", headers={"Prefer": "wait=20"})
        assert again.json()["reply"]["text"] == "By the way: tea is ready"


async def test_a_reminder_outlives_its_process(store_url: str) -> None:
    """Set in one process and rung by another, once, though both had asked for it."""
    bot = Bot(lambda turn: f"Reminder: {turn.reason}")
    at = datetime.now(UTC) + timedelta(seconds=1.5)
    async with Runtime(store=store_url, worker=False) as first:
        await first.gateway.create(session_id="s")
        for _ in range(2):
            assert await first.wake("s", "tea", at=at, key="tea") is None
        await first.say("s", "The shop opens.", at=at + timedelta(seconds=0.2), key="shop")
        session = await first.gateway.session("s")
        assert [timer["key"] for timer in session.timers] == ["tea", "shop"]
        await first.wake("s", "never", at=at, key="never")
        assert await first.unwake("s", "never")
        assert not await first.unwake("s", "never")
        with pytest.raises(KeyReused):
            await first.wake("s", "coffee", at=at, key="tea")
    async with Runtime(bot, store_url) as one, Runtime(bot, store_url):
        assert await one.messages("s") == []
        async with asyncio.timeout(20):
            while len(await one.messages("s")) < 2:
                await asyncio.sleep(0.05)
        assert [m.text for m in await one.messages("s")] == ["Reminder: tea", "The shop opens."]
        assert (await one.wake("s", "tea", at=at, key="tea")) is not None  # it has rung
        await asyncio.sleep(0.7)
        assert len(await one.messages("s")) == 2


async def test_what_is_given_needs_no_worker(store_url: str) -> None:
    """It is in the history at once, in each process, and told to who follows."""
    async with Runtime(store=store_url, worker=False) as runtime:
        await runtime.gateway.create(session_id="s")
        with runtime.gateway.follow("s", 0) as reader:
            said = await runtime.say("s", [Message("Job done."), Message("Here it is.")], key="j")
            assert said is not None
            assert said.status == "completed"
            again = await runtime.say("s", [Message("Job done."), Message("Here it is.")], key="j")
            assert again is not None
            assert again.n == said.n
            texts: list[str] = []
            while len(texts) < 2:
                for event in await reader.read(5):
                    if event.type == "message":
                        texts.append(event.json()["message"]["text"])
        assert texts == ["Job done.", "Here it is."]


async def test_times_that_are_none(sqlite_url: str) -> None:
    """A time without a zone, or no time at all, is refused where it is given."""
    async with Runtime(Bot(lambda turn: ""), sqlite_url) as runtime:
        for at in (datetime(2030, 1, 1), float("nan"), -1.0, 1e18):
            with pytest.raises(Invalid):
                await runtime.wake("s", "x", at=at)
        with pytest.raises(Invalid):
            await runtime.wake("s", "   ")
        with pytest.raises(Invalid):
            await runtime.say("s", [])


async def test_the_bot_names_its_session(open_sqlite_door: Opener) -> None:
    """Once; a name that a person gave stays."""

    async def reply(turn: Turn) -> str:
        turn.session.name = f"About {turn.text}"
        return "ok"

    async with open_sqlite_door(Bot(reply)) as door:
        talker = await door.session()
        await talker.say("tea")
        assert (await talker.call("GET")).json()["name"] == "About tea"
        await talker.call("PATCH", json={"name": "Mine"})
        await talker.say("coffee")
        assert (await talker.call("GET")).json()["name"] == "Mine"
        changed = [e["name"] for e in await talker.events() if e["type"] == "session.changed"]
        assert changed == ["About tea", "Mine"]
