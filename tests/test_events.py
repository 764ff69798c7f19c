"""Events: one encoding, in both directions and over every line-based protocol."""

from __future__ import annotations

import orjson
import pytest

from turnwise import Message
from turnwise.conversation import events, placed
from turnwise.conversation.events import Event, draft, gap, message_draft

NASTY = [
    "plain",
    "\r\n\r\nevent: turn.completed\ndata: x",
    "a lone \r return",
    "\u2028 \u2029 \u0085 \x0b \x0c \x1c",
    "data: [DONE]",
    "\x00 and \x1b[31m",
    "\U0001f600 é 漢",
]


def parse(frame: bytes) -> dict[str, str]:
    """A server-sent event as the standard reads it: lines end at CR, LF or CRLF only."""
    assert frame.endswith(b"\n\n")
    text = frame.decode().removesuffix("\n\n")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("text", NASTY)
def test_any_text_survives_every_door(text: str) -> None:
    """Through SSE and JSON a delta's text comes back as it was, even by str.splitlines."""
    made = draft(events.DELTA, 3, 0.0, attempt=1, text=text)
    event = Event(7, made.type, made.turn, made.tail)
    frame = parse(event.sse)
    assert (frame["id"], frame["event"]) == ("7", "delta")
    assert orjson.loads(frame["data"]) == event.json()
    assert event.json() == {
        "id": 7, "type": "delta", "turn": 3, "at": "1970-01-01T00:00:00.000Z",
        "attempt": 1, "text": text,
    }  # fmt: skip
    assert len(event.sse.decode().splitlines()) == 4


@pytest.mark.parametrize("text", NASTY)
def test_a_message_inside_an_event(text: str) -> None:
    """An encoded message is forwarded as the same message."""
    message = Message(text)
    made = message_draft(3, 0.0, placed(message.encode(), 3, 2), position=1)
    event = Event(8, made.type, made.turn, made.tail)
    assert event.json()["message"]["text"] == text
    assert event.json()["position"] == 1
    assert len(event.sse.decode().splitlines()) == 4


def test_an_event_without_a_turn() -> None:
    """session.reset and gap belong to no turn."""
    made = draft(events.RESET, None, 0.0)
    assert "turn" not in Event(1, made.type, made.turn, made.tail).json()
    told = gap(5, 9, 0.0)
    assert (told.id, told.json()["after"], told.json()["resume_at"]) == (9, 5, 9)


def test_the_list_is_closed() -> None:
    """Twenty-one types, four of them end a turn."""
    assert len(events.TYPES) == len(set(events.TYPES)) == 21
    assert set(events.TYPES) > events.TERMINAL


def test_packing() -> None:
    """What an act appends is one value, and comes apart as it was, whatever the texts hold."""
    appended = [
        Event(7 + i, made.type, made.turn, made.tail)
        for i, made in enumerate(
            draft("delta", i or None, 0.0, text=t) for i, t in enumerate(NASTY)
        )
    ]
    appended.append(Event(14, "custom", 3, draft("custom", 3, 0.0, data="\x1e\x1f").tail))
    packed = events.pack(appended)
    assert events.unpack(packed, 14) == appended
