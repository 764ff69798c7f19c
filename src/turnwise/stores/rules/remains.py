"""Rules: what the log still holds of an attempt whose worker died."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from turnwise.conversation import Message, events, seconds
from turnwise.conversation.events import Event
from turnwise.conversation.steps import INTERRUPTED
from turnwise.stores.claim import BEFORE, UNENDED, Outcome
from turnwise.stores.entry_events import events_of
from turnwise.stores.header import Head
from turnwise.stores.rules.work import Part

PAGE = 500


def remains(head: Head, outcome: Outcome) -> Part:
    """`outcome` with what the head's last attempt had said and done, marked as partial."""
    first = head.started_event
    if first is None:
        return outcome
    found = _Remains(head.attempt)
    while True:
        (entries,) = yield (("log", first, PAGE),)
        for entry in entries:
            found.hear(event for event in events_of(entry) if event.turn == head.n)
        if len(entries) < PAGE:
            break
        first = entries[-1].last + 1
    outcome.replies = [message.encode() for message in found.messages]
    outcome.told = UNENDED if found.open else BEFORE
    outcome.steps, outcome.data = found.steps(), found.data
    return outcome


class _Remains:
    """The reply and the steps of one attempt, collected from its events."""

    def __init__(self, attempt: int) -> None:
        self._attempt = attempt
        self._messages: dict[int, Message] = {}
        self._steps: dict[str, dict[str, Any]] = {}
        self.data: list[Any] = []
        self.open = False

    @property
    def messages(self) -> list[Message]:
        return [message for _, message in sorted(self._messages.items())]

    def steps(self) -> list[dict[str, Any]]:
        """One that was running has failed."""
        why = {"code": INTERRUPTED.code, "message": INTERRUPTED.message}
        return [
            {**step, "status": "failed", "error": why} if step["status"] == "running" else step
            for step in self._steps.values()
        ]

    def hear(self, told: Iterable[Event]) -> None:
        """Take in some events, in order."""
        for event in told:
            body = event.json()
            if body.get("attempt") != self._attempt:
                continue
            match event.type:
                case events.MESSAGE_STARTED:
                    message = Message.begun(body["message"], seconds(body["at"]))
                    message.partial = self.open = True
                    self._messages[body["index"]] = message
                case events.DELTA if body.get("index") in self._messages:
                    self._messages[body["index"]].text += body["text"]
                case events.MESSAGE_ENDED:
                    self.open = False
                case events.STEP:
                    step = body["step"]
                    text = self._steps.get(step["id"], {}).get("text")
                    self._steps[step["id"]] = {**step, "text": text} if text else step
                case events.STEP_DELTA:
                    step = self._steps[body["step"]]
                    step["text"] = step.get("text", "") + body["text"]
                case events.CUSTOM if body.get("keep"):
                    self.data.append({"name": body["name"], "data": body["data"]})
