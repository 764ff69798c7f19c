"""What must be true of a session's history and log, whatever happened to the processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ENDS = ("turn.completed", "turn.failed", "turn.cancelled")


def check(asked: Sequence[str], messages: Sequence[Any], events: Sequence[Any]) -> None:
    """`asked` was acknowledged, in this order; `messages` is the history, `events` the whole log.

    Each message is answered once and in order, turns never overlap, numbers have no gap, each turn
    has one last event, and the last attempt's deltas are the reply.
    """
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert [e["message"]["text"] for e in events if e["type"] == "turn.queued"] == list(asked)
    assert [m["text"] for m in messages if m["role"] == "user"] == list(asked)
    assert [m["seq"] for m in messages] == list(range(1, len(messages) + 1))
    replies = {m["turn"]: m["text"] for m in messages if m["role"] == "assistant"}
    running, attempt, said = 0, 0, ""
    ended: list[int] = []
    for event in events:
        kind, turn = event["type"], event["turn"]
        if kind == "turn.started":
            assert running in (0, turn), f"turn {turn} started while {running} ran"
            assert event["attempt"] == (attempt + 1 if running == turn else 1)
            running, attempt, said = turn, event["attempt"], ""
        elif kind == "delta":
            assert (turn, event["attempt"]) == (running, attempt)
            said += event["text"]
        elif kind in ENDS:
            assert turn == running
            assert said == replies[turn]
            ended.append(turn)
            running, attempt = 0, 0
    assert ended == list(range(1, len(asked) + 1))
