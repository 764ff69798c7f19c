"""Messages, ids, times, and the table of a turn's states."""

from __future__ import annotations

import time

import orjson
import pytest

from turnwise import Attachment, Message
from turnwise.conversation import (
    OPEN,
    TRANSITIONS,
    after,
    checked_session_id,
    iso,
    new_message_id,
    placed,
    seconds,
)
from turnwise.errors import Invalid

CASES = [
    Message("hi"),
    Message("", role="user"),
    Message("line\nbreak \u2028 \x00 \x0b \U0001f600", role="user"),
    Message("x", attachments=[Attachment("image/png", "https://a.example/x.png", "x", 12)]),
    Message("x", attachments=[Attachment("file", "data:text/plain,hi")], metadata={"a": [1, None]}),
    Message("half", partial=True),
]


@pytest.mark.parametrize("message", CASES)
def test_a_message_survives_encoding(message: Message) -> None:
    """decode(encode(m)) is m, with and without a place."""
    again = Message.decode(message.encode())
    assert again.created_at == pytest.approx(message.created_at, abs=0.001)
    again.created_at = message.created_at
    assert again == message
    there = Message.decode(placed(message.encode(), 3, 7))
    assert (there.turn, there.seq, there.text) == (3, 7, message.text)
    assert orjson.loads(placed(message.encode(), 3, None))["seq"] is None


def test_ids_and_times_are_made_per_message() -> None:
    """Two messages never share an id; ids sort by time; a default is not evaluated at import."""
    first = Message("a")
    time.sleep(0.002)
    second = Message("b")
    assert first.id < second.id
    assert first.created_at < second.created_at
    assert len({new_message_id() for _ in range(10_000)}) == 10_000
    assert new_message_id()[14] == "7"


def test_iso_and_back() -> None:
    """RFC 3339 in UTC with milliseconds, in both directions."""
    assert iso(0.0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_700_000_000.5) == "2023-11-14T22:13:20.500Z"
    assert seconds(iso(1_700_000_000.5)) == 1_700_000_000.5


def test_the_table_is_closed() -> None:
    """Open turns have ways on, ended ones none, and no act leads out of the table."""
    for status, acts in TRANSITIONS.items():
        assert bool(acts) == (status in OPEN)
        for act, target in acts.items():
            assert after(status, act) == target
            assert target in TRANSITIONS
    with pytest.raises(Invalid):
        after("completed", "claim")


@pytest.mark.parametrize("bad", ["", "x" * 201, "\ud800"])
def test_what_names_no_session(bad: str) -> None:
    """Empty, too long or no Unicode."""
    with pytest.raises(Invalid):
        checked_session_id(bad)
