"""Agents: replies whose parts have names, steps, memory and asks, on every store."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from conftest import Opener, Talker
from turnwise import Ask, Attachment, Bot, Message, Runtime, Settings, Turn, TurnError
from turnwise.conversation.events import TERMINAL
from turnwise.errors import AskClosed, BadOutput, Invalid, MemoryFull, TooLarge
from turnwise.testing import talk


async def parts(turn: Turn) -> AsyncIterator[str | Message]:
    """Texts and whole messages in turn, with pauses that make groups of them."""
    turn.metadata["sources"] = ["here"]
    for word in ("o", "n", "e"):
        yield word
        await asyncio.sleep(0.02)
    yield Message("two", metadata={"card": 2})
    yield "three"


def joined(events: list[dict[str, Any]]) -> dict[str, str]:
    """The texts that deltas make, by the ids that message.started gave."""
    ids = {e["index"]: e["message"]["id"] for e in events if e["type"] == "message.started"}
    texts = dict.fromkeys(ids.values(), "")
    for event in events:
        if event["type"] == "delta":
            texts[ids[event["index"]]] += event["text"]
    return texts


# Names


async def test_deltas_name_their_messages(open_door: Opener) -> None:
    """Ids from the first delta are those of the commit and of the history; each message starts,
    has its text, and ends before the next one starts; a replay is the same."""
    async with open_door(Bot(parts)) as door:
        talker = await door.session()
        await talker.say("hi")
        events = await talker.events()
        history = (await talker.call("GET", "/messages")).json()["messages"]
        said = {m["id"]: m["text"] for m in history if m["role"] == "assistant"}
        assert joined(events) == said
        assert list(said.values()) == ["one", "two", "three"]
        assert [e["message"]["id"] for e in events if e["type"] == "message"] == list(said)
        marks = [e["type"] for e in events if e["type"].startswith("message.")]
        assert marks == ["message.started", "message.ended"] * 3
        started = [e["message"] for e in events if e["type"] == "message.started"]
        assert started[1]["metadata"] == {"card": 2}
        assert history[-1]["metadata"] == {"sources": ["here"]}
        assert await talker.events() == events


async def test_an_end_tells_what_it_cost_and_who_waits(open_door: Opener) -> None:
    """`usage`, `partial`, and the queued turns in order, also of a turn that fails or is stopped;
    what it had said is kept, marked."""
    gate = asyncio.Event()

    async def reply(turn: Turn) -> AsyncIterator[str]:
        turn.add_usage({"tokens": 3, "of": {"input": 1}})
        turn.add_usage({"tokens": 4, "of": {"input": 1, "cached": 1}})
        yield "half"
        await gate.wait()
        if turn.text == "fail":
            raise TurnError("No.", code="nope")
        if turn.text == "stop":
            await asyncio.sleep(30)

    async with open_door(Bot(reply)) as door:
        talker = await door.session()
        for text in ("good", "fail", "stop", "last"):
            await talker.say(text, None)
        await talker.call("POST", "/turns/4/cancel")
        gate.set()
        await wait_for(talker, 3, "delta")
        await talker.call("POST", "/turns/3/cancel")
        events = await talker.events()
        ends = {e["turn"]: e for e in events if e["type"] in TERMINAL}
        usage = {"tokens": 7, "of": {"input": 2, "cached": 1}}
        assert [(ends[n]["type"], ends[n]["partial"], ends[n]["waiting"]) for n in ends] == [
            ("turn.cancelled", False, [2, 3]),
            ("turn.completed", False, [2, 3]),
            ("turn.failed", True, [3]),
            ("turn.cancelled", True, []),
        ]
        assert [ends[n].get("usage") for n in (4, 1, 2, 3)] == [None, usage, usage, usage]
        history = (await talker.call("GET", "/messages")).json()["messages"]
        replies = [(m["text"], m.get("partial", False)) for m in history if m["role"] != "user"]
        assert replies == [("half", False), ("half", True), ("half", True)]
        record = (await talker.call("GET", "/turns/2")).json()
        assert record["reply"]["usage"] == usage


async def wait_for(talker: Talker, turn: int, type: str) -> None:
    """Until the turn has told an event of this type."""
    after: Any = 0
    while True:
        found = await talker.events(after, wait=10)
        if any((e["turn"], e["type"]) == (turn, type) for e in found):
            return
        after = found[-1]["id"] if found else after


async def test_a_text_stream_of_several_messages(sqlite_url: str) -> None:
    """They are separated by a line break, and a message without a text adds none."""

    async def reply(turn: Turn) -> AsyncIterator[str | Message]:
        yield Message("", attachments=[Attachment("image/png", "https://x/y.png")])
        yield "one"
        yield Message("two")

    async with Runtime(Bot(reply), sqlite_url, settings=Settings(_env_file=None)) as runtime:
        text = "".join([piece async for piece in runtime.stream_text("s", "hi")])
        assert text == (await runtime.turn("s", 1)).reply.text == "one\ntwo"  # type: ignore[union-attr]


async def test_kept_data_is_there_after_a_reload(open_door: Opener) -> None:
    """`emit(keep=True)` is in the turn's record and in the history, a plain one is not."""

    async def reply(turn: Turn) -> str:
        await turn.emit("chart", {"x": 1}, keep=True)
        await turn.emit("noise", 2)
        return "ok"

    async with open_door(Bot(reply)) as door:
        talker = await door.session()
        await talker.say("hi")
        kept = [{"name": "chart", "data": {"x": 1}}]
        assert (await talker.call("GET", "/turns/1")).json()["data"] == kept
        assert (await talker.call("GET", "/messages")).json()["messages"][0]["data"] == kept
        customs = [e["name"] for e in await talker.events() if e["type"] == "custom"]
        assert customs == ["chart", "noise"]


