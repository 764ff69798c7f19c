"""Turns: the table of their states, and their record.

The state transitions of a turn are a table. Each transition is one atomic act of the store; a
transition that is not in the table is not possible:

    queued    -> running     claim: the session's first unfinished turn, no live claim; attempt += 1
    queued    -> cancelled   cancel (the person withdraws it), reset, or a cut before it
    queued    -> merged      merge: the turn before it starts, and answers its message as well
    running   -> completed   finish: reply, state and final event are committed together
    running   -> failed      finish: the handler raised, timed out, or attempts are used up
    running   -> cancelled   finish after cancel, reset, or a cut before it
    running   -> queued      release (the attempt is not counted) or an expired lease (it is)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from turnwise.conversation.asks import Asked
from turnwise.conversation.messages import Failure, Message, Status, parsed
from turnwise.conversation.stamps import iso
from turnwise.conversation.steps import StepRecord
from turnwise.errors import Invalid

TRANSITIONS: Mapping[Status, Mapping[str, Status]] = {
    "queued": {
        "claim": "running",
        "cancel": "cancelled",
        "reset": "cancelled",
        "cut": "cancelled",
        "merge": "merged",
    },
    "running": {
        "complete": "completed",
        "fail": "failed",
        "stop": "cancelled",
        "reset": "cancelled",
        "cut": "cancelled",
        "release": "queued",
        "lapse": "queued",
    },
    "completed": {},
    "failed": {},
    "cancelled": {},
    "merged": {},
}
OPEN: frozenset[Status] = frozenset({"queued", "running"})


def after(status: Status, act: str) -> Status:
    """The status of a turn after `act`; raises Invalid if the table has no such transition."""
    try:
        return TRANSITIONS[status][act]
    except KeyError:
        raise Invalid(f"A turn that is {status} cannot {act}.") from None


@dataclass(slots=True)
class Reply:
    """The answer to a turn: its whole `text`, its messages, what it cost, what the bot did."""

    text: str
    messages: list[Message]
    turn: int
    usage: dict[str, Any] | None = None
    partial: bool = False
    steps: Sequence[StepRecord] = ()

    @property
    def asks(self) -> list[Asked]:
        """What its messages ask for; a turn that failed or was stopped asks nothing."""
        return [m.ask for m in self.messages if m.ask is not None and not m.partial]


@dataclass(slots=True)
class TurnRecord:
    """A turn as it is stored: its status, its message, its reply.

    Times are seconds since 1970. `position` counts the unfinished turns before a queued one. The
    fields that end in `_json` are encoded, as in the store; `message`, `reply`, `error` and `usage`
    are decoded. `steps` are what the bot did, `data` what `turn.emit(keep=True)` kept: each with a
    `name` and its `data`. `reason` is set where the bot speaks without a message of a person,
    `merged_into` is the turn that answers this one's message as well, and `answered` the status of
    that; `superseded` says that it was taken back. `delivery`: of a messenger's chat what has
    become of each piece of the reply: the place of its `message`, of the `piece` in it, and its
    `state`: "sent", "refused" by the platform for good, or "given up", and `why`.
    """

    session: str
    n: int
    status: Status
    attempt: int
    queued_at: float
    first_event: int
    position: int | None = None
    message_json: bytes | None = None
    replies_json: Sequence[bytes] = ()
    error_json: bytes | None = None
    usage_json: bytes | None = None
    note_json: bytes | None = None
    started_at: float | None = None
    finished_at: float | None = None
    steps: Sequence[StepRecord] = ()
    data: Sequence[Mapping[str, Any]] = ()
    reason: str | None = None
    merged_into: int | None = None
    superseded: bool = False
    answered: Status = "completed"
    delivery: Sequence[Mapping[str, Any]] = ()

    def check(self) -> TurnRecord:
        """The record itself. Raises Damaged if a part of it cannot be read."""
        for body in (self.message_json, *self.replies_json, self.error_json, self.usage_json):
            if body is not None:
                parsed(body, self.session)
        return self

    @property
    def open(self) -> bool:
        """Whether it is not finished: queued or running."""
        return self.status in OPEN or self.answered in OPEN

    @property
    def message(self) -> Message | None:
        """The user's message; None if a reset has removed it."""
        return Message.decode(self.message_json) if self.message_json is not None else None

    @property
    def reply(self) -> Reply | None:
        """The bot's reply, or None if there is no reply (yet)."""
        if not self.replies_json:
            status = self.answered if self.status == "merged" else self.status
            if status != "completed":
                return None
            return Reply("", [], self.n, self.usage, steps=self.steps)
        messages = [Message.decode(reply) for reply in self.replies_json]
        return Reply(
            text="\n".join(message.text for message in messages if message.text),
            messages=messages,
            turn=self.n,
            usage=self.usage,
            partial=any(message.partial for message in messages),
            steps=self.steps,
        )

    @property
    def error(self) -> Failure | None:
        """Why it failed, or None."""
        if self.error_json is None:
            return None
        return Failure(**orjson.loads(self.error_json))

    @property
    def usage(self) -> dict[str, Any] | None:
        """The usage that the handler reported (`turn.usage`)."""
        if self.usage_json is None:
            return None
        found: dict[str, Any] = orjson.loads(self.usage_json)
        return found

    @property
    def note(self) -> dict[str, Any]:
        """What the door that brought the turn has noted; no client sees it."""
        found: dict[str, Any] = orjson.loads(self.note_json) if self.note_json else {}
        return found

    def encode(self) -> bytes:
        """The turn as JSON; its messages are inserted as bytes, without decoding."""
        body: dict[str, Any] = {
            "session": self.session,
            "n": self.n,
            "status": self.status,
            "attempt": self.attempt,
        }
        if self.position is not None:
            body["position"] = self.position
        body["message"] = orjson.Fragment(self.message_json or b"null")
        if self.reason is not None:
            body["reason"] = self.reason
        if self.merged_into is not None:
            body["merged_into"] = self.merged_into
        if self.superseded:
            body["superseded"] = True
        if self.replies_json:
            body["reply"] = self._reply()
        if self.steps:
            body["steps"] = [step.as_dict() for step in self.steps]
        if self.data:
            body["data"] = self.data
        if self.delivery:
            body["delivery"] = self.delivery
        if self.error_json is not None:
            body["error"] = orjson.Fragment(self.error_json)
        body["queued_at"] = iso(self.queued_at)
        body["started_at"] = self.started_at and iso(self.started_at)
        body["finished_at"] = self.finished_at and iso(self.finished_at)
        return orjson.dumps(body)

    def _reply(self) -> dict[str, Any]:
        texts = [orjson.loads(reply)["text"] for reply in self.replies_json]
        reply: dict[str, Any] = {
            "text": "\n".join(text for text in texts if text),
            "messages": [orjson.Fragment(reply) for reply in self.replies_json],
        }
        if self.usage_json is not None:
            reply["usage"] = orjson.Fragment(self.usage_json)
        return reply
