"""What people do with a conversation: correct it, have an answer again, branch it, stop it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect

from conftest import Opener, Talker
from turnwise import Ask, Bot, Message, Refusal, Runtime, Turn
from turnwise.errors import Superseded
from turnwise.testing import talk

KEY = {"Authorization": "Bearer the-key"}


class Gate:
    """A bot that counts its turns in the state, and waits for a word when it is asked to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.seen: list[list[str]] = []
        self.bot = Bot(self.reply)

    async def reply(self, turn: Turn) -> Any:
        self.seen.append([message.text for message in turn.messages])
        turn.state["n"] = turn.state.get("n", 0) + 1
        if turn.text == "wait":
            yield "one moment ... "
            await self.open.wait()
        yield f"{turn.state['n']}: {turn.text}"


async def test_a_message_is_edited(open_door: Opener) -> None:
    """The new message takes the place of the old one and of all behind it, also in the state; the
    old ones can still be read."""
    gate = Gate()
    async with open_door(gate.bot) as door:
        talker = await door.session()
        for text in ("one", "two", "three"):
            await talker.say(text)
        body = {"text": "zwei", "replaces": 2}
        headers = {"Prefer": "wait=20", "Idempotency-Key": "k"}
        edited = (await talker.call("POST", "/turns", json=body, headers=headers)).json()
        assert (edited["n"], edited["reply"]["text"]) == (4, "2: zwei")
        again = (await talker.call("POST", "/turns", json=body, headers=headers)).json()
        assert again["n"] == 4
        other = await talker.call("POST", "/turns", json={**body, "replaces": 1}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (422, "key_reused")
        assert await talker.history() == ["one", "1: one", "zwei", "2: zwei"]
        assert gate.seen[-1] == ["one", "1: one", "zwei"]
        gone = await talker.call("GET", "/messages", params={"superseded": True})
        marks = [(m["text"], m.get("superseded", False)) for m in gone.json()["messages"]]
        assert ("two", True) in marks
        assert ("zwei", False) in marks
        turns = (await talker.call("GET", "/turns")).json()["turns"]
        assert [turn["n"] for turn in turns] == [1, 4]
        old = (await talker.call("GET", "/turns/2")).json()
        assert (old["superseded"], old["reply"]["text"]) == (True, "2: two")
        refused = await talker.call("POST", "/turns", json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "superseded")
        events = await talker.events()
        (cut,) = [event for event in events if event["type"] == "history.cut"]
        assert (cut["after"], cut["turns"]) == (2, [2, 3])


async def test_an_answer_is_made_again(open_door: Opener) -> None:
    """The same message as another turn; the state is as it was before the first."""
    gate = Gate()
    async with open_door(gate.bot) as door:
        talker = await door.session()
        first = await talker.say("one")
        headers = {"Prefer": "wait=20", "Idempotency-Key": "k"}
        again = await talker.call("POST", "/turns/1/again", headers=headers)
        found = again.json()
        assert (again.status_code, found["n"], found["reply"]["text"]) == (200, 2, "1: one")
        assert found["message"]["id"] == first["message"]["id"]
        assert again.headers["location"].endswith(f"{talker.path}/turns/2")
        repeated = await talker.call("POST", "/turns/1/again", headers=headers)
        assert repeated.json()["n"] == 2
        late = await talker.call("POST", "/turns/1/again")
        assert late.json()["code"] == "superseded"
        assert await talker.history() == ["one", "1: one"]


async def test_a_running_turn_is_edited(open_door: Opener) -> None:
    """It stops at once, whatever its handler does, and its words are no longer in the history."""
    gate = Gate()
    async with open_door(gate.bot) as door:
        talker = await door.session()
        running = await talker.say("wait", wait=None)
        assert running["status"] in ("running", "queued")
        while not any(event["type"] == "delta" for event in await talker.events()):
            await asyncio.sleep(0.01)
        body = {"text": "go", "replaces": 1}
        edited = await talker.call("POST", "/turns", json=body, headers={"Prefer": "wait=20"})
        assert edited.json()["reply"]["text"] == "1: go"
        assert await talker.history() == ["go", "1: go"]
        assert (await talker.call("GET", "/turns/1")).json()["status"] == "cancelled"


async def test_a_branch(open_door: Opener) -> None:
    """A new session with everything up to a turn, once for a key; both go their own ways."""
    gate = Gate()
    async with open_door(gate.bot, api_keys="the-key") as door:
        owner = {**KEY, "X-Turnwise-Owner": "ada"}
        made = (await door.client.post("/sessions", json={"name": "A"}, headers=owner)).json()
        talker = Talker(door.client, made)
        for text in ("one", "two", "three"):
            await talker.say(text)
        headers = {"Idempotency-Key": "k"}
        response = await talker.call("POST", "/fork", json={"at": 2, "name": "B"}, headers=headers)
        assert response.status_code == 201, response.text
        fork = Talker(door.client, response.json())
        assert response.json()["owner"] == "ada"
        assert response.headers["location"].endswith(fork.path)
        assert await fork.history() == ["one", "1: one", "two", "2: two"]
        assert (await fork.say("drei"))["reply"]["text"] == "3: drei"
        assert (await talker.history())[-1] == "3: three"
        repeated = await talker.call("POST", "/fork", json={"at": 2}, headers=headers)
        assert repeated.json()["id"] == fork.id
        whole = Talker(door.client, (await talker.call("POST", "/fork")).json())
        assert await whole.history() == await talker.history()
        late = await talker.call("POST", "/fork", json={"at": 9})
        assert (late.status_code, late.json()["code"]) == (409, "superseded")
        listed = (await door.client.get("/sessions", headers=owner)).json()["sessions"]
        assert [session["name"] for session in listed].count("B") == 1


async def test_a_waiting_message_is_changed_and_all_is_stopped(open_door: Opener) -> None:
    """By HTTP and by WebSocket; what has begun cannot be changed any more."""
    gate = Gate()
    async with open_door(gate.bot) as door:
        talker = await door.session()
        await talker.say("wait", wait=None)
        for text in ("two", "three", "four"):
            await talker.say(text, wait=None)
        changed = await talker.call("PATCH", "/turns/2", json={"text": "zwei"})
        assert changed.json()["message"]["text"] == "zwei"
        url = f"{door.url.replace('http', 'ws')}{talker.path}/ws?after=0"
        async with connect(url, additional_headers=talker.auth, proxy=None) as socket:
            await socket.send(json.dumps({"type": "change", "turn": 3, "text": "drei"}))
            found: list[dict[str, Any]] = []
            while sum(event["type"] == "turn.changed" for event in found) < 2:
                found.append(json.loads(await socket.recv()))
            gate.open.set()
            await talker.call("GET", "/turns/4", headers={"Prefer": "wait=20"})
            late = await talker.call("PATCH", "/turns/2", json={"text": "x"})
            assert (late.status_code, late.json()["code"]) == (409, "not_queued")
            history = await talker.history()
            assert history[2::2] == ["zwei", "drei", "four"]
            gate.open.clear()
            await talker.say("wait", wait=None)
            await talker.say("six", wait=None)
            await socket.send(json.dumps({"type": "stop"}))
            ended: list[int] = []
            while len(ended) < 2:
                event = json.loads(await socket.recv())
                if event["type"] == "turn.cancelled":
                    ended.append(event["turn"])
            assert sorted(ended) == [5, 6]
        await talker.say("wait", wait=None)
        await talker.say("eight", wait=None)
        stopped = (await talker.call("POST", "/stop")).json()["turns"]
        assert [(turn["n"], turn["status"]) for turn in stopped] == [
            (7, "cancelled"), (8, "cancelled"),
        ]  # fmt: skip


async def test_feedback(open_door: Opener) -> None:
    """Kept with its message, changed by the next, told to followers, counted."""
    async with open_door(Bot(lambda turn: "ok")) as door:
        talker = await door.session()
        turn = await talker.say("one")
        id = turn["reply"]["messages"][0]["id"]
        path = f"/messages/{id}/feedback"
        for body in ({"value": "up"}, {"value": "down", "comment": "wrong"}):
            assert (await talker.call("PUT", path, json=body)).status_code == 204
        shown = (await talker.call("GET", "/messages")).json()["messages"][1]
        assert shown["feedback"] == {"value": "down", "comment": "wrong"}
        told = [event for event in await talker.events() if event["type"] == "feedback"]
        assert [event["value"] for event in told] == ["up", "down"]
        assert told[0]["message"] == id
        assert (await talker.call("PUT", path, json={"value": "meh"})).status_code == 422
        nobody = await talker.call("PUT", "/messages/nobody/feedback", json={"value": "up"})
        assert nobody.status_code == 404
        metrics = (await door.client.get("/metrics")).text
        assert 'turnwise_feedback_total{value="down"}' in metrics


async def test_an_ask_is_answered_otherwise(store_url: str) -> None:
    """An answer that is edited goes to the same ask; another message behind it is refused."""

    async def reply(turn: Turn) -> Any:
        if turn.answers:
            return f"You said {turn.answers[0].value}."
        return Ask("May I?", choices=["yes", "no"])

    async with Runtime(Bot(reply), store_url) as runtime:
        asked = await runtime.ask("s", "send it", timeout=20)
        ask = asked.asks[0].id
        answered = await runtime.ask("s", "", answers={ask: "yes"}, timeout=20)
        assert answered.text == "You said yes."
        other = await runtime.ask("s", "", answers={ask: "no"}, replaces=2, timeout=20)
        assert other.text == "You said no."
        assert [m.text for m in await runtime.messages("s")] == [
            "send it", "May I?", "", "You said no.",
        ]  # fmt: skip


async def test_readers_of_other_processes_redraw(store_url: str) -> None:
    """A follower elsewhere hears of the cut, in order, and then of the new turn."""
    async with (
        Runtime(Bot(lambda turn: turn.text), store_url) as one,
        Runtime(store=store_url, worker=False) as two,
    ):
        await one.ask("s", "first", timeout=20)
        history = await two.gateway.history("s")
        with two.gateway.follow("s", history.cursor) as reader:
            await one.ask("s", "second", replaces=1, timeout=20)
            types: list[str] = []
            while "turn.completed" not in types:
                types += [event.type for event in await reader.read(10)]
        assert types[:2] == ["history.cut", "turn.queued"]


async def test_one_of_many_edits_wins(store_url: str) -> None:
    """Ten at once, from two processes: one is accepted, and nine learn that they are too late."""
    async with (
        Runtime(Bot(lambda turn: turn.text), store_url) as one,
        Runtime(store=store_url, worker=False) as two,
    ):
        await one.ask("s", "first", timeout=20)
        wishes = [
            runtime.ask("s", f"edit {i}", replaces=1, timeout=20)
            for i in range(5)
            for runtime in (one, two)
        ]
        ended = await asyncio.gather(*wishes, return_exceptions=True)
        won = [reply for reply in ended if not isinstance(reply, BaseException)]
        assert len(won) == 1
        assert all(isinstance(e, Superseded) for e in ended if isinstance(e, BaseException))
        assert [m.text for m in await one.messages("s")] == [won[0].text] * 2


async def test_talking_in_tests() -> None:
    """`talk()` edits, asks again, and wakes the bot."""
    bot = Bot(lambda turn: turn.reason or f"{turn.n}: {turn.text}")
    async with talk(bot) as say:
        assert (await say("one")).text == "1: one"
        assert (await say("uno", replaces=1)).text == "2: uno"
        assert (await say.again(2)).text == "3: uno"
        assert (await say.wake("tea is ready")).text == "tea is ready"
        assert [event.type for event in say.events][-1] == "turn.completed"


async def test_a_refused_turn_is_edited() -> None:
    """A failed turn can be corrected like any other."""

    async def reply(turn: Turn) -> str:
        if turn.text == "bad":
            raise Refusal("No.")
        return "fine"

    async with talk(Bot(reply)) as say:
        with pytest.raises(Refusal):
            await say("bad")
        assert (await say("good", replaces=1)).text == "fine"


async def test_forks_with_one_key_at_once(store_url: str) -> None:
    """Long sessions are copied in slices; of several that are made at once with one key there is
    one, and nobody goes on for ever."""
    history = [Message(f"m{i}", role="user") for i in range(1000)]
    async with Runtime(Bot(lambda turn: "ok"), store_url) as runtime:
        await runtime.create("s", messages=history)
        whole = await runtime.store.whole("s")
        assert whole is not None
        entries = [
            entry._replace(last=entry.last + 1000 * i, turn=(entry.turn or 0) + 1000 * i,
                           seq=(entry.seq or 0) + 1000 * i)
            for i in range(5) for entry in whole.entries
        ]  # fmt: skip
        big = whole._replace(session="big", entries=entries)
        done = await asyncio.gather(*(runtime.store.put(big) for _ in range(3)))
        assert sorted(done) == [False, False, True]


async def test_what_a_request_may_say_of_its_policy(open_door: Opener) -> None:
    """settle belongs to merging; a policy that is set to null is gone, one that is not named
    stays."""
    async with open_door(Bot(lambda turn: "ok")) as door:
        talker = await door.session()
        policy = {"when_busy": "merge", "settle": 0.1}
        assert (await talker.call("PATCH", json=policy)).status_code == 200
        assert (await talker.call("PATCH", json={"settle": 2})).status_code == 422
        body = {"text": "x", "settle": 2}
        assert (await talker.call("POST", "/turns", json=body)).status_code == 422
        assert (await talker.call("PATCH", json={"name": "n"})).status_code == 200
        assert (await talker.call("PATCH", json={"when_busy": None})).status_code == 200


async def test_a_stop_that_is_repeated(open_door: Opener) -> None:
    """With its key it stops nothing that came afterwards."""
    gate = Gate()
    async with open_door(gate.bot) as door:
        talker = await door.session()
        key = {"Idempotency-Key": "k"}
        await talker.say("wait", wait=None)
        stopped = (await talker.call("POST", "/stop", headers=key)).json()["turns"]
        assert [turn["n"] for turn in stopped] == [1]
        gate.open.set()
        later = asyncio.ensure_future(talker.say("later"))
        assert (await talker.call("POST", "/stop", headers=key)).json()["turns"] == []
        assert (await later)["status"] == "completed"