# Steps


async def stepping(turn: Turn) -> AsyncIterator[str]:
    async with turn.step("thinking", kind="reasoning") as step:
        await step.say("First ")
        await step.say("I look.")
    async with turn.step("weather", {"city": "Paris"}) as step:
        step.output = {"degrees": 20}
    with_error = turn.text == "fail"
    try:
        async with turn.step("mail", {"to": "Bob"}):
            if with_error:
                raise TurnError("The server is away.", code="away")
    except TurnError:
        yield "Without mail. "
    yield "Done."


@pytest.mark.parametrize("text", ["hi", "fail"])
async def test_steps_in_events_turns_and_history(open_door: Opener, text: str) -> None:
    """Each starts and ends, with input and output; what it says is not a part of the answer."""
    async with open_door(Bot(stepping)) as door:
        talker = await door.session()
        turn = await talker.say(text)
        assert turn["reply"]["text"] == "Without mail. Done." if text == "fail" else "Done."
        told = [e["step"] for e in await talker.events() if e["type"] == "step"]
        names = ["thinking", "weather", "mail"]
        assert [step["name"] for step in told] == [name for name in names for _ in range(2)]
        assert [step["status"] for step in told[::2]] == ["running"] * 3
        steps = (await talker.call("GET", "/turns/1")).json()["steps"]
        assert (steps[0]["text"], steps[1]["input"], steps[1]["output"]) == (
            "First I look.", {"city": "Paris"}, {"degrees": 20},
        )  # fmt: skip
        assert [step["status"] for step in steps[:2]] == ["completed"] * 2
        if text == "fail":
            assert steps[2]["error"] == {"code": "away", "message": "The server is away."}
        assert (await talker.call("GET", "/messages")).json()["messages"][0]["steps"] == steps
        assert turn["steps"] == steps
        thoughts = [e["text"] for e in await talker.events() if e["type"] == "step.delta"]
        assert "".join(thoughts) == "First I look."


async def test_no_step_runs_for_ever(open_door: Opener) -> None:
    """One that runs when its turn is stopped has failed, in the events and in the record."""

    async def reply(turn: Turn) -> str:
        async with turn.step("slow"):
            await asyncio.sleep(60)
        return "never"

    async with open_door(Bot(reply)) as door:
        talker = await door.session()
        await talker.say("hi", None)
        await wait_for(talker, 1, "step")
        await talker.call("POST", "/turns/1/cancel")
        steps = [e["step"] for e in await talker.events() if e["type"] == "step"]
        assert [step["status"] for step in steps] == ["running", "failed"]
        assert steps[1]["error"]["code"] == "interrupted"
        (kept,) = (await talker.call("GET", "/turns/1")).json()["steps"]
        assert kept == steps[1]


