"""A reply while it is made: what is written when, and what is said."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson
import pytest

from turnwise import Message, TurnError
from turnwise.conversation.events import Draft
from turnwise.errors import ClaimLost
from turnwise.stores.claim import UNENDED, WHOLE
from turnwise.turn import Coalesce
from turnwise.worker.output import Output
from turnwise.worker.pending import split_sentences


class Log:
    """Where the drafts go; a write can be held up."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.second = asyncio.Event()

    async def __call__(self, drafts: Sequence[Draft]) -> None:
        self.writes.append([_text(one) for one in drafts if one.type != "message.started"])
        self.second.set()
        await self.gate.wait()


def _text(one: Draft) -> str:
    body = orjson.loads(b"{" + one.tail)
    return str(body.get("text", body.get("name")))


def _place(one: Draft) -> int:
    place: int = orjson.loads(b"{" + one.tail)["index"]
    return place


def output(log: Log, coalesce: Coalesce = 0.01, limit: int = 1000) -> Output:
    return Output(1, 1, log, coalesce=coalesce, limit=limit)


async def test_a_reply_made_in_one_go_costs_no_write() -> None:
    """What is said without waiting travels with the commit."""
    log = Log()
    out = output(log)
    await out.say("a")
    await out.say("b")
    out.close()
    await asyncio.sleep(0.03)
    assert log.writes == []
    messages, told = out.finish(partial=False, metadata=None)
    assert ([message.text for message in messages], told) == (["ab"], WHOLE)
    assert out.rest() == []


async def test_the_first_delta_leaves_at_once_and_the_next_together() -> None:
    """While a write is under way the next delta grows."""
    log = Log()
    log.gate.clear()
    out = output(log)
    await out.say("one ")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert log.writes == [["one "]]
    for word in ("two ", "three ", "four"):
        await out.say(word)
        await asyncio.sleep(0)
    log.second = asyncio.Event()
    log.gate.set()
    async with asyncio.timeout(5):
        await log.second.wait()
    assert log.writes == [["one "], ["two three four"]]
    await out.settle()
    assert out.rest() == []


async def test_custom_events_keep_their_place() -> None:
    """A custom event comes after the text said before it and before the text said after it."""
    out = output(Log())
    await out.say("a")
    await out.emit("chart", {"x": 1}, False)
    await out.say("b")
    out.close()
    assert [_text(one) for one in out.rest()][1:] == ["a", "chart", "b"]


async def test_texts_and_messages() -> None:
    """Texts stream into one message; a Message is one of its own and parts the texts."""
    out = output(Log())
    for piece in ("a", "b", Message("whole"), "c"):
        await out.say(piece)
    out.close()
    messages, told = out.finish(partial=False, metadata=None)
    assert ([message.text for message in messages], told) == (["ab", "whole", "c"], UNENDED)
    assert [(one.type, _place(one)) for one in out.rest()] == [
        ("message.started", 0), ("delta", 0), ("message.ended", 0),
        ("message.started", 1), ("delta", 1), ("message.ended", 1),
        ("message.started", 2), ("delta", 2),
    ]  # fmt: skip


async def test_partial_marks_what_was_said() -> None:
    """A cancelled reply's messages are marked."""
    out = output(Log())
    await out.say("half a th")
    out.close()
    assert [m.partial for m in out.finish(partial=True, metadata=None)[0]] == [True]


@pytest.mark.parametrize("bad", [b"bytes", 3, ["x"], {"a": 1}])
async def test_what_is_no_piece(bad: object) -> None:
    """Anything but str and Message ends the turn with a readable code."""
    with pytest.raises(TurnError) as caught:
        await output(Log()).say(bad)  # type: ignore[arg-type]
    assert caught.value.code == "bad_reply"


async def test_a_reply_has_a_limit() -> None:
    """Beyond it the turn fails."""
    out = output(Log(), limit=10)
    await out.say("x" * 10)
    with pytest.raises(TurnError) as caught:
        await out.say("y")
    assert caught.value.code == "reply_too_long"


async def test_surrogates_are_mended() -> None:
    """A pair that came in two halves of one piece is joined, a lone one replaced."""
    out = output(Log())
    await out.say("\ud83d\ude00 and \ud83d alone")
    out.close()
    assert out.finish(partial=False, metadata=None)[0][0].text == "\U0001f600 and \ufffd alone"


async def test_after_a_lost_claim_nothing_is_said() -> None:
    """The failure of a write is raised by the next piece."""

    async def refuse(_: Sequence[Draft]) -> None:
        raise ClaimLost()

    out = Output(1, 1, refuse, coalesce=0.0, limit=100)
    await out.say("a")
    await asyncio.sleep(0.01)
    with pytest.raises(ClaimLost):
        await out.say("b")


async def test_a_handler_that_never_waits_lets_others_run() -> None:
    """Pieces without end, empty ones too, do not hold the event loop."""
    out = output(Log())
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(tick())
    for _ in range(1000):
        await out.say("")
    other.cancel()
    assert ticks > 5


@pytest.mark.parametrize(
    ("text", "sentences", "rest"),
    [
        ("One. Two! Thr", ["One. ", "Two! "], "Thr"),
        ("Is 3.14 pi? Yes", ["Is 3.14 pi? "], "Yes"),
        ("No end", [], "No end"),
        ("Wait...  what", ["Wait...  "], "what"),
        ("你好。再见", ["你好。"], "再见"),
        ("A line\nnext", ["A line\n"], "next"),
        ('He said "go." Then', ['He said "go." '], "Then"),
        ("", [], ""),
    ],
)
def test_sentences(text: str, sentences: list[str], rest: str) -> None:
    """Where sentences end, and what may still grow."""
    assert split_sentences(text) == (sentences, rest)
    assert "".join(sentences) + rest == text


async def test_coalescing_by_sentence() -> None:
    """Each delta is a whole sentence; the last one may lack its end."""
    log = Log()
    out = output(log, "sentence")
    for word in ["One", "two.", "Three", "four!", "And", "the", ""]:
        await out.say(word + " ")
        await asyncio.sleep(0.02)
    await out.say("end")
    await out.settle()
    rest = [_text(one) for one in out.rest()]
    deltas = [text for write in log.writes for text in write] + rest
    assert "".join(deltas) == "One two. Three four! And the  end"
    assert deltas[:2] == ["One two. ", "Three four! "]
