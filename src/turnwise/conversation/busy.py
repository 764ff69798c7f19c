"""What a message does that finds earlier ones of its session unanswered. Pure."""

from __future__ import annotations

from typing import Any, Literal, get_args

from turnwise.errors import Invalid

WhenBusy = Literal["queue", "interrupt", "merge", "reject"]
"""queue: it waits for its turn. interrupt: it stops the running turn, withdraws those that wait,
and is next. merge: it becomes a part of the message before it, if that still waits. reject: it is
refused."""
Policy = tuple[WhenBusy, float]
"""What it does, and the seconds that a turn waits for more messages to be merged."""
QUEUE: Policy = ("queue", 0.0)
MAX_SETTLE = 5.0
"""Seconds that a turn waits for more messages, in all."""


def checked_policy(when_busy: Any, settle: Any = 0.0) -> Policy:
    """Both as a policy. Raises Invalid."""
    if when_busy not in get_args(WhenBusy):
        raise Invalid(f"when_busy is one of {', '.join(get_args(WhenBusy))}.")
    number = isinstance(settle, int | float) and not isinstance(settle, bool)
    if not number or not 0 <= settle <= MAX_SETTLE:
        raise Invalid(f"settle is a number of seconds from 0 to {MAX_SETTLE:g}.")
    if settle and when_busy != "merge":
        raise Invalid("Only messages that are merged can settle.")
    return when_busy, float(settle)