async def test_a_step_costs_two_groups_of_entries(store_url: str) -> None:
    """One when it begins and one when it ends, however much it says at once in between."""

    async def reply(turn: Turn) -> str:
        async with turn.step("slow", {"x": 1}) as step:
            await asyncio.sleep(0.1)
            for _ in range(50):
                await step.say("word ")
            step.output = 2
        await asyncio.sleep(0.1)
        return "ok"

    settings = Settings(_env_file=None)
    async with Runtime(Bot(reply), store_url, settings=settings) as runtime:
        await runtime.ask("s", "hi")
        whole = await runtime.store.whole("s")
        assert whole is not None
        assert [entry.kind for entry in whole.entries] == ["q", "d", "d", "t"]


async def test_large_parts_of_steps_are_cut() -> None:
    """At 64 kB, and marked; what is not JSON ends the turn with a readable code."""

    async def reply(turn: Turn) -> str:
        async with turn.step("big", {"text": "x" * 100_000}) as step:
            for _ in range(100):
                await step.say("ü" * 1000)
            step.output = object() if turn.text == "bad" else "y" * 70_000
        return "ok"

    async with talk(reply) as say:
        (step,) = (await say("hi")).steps
        assert step.truncated
        assert len(step.input) == len(step.output) == 64_000
        assert len(step.text.encode()) <= 64_000
        assert "".join(e.json()["text"] for e in say.events if e.type == "step.delta") == step.text
        with pytest.raises(TurnError) as caught:
            await say("bad")
        assert caught.value.code == BadOutput.code


@pytest.mark.parametrize("trap", ["name", "input", "output", "metadata", "ask"])
async def test_what_cannot_be_kept_fails_the_turn(trap: str) -> None:
    """And no more than the turn; what was said before stays."""
    given: dict[str, Any] = {"x": 1}

    async def reply(turn: Turn) -> AsyncIterator[str | Message]:
        yield "said"
        async with turn.step("a\ud800" if trap == "name" else "a", given) as step:
            step.output = given
            if trap == "input":
                given["bad"] = object()
        if trap == "output":
            given["bad"] = object()
        if trap == "metadata":
            turn.metadata["bad"] = object()
        if trap == "ask":
            yield Ask("?", data=object())

    async with talk(reply) as say:
        with suppress(TurnError):
            await say("hi")
        record = await say.runtime.turn("test", 1)
        assert not record.open
        assert [message.text for message in (await say.runtime.messages("test"))[1:]] == ["said"]


# Memory


async def test_memory_outlives_stop_and_failure(open_door: Opener) -> None:
    """What was added is there in the next turn however the turn ended, also from a `finally`; no
    door shows it, and a reset empties it."""

    async def reply(turn: Turn) -> str:
        if turn.text == "read":
            entries = await turn.memory.read()
            return " ".join(f"{entry.n}:{entry.turn}:{entry.body}" for entry in entries)
        await turn.memory.add("early")
        try:
            if turn.text == "fail":
                raise ValueError
            await asyncio.sleep(60)
        finally:
            await turn.memory.add("late", "later")
        return "never"

    async with open_door(Bot(reply)) as door:
        talker = await door.session()
        await talker.say("stop", None)
        await wait_for(talker, 1, "turn.started")
        await asyncio.sleep(0.05)
        await talker.call("POST", "/turns/1/cancel")
        await talker.say("fail")
        told = (await talker.say("read"))["reply"]["text"]
        assert told == "1:1:early 2:1:late 3:1:later 4:2:early 5:2:late 6:2:later"
        for path in ("", "/messages", "/turns", "/events?after=0"):
            page = await talker.call("GET", path, headers={"Accept": "application/json"})
            assert b"later" not in page.content.replace(told.encode(), b"")
        await talker.call("POST", "/reset")
        assert "reply" not in await talker.say("read")


async def test_forgetting_and_limits() -> None:
    """After a snapshot what is older goes; beyond its bytes the memory refuses, and loses nothing;
    the numbers go on."""

    async def reply(turn: Turn) -> str:
        memory = turn.memory
        last = await memory.add(*range(10))
        await memory.forget(before=last)
        assert [entry.body for entry in await memory.read()] == [9]
        with pytest.raises(MemoryFull):
            await memory.add("x" * 300)
        with pytest.raises(MemoryFull):
            await memory.add("x" * 1_000_001)
        with pytest.raises(BadOutput):
            await memory.add("good", object())
        for _ in range(20):  # it fits, because what was forgotten counts no more
            await memory.forget(before=await memory.add("y" * 90))
        assert [entry.n - last for entry in await memory.read()] == [20]
        assert await memory.read(0) == []
        await memory.forget()
        assert await memory.read() == []
        return "ok"

    async with talk(Bot(reply, max_memory=200)) as say:
        assert (await say("hi")).text == "ok"
        assert (await say("again")).text == "ok"


