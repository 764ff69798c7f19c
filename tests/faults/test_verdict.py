"""The judge is judged: a right history is clean, and each way of being wrong is seen as that."""

from __future__ import annotations

import asyncio
import copy
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from changeful import Changeful
from chats import Chat, Shown, Writer
from foreign import BEGIN, Foreign, Heard
from people import Acknowledged
from test_messenger_faults import judge
from verdict import Verdict

from bots import faulty
from conftest import Opener, Talker

Events = list[dict[str, Any]]


@dataclass
class Story:
    """What a person has recorded, and what the server says when all is over."""

    person: Changeful
    messages: Events
    events: Events

    def verdict(self) -> Verdict:
        found = Verdict()
        found.judge(self.person, self.messages, self.events)
        return found

    def of(self, type: str) -> Events:
        """The events of a type."""
        return [event for event in self.events if event["type"] == type]

    def put(self, at: int, event: dict[str, Any]) -> None:
        """An event more behind the event `at`; the numbers stay without holes, for readers too."""
        self.events.insert(at, copy.deepcopy(event))
        for id, one in enumerate(self.events, 1):
            one["id"] = id
        self.person.seen = copy.deepcopy(self.events)


@pytest.fixture
async def story(open_sqlite_door: Opener) -> Story:
    """A session with every act: asks, an answer, an edit, merged messages, a timer."""
    person = Changeful("p", [], [], random.Random(0))
    async with open_sqlite_door(faulty) as door:
        talker = await door.session()

        async def say(text: str, wait: int = 20, **body: Any) -> None:
            headers = {"Idempotency-Key": text, "Prefer": f"wait={wait}"}
            said = {"text": text, **body}
            turn = (await talker.call("POST", "/turns", json=said, headers=headers)).json()
            person.acknowledged.append(Acknowledged(text, turn["n"], time.monotonic()))

        for text in ("one", "two", "three"):
            await say(text)
        (ask,) = [m["ask"]["id"] for m in await history(talker) if m.get("ask")]
        await say("four", answers=[{"ask": ask, "value": "yes"}])
        await say("five", replaces=4)
        for text in ("a", "b"):
            await say(text, 0, when_busy="merge", settle=0.2)
        await door.runtime.wake(talker.id, "timer", key="timer", at=time.time() + 0.1)
        person.timed.append("timer")
        events: Events = []
        while not events or events[-1].get("turn") != 8 or "turn.comp" not in events[-1]["type"]:
            events += await talker.events(events[-1]["id"] if events else 0, wait=5)
        messages = await history(talker)
    person.seen, person.cursor = copy.deepcopy(events), len(events)
    return Story(person, messages, events)


async def history(talker: Talker) -> Events:
    answer = await talker.call("GET", "/messages", params={"limit": 500})
    found: Events = answer.json()["messages"]
    return found


Wrong = Callable[[Story], object]


def forgotten(story: Story) -> None:
    """A later answer counts fewer memories than an earlier one."""
    message = next(m for m in story.messages if m["turn"] == 3 and m["role"] == "assistant")
    message["text"] = message["text"].replace("3: 1 3", "3: 1 1")


def heard_otherwise(story: Story) -> None:
    story.person.seen[7] = {**story.person.seen[7], "text": "other words"}


def announced(story: Story) -> None:
    """A gap where nothing is missing."""
    gap = {"type": "gap", "after": 4, "resume_at": 4, "id": 4}
    story.person.seen.insert(4, gap)


def without(type: str, place: int = -1) -> Wrong:
    """The log lacks an event of this type."""

    def take(story: Story) -> None:
        gone = story.of(type)[place]
        story.events.remove(gone)
        for id, one in enumerate(story.events, 1):
            one["id"] = id
        story.person.seen = copy.deepcopy(story.events)

    return take


def again(type: str, place: int = -1) -> Wrong:
    """An event is in the log twice."""
    return lambda story: story.put(len(story.events), story.of(type)[place])


def early(story: Story) -> None:
    """An answer stands in the log before its ask."""
    answering = next(e for e in story.of("turn.queued") if (e["message"] or {}).get("answers"))
    story.events.remove(answering)
    story.put(0, {**answering, "turn": 0})


