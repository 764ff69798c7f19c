"""The chunks of a UI message: the AI SDK's stream protocol.

A page knows a closed list of chunk types, and one that it does not know fails the whole message. So
what it has no chunk for travels as `data-<name>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from turnwise.conversation import Asked, Message, StepRecord, TurnRecord
from turnwise.protocols.asking import tool_input, tool_name
from turnwise.protocols.fold import Fold

APPROVALS = 2
"""An ask of so many choices is an approval: the first one means yes."""


def message_id(record: TurnRecord) -> str:
    """The id of the one message that a turn's whole reply is in a page."""
    return f"msg_{record.n}"


def metadata_of(record: TurnRecord) -> dict[str, Any]:
    """What a page learns of the turn beside its text."""
    return {"turn": record.n, "session": record.session}


def is_approval(ask: Asked) -> bool:
    """Whether an ask is shown as an approval of a tool's call."""
    return ask.kind == "question" and ask.choices is not None and len(ask.choices) == APPROVALS


def custom_part(name: str, data: Any) -> dict[str, Any]:
    """An event of the bot's own as a part of a message; one that is named `source` is a source."""
    if name != "source" or not isinstance(data, dict) or not isinstance(data.get("url"), str):
        return {"type": f"data-{name}", "data": data}
    title = {"title": data["title"]} if isinstance(data.get("title"), str) else {}
    id = str(data.get("id") or data["url"])
    return {"type": "source-url", "sourceId": id, "url": data["url"], **title}


class UIFold(Fold):
    """One message for all that a turn says. `version` is the page's AI SDK, if it is known: from 7
    on it can reset a step, below 6 it has no approvals."""

    def __init__(self, record: TurnRecord, *, attempt: int = 1, version: int | None = None) -> None:
        super().__init__(attempt=attempt)
        self._record = record
        self._resets = version is not None and version >= 7
        self._approves = version is None or version >= 6
        self._ids: dict[int, str] = {}
        self._open: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._texts: dict[str, str] = {}

    def _say(self, type: str, **fields: Any) -> bytes:
        return b"data: %b\n\n" % orjson.dumps({"type": type, **fields})

    def queued(self, position: int) -> Iterator[bytes]:
        yield self._say(
            "start", messageId=message_id(self._record), messageMetadata=metadata_of(self._record)
        )
        if position:
            yield self._say("data-queue", data={"position": position}, transient=True)
        yield self._say("start-step")

    def void(self) -> Iterator[bytes]:
        yield from self._close_all()
        if self._resets:
            yield self._say("reset-step")
        else:
            yield self._say("data-void", data={"attempt": self._attempt}, transient=True)

    def _close_all(self) -> Iterator[bytes]:
        for id, kind in self._open.items():
            yield self._say(f"{kind}-end", id=id)
        self._open.clear()

    def opened(self, id: str, index: int, metadata: dict[str, Any]) -> Iterator[bytes]:
        self._ids[index] = id
        self._open[id] = "text"
        yield self._say("text-start", id=id)

    def text(self, index: int, text: str) -> Iterator[bytes]:
        yield self._say("text-delta", id=self._ids[index], delta=text)

    def closed(self, index: int) -> Iterator[bytes]:
        if self._open.pop(self._ids[index], None):
            yield self._say("text-end", id=self._ids[index])

    def step_began(self, step: StepRecord) -> Iterator[bytes]:
        self._kinds[step.id] = step.kind
        if step.kind == "reasoning":
            self._open[step.id] = "reasoning"
            yield self._say("reasoning-start", id=step.id)
        elif step.kind == "tool":
            yield self._say(
                "tool-input-available", toolCallId=step.id, toolName=step.name,
                input=step.input if step.input is not None else {}, providerExecuted=True,
                dynamic=True,
            )  # fmt: skip
        else:
            yield self._say("data-work", id=step.id, data=step.as_event())

    def step_text(self, id: str, text: str) -> Iterator[bytes]:
        if self._kinds.get(id) == "reasoning":
            yield self._say("reasoning-delta", id=id, delta=text)

    def step_ended(self, step: StepRecord) -> Iterator[bytes]:
        if step.kind == "reasoning":
            if self._open.pop(step.id, None):
                yield self._say("reasoning-end", id=step.id)
        elif step.kind == "tool":
            yield self._result(step)
        else:
            yield self._say("data-work", id=step.id, data=step.as_event())

    def _result(self, step: StepRecord) -> bytes:
        head = {"toolCallId": step.id, "providerExecuted": True, "dynamic": True}
        if step.error is not None:
            return self._say("tool-output-error", **head, errorText=step.error.message)
        return self._say("tool-output-available", **head, output=step.output)

    def custom(self, name: str, data: Any) -> Iterator[bytes]:
        part = custom_part(name, data)
        yield self._say(part.pop("type"), **part)

    def message(self, message: Message) -> Iterator[bytes]:
        self._texts[message.id] = message.text
        for file in message.attachments:
            yield self._say("file", url=file.url, mediaType=file.type)

    def ask(self, message: str, ask: Asked) -> Iterator[bytes]:
        given = tool_input(ask, self._texts.get(message, ""))
        yield self._say(
            "tool-input-available", toolCallId=ask.id, toolName=tool_name(ask), input=given
        )
        if is_approval(ask) and self._approves:
            yield self._say("tool-approval-request", approvalId=ask.id, toolCallId=ask.id)

    def ended(self, error: dict[str, Any] | None, usage: dict[str, Any] | None) -> Iterator[bytes]:
        yield from self._close_all()
        if self.status == "cancelled":
            yield self._say("abort")
        elif error is not None:
            yield self._say("error", errorText=error["message"])
        yield self._say("finish-step")
        reason = {"completed": "stop", "failed": "error", "cancelled": "other"}[self.status]
        metadata = {**metadata_of(self._record), **({"usage": usage} if usage else {})}
        yield self._say("finish", finishReason=reason, messageMetadata=metadata)
        yield b"data: [DONE]\n\n"