async def test_additions_and_readings_side_by_side(store_url: str) -> None:
    """Tools that run at once each add once, and every later reading has all of it."""

    async def reply(turn: Turn) -> str:
        async def tool(i: int) -> None:
            await turn.memory.add(f"{turn.n}.{i}")
            assert f"{turn.n}.{i}" in [entry.body for entry in await turn.memory.read()]

        await asyncio.gather(*(tool(i) for i in range(10)))
        return " ".join(sorted(entry.body for entry in await turn.memory.read()))

    async with Runtime(Bot(reply), store_url, settings=Settings(_env_file=None)) as runtime:
        for n in range(1, 4):
            said = (await runtime.ask("s", "go")).text.split()
            assert said == sorted(f"{k}.{i}" for k in range(1, n + 1) for i in range(10))


async def test_another_worker_remembers(store_url: str) -> None:
    """Two processes' workers in turn see one memory: what a worker keeps warm is never stale."""
    seen: list[list[Any]] = []

    async def reply(turn: Turn) -> str:
        seen.append([entry.body for entry in await turn.memory.read(last=3)])
        await turn.memory.add(turn.text)
        return "ok"

    def runtime() -> Runtime:
        return Runtime(Bot(reply), store_url, settings=Settings(_env_file=None))

    async with runtime() as one, runtime() as two:
        for i, host in zip(range(8), itertools.cycle([one, one, two]), strict=False):
            await host.ask("s", f"m{i}")
    texts = [f"m{i}" for i in range(8)]
    assert seen == [texts[max(0, i - 3) : i] for i in range(8)]


# Asks


async def asking(turn: Turn) -> AsyncIterator[str | Message]:
    if turn.answers:
        yield " ".join(f"{answer.value}" for answer in turn.answers)
    elif turn.text == "two":
        yield Ask("First?", choices=["yes", "no"])
        yield Ask("Second?", kind="form", data={"fields": [{"name": "age"}]})
    elif turn.text.startswith("ask"):
        await asyncio.sleep(0.1 if turn.text == "ask slowly" else 0)
        yield Ask("May I?", choices=["yes", "no"])
    else:
        yield f"said {turn.text}"


async def open_asks(talker: Talker) -> list[str]:
    found: list[str] = (await talker.call("GET", "/messages")).json()["asks"]
    return found


async def answered(
    talker: Talker, *answers: tuple[str, Any], key: str | None = None
) -> httpx.Response:
    body = {"answers": [{"ask": ask, "value": value} for ask, value in answers]}
    headers = {"Prefer": "wait=20", **({"Idempotency-Key": key} if key else {})}
    return await talker.call("POST", "/turns", json=body, headers=headers)


async def test_an_answer_is_a_turn_of_its_own(open_door: Opener) -> None:
    """It opens with the commit, takes one answer, whose value is one of the choices; a second one
    gets 409, and a repetition with its key the first one's turn."""
    async with open_door(Bot(asking)) as door:
        talker = await door.session()
        await talker.say("ask")
        told = [e for e in await talker.events() if e["type"] == "ask"]
        (ask,) = await open_asks(talker)
        messages = (await talker.call("GET", "/messages")).json()["messages"]
        assert told[0]["ask"] == messages[1]["ask"]
        assert (told[0]["message"], told[0]["ask"]["id"]) == (messages[1]["id"], ask)
        assert (await answered(talker, (ask, "perhaps"))).status_code == 422
        assert (await answered(talker, ("ask_unknown", "yes"))).status_code == 409
        assert (await answered(talker, (ask, "yes"), (ask, "no"))).status_code == 422
        first = await answered(talker, (ask, "yes"), key="k")
        assert (first.status_code, first.json()["reply"]["text"]) == (200, "yes")
        assert (await answered(talker, (ask, "yes"), key="k")).json()["n"] == first.json()["n"]
        assert (await answered(talker, (ask, "no"), key="k")).json()["code"] == "key_reused"
        second = await answered(talker, (ask, "no"))
        assert (second.status_code, second.json()["code"]) == (409, "ask_closed")
        closed = [e for e in await talker.events() if e["type"] == "ask.closed"]
        assert [(e["ask"]["id"], e["why"]) for e in closed] == [(ask, "answered")]
        assert await open_asks(talker) == []