WRONG: dict[str, list[Wrong]] = {
    "lost": [
        lambda s: s.person.acknowledged.append(Acknowledged("never", 9, 0.0)),
        without("turn.completed"),
        lambda s: s.messages.pop(),
        lambda s: s.messages[1].update(text="1: 1 1 0 1 2 other"),
        lambda s: s.messages.pop(0),
        lambda s: s.person.changed.update({2: "changed"}),
        forgotten,
    ],
    "doubled": [
        again("turn.queued", 0),
        lambda s: s.person.repeated.append((s.person.acknowledged[0], s.person.acknowledged[1])),
        again("turn.completed", 0),
        lambda s: s.messages[1].update(text=s.messages[1]["text"].replace("1: 1", "1: 2", 1)),
        lambda s: s.messages.append({**s.messages[-1], "turn": 4, "seq": 99}),
        lambda s: s.person.timed.clear(),
        again("ask.closed"),
        lambda s: s.person.twice.append("an ask"),
        lambda s: [e.update(text="9:") for e in s.of("delta")[:1]],
    ],
    "reordered": [
        lambda s: s.person.acknowledged.__setitem__(0, Acknowledged("one", 2, 0.0)),
        lambda s: s.put(3, s.of("turn.started")[2]),
        lambda s: s.of("delta")[0].update(attempt=7),
        lambda s: s.messages.reverse(),
        early,
        lambda s: s.put(1, s.of("history.cut")[0]),
    ],
    "gaps": [
        lambda s: s.events[-1].update(id=99),
        lambda s: s.person.seen.pop(5),
        heard_otherwise,
        announced,
    ],
}


async def test_the_judge_sees_each_wrong(story: Story) -> None:
    """What is lost, doubled, reordered or missing for a reader is counted as that, of every act;
    nothing is wrong with the history as it was."""
    assert story.verdict().clean, story.verdict()
    assert story.verdict().deeds >= 3
    for kind, ways in WRONG.items():
        for number, break_it in enumerate(ways):
            broken = copy.deepcopy(story)
            break_it(broken)
            found = broken.verdict()
            assert getattr(found, kind), (kind, number, found)


async def test_the_judge_of_other_clients(open_sqlite_door: Opener) -> None:
    """What a client has heard is compared with what is kept, and with what it hears later."""
    async with open_sqlite_door(faulty) as door:
        person = Foreign("p", [door.url], [], random.Random(1))
        await person.talk(asyncio.Event(), 20)
        async with httpx.AsyncClient() as client:
            messages, events = await person.history(client), await person.log(client)

    def found(door: str, break_it: Callable[[Heard], object]) -> Verdict:
        broken = copy.deepcopy(person)
        break_it(next(one for one in broken.heard if one.door == door))
        verdict = Verdict()
        verdict.judge(broken, messages, events)
        return verdict

    assert {one.door for one in person.heard} == set(BEGIN)
    for name in BEGIN:
        assert found(name, lambda heard: None).clean, found(name, lambda heard: None)
        assert found(name, lambda heard: setattr(heard, "turn", 0)).lost
        assert found(name, lambda heard: setattr(heard, "turn", 1 + (heard.turn == 1))).lost
        if name != "ag-ui":
            assert found(name, lambda heard: heard.chunks.pop(2)).gaps
            assert found(name, lambda heard: heard.again.pop()).gaps


def test_the_judge_of_messengers() -> None:
    """The same of chats: a repetition is excused where the bot was not told, once for a strike."""
    writer = Writer("telegram", "11", [], random.Random(0), ["m0", "m1"])
    texts = ["1 first m0", "1 second m0", "2 first m1", "2 second m1"]

    def found(
        texts: list[str], told: bool = True, struck: list[tuple[float, float]] | None = None
    ) -> Verdict:
        shown = {f"{i}": Shown(text, float(i), told) for i, text in enumerate(texts)}
        verdict = Verdict()
        judge(verdict, writer, Chat(shown), struck or [])
        return verdict

    assert found(texts).clean
    assert found(texts[:3]).lost == 1
    assert found([texts[1], texts[0], *texts[2:]]).reordered == 1
    twice = [texts[0], texts[0], *texts[1:]]
    assert found(twice).doubled == 1
    assert found(["1 second", *texts]).doubled == 1
    assert found(twice, told=False).clean
    assert found(twice, struck=[(0.5, 0.6)]).clean
    assert found([texts[0], *twice], struck=[(0.5, 0.6)]).doubled == 1
    assert found(twice, struck=[(9.0, 9.1)]).doubled == 1