async def test_a_yes_before_the_question_is_no_answer(open_door: Opener) -> None:
    """A message that was accepted before the ask was committed neither answers nor closes it; one
    that is accepted later closes it."""
    async with open_door(Bot(asking)) as door:
        talker = await door.session()
        await talker.say("ask slowly", None)
        assert (await talker.say("yes"))["reply"]["text"] == "said yes"
        (ask,) = await open_asks(talker)
        assert (await talker.say("yes"))["reply"]["text"] == "said yes"
        assert await open_asks(talker) == []
        assert (await answered(talker, (ask, "yes"))).status_code == 409
        closed = [(e["turn"], e["why"]) for e in await talker.events() if e["type"] == "ask.closed"]
        assert closed == [(3, "message")]


async def test_several_asks_are_open(open_door: Opener) -> None:
    """An answer to one leaves the others; a form takes an object; a reset closes what is left."""
    async with open_door(Bot(asking)) as door:
        talker = await door.session()
        await talker.say("two")
        first, second = await open_asks(talker)
        assert (await answered(talker, (second, "old"))).status_code == 422
        told = await answered(talker, (second, {"age": 9}))
        assert told.json()["reply"]["text"] == "{'age': 9}"
        assert await open_asks(talker) == [first]
        last = (await talker.events())[-1]["id"]
        await talker.call("POST", "/reset")
        assert (await answered(talker, (first, "yes"))).status_code == 409
        closed = [e["why"] for e in await talker.events(last) if e["type"] == "ask.closed"]
        assert closed == ["reset"]


async def test_of_two_answers_at_once_one_is_accepted(open_door: Opener) -> None:
    """Accepting an answer and closing its ask is one act."""
    async with open_door(Bot(asking)) as door:
        talker = await door.session()
        await talker.say("ask")
        (ask,) = await open_asks(talker)
        both = await asyncio.gather(*(answered(talker, (ask, "yes")) for _ in range(6)))
        assert sorted(response.status_code for response in both) == [200, *[409] * 5]


async def test_answers_in_python() -> None:
    """`talk` answers by the ask itself; a turn that is stopped opens no ask."""
    async with talk(asking) as say:
        (ask,) = (await say("ask")).asks
        assert (await say.answer(ask, "no")).text == "no"
        with pytest.raises(AskClosed):
            await say.answer(ask, "no")
        (ask,) = (await say("ask")).asks
        with pytest.raises(Invalid):
            await say.answer(ask, "perhaps")
        assert (await say.answer(ask, "yes", "gladly")).text == "yes"
        assert say.events[0].message is not None
        assert (say.events[0].message.text, say.events[0].message.answers[0].value) == (
            "gladly", "yes",
        )  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        {"choices": []},
        {"choices": "yes"},
        {"choices": ["a", "a"]},
        {"choices": [1]},
        {"choices": ["x" * 201]},
        {"kind": "poll"},
    ],
)
def test_what_cannot_be_asked(bad: dict[str, Any]) -> None:
    """It is refused where it is written."""
    with pytest.raises((TypeError, ValueError)):
        Ask("?", **bad)


async def test_a_note_of_the_door(store_url: str) -> None:
    """The handler sees it, also in another attempt and process; the record keeps it; no client, no
    fingerprint and no message has it; it is bounded."""
    seen: list[Any] = []

    async def reply(turn: Turn) -> str:
        seen.append(dict(turn.note))
        return "ok"

    settings = Settings(_env_file=None)
    note = {"client": "client-one", "modes": ["values"]}
    async with Runtime(Bot(reply), store_url, worker=False, settings=settings) as door:
        submitted = await door.gateway.submit("s", "hi", key="k", note=note, create=True)
        assert submitted.turn.note == note
        assert (await door.turn("s", 1)).note == note
        again = await door.gateway.submit("s", "hi", key="k", note={"client": "client-two"})
        assert (again.created, again.turn.note) == (False, note)
        with pytest.raises(TooLarge):
            await door.gateway.submit("s", "hi", note={"x": "y" * 17_000})
        async with Runtime(Bot(reply), store_url, settings=settings) as runtime:
            record = await runtime.gateway.wait("s", 1, 10.0)
            assert (record.note, seen) == (note, [note])
            assert b"client-one" not in record.encode()
            await runtime.ask("s", "more")
            assert seen[1] == {}
        log = await door.store.log("s", 0)
        assert log is not None
        assert all(b"client-one" not in event.encoded for event in log.events)
